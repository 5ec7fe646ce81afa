"""Mutants of hidden Markov models and Baum-Welch, each caught by a law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pyro_genmodels import models
from pyro_genmodels.models.markov import hidden_markov_model
from pyro_genmodels.models.markov.chain import Chain
from pyro_genmodels.models.markov.emissions import Emissions
from tests.models import test_baum_welch, test_hidden_markov_model
from tests.models.test_hidden_markov_model import MAKERS
from tests.mutants.mutation import Mutation, assert_caught, method_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def _sums(name: str) -> Callable[[], None]:
    return lambda: test_hidden_markov_model.test_it_sums_over_all_paths(MAKERS[name])


def _initial_before_a_transition(patch: pytest.MonkeyPatch) -> None:
    original: Any = hidden_markov_model.HiddenMarkov

    def moved(initial: Any, transition: Any, *args: Any, **options: Any) -> Any:
        initial = (initial.unsqueeze(-1) + transition).logsumexp(-2)
        return original(initial, transition, *args, **options)

    patch.setattr(hidden_markov_model, "HiddenMarkov", moved)


def _missing_counted(nats: Any, emissions: Any, value: Any) -> Any:
    gone = emissions.frames.absent(value)
    shape = (*gone.shape, *emissions.frames.event_shape)
    filled = emissions.conditional.class_log_probs(value.new_zeros(shape))
    return torch.where(gone.unsqueeze(-1), filled, nats)


def _own_frame(context: Any, emissions: Any, frames: Any) -> Any:
    return context if emissions.before is None else emissions._context_of(frames)


def _unmasked(log_probs: Any, model: Any) -> Any:
    return model.transition_logits.log_softmax(-1)


def _transposed(result: Any, chain: Any, log_probs: Any) -> Any:
    initial, transition = chain._counts
    chain._counts = initial, transition.mT
    return result


def _counted_to_the_end(_: Any, chain: Any, *args: Any) -> None:
    chain._ended = torch.zeros_like(chain._ended)


MUTANTS: dict[str, tuple[Callable[[], None], Mutation, str]] = {
    "the first state is drawn before a transition": (
        _sums("tables"),
        _initial_before_a_transition,
        "not close",
    ),
    "a missing frame is counted": (
        _sums("missing"),
        method_of(Emissions, "log_probs", _missing_counted),
        "not close",
    ),
    "the topology is left out": (
        test_hidden_markov_model.test_excluded_transitions_stay_out,
        method_of(models.HiddenMarkovModel, "transition_log_probs", _unmasked),
        "assert",
    ),
    "a frame depends on itself": (
        test_hidden_markov_model.test_a_frame_may_depend_on_the_one_before,
        method_of(Emissions, "_contexts", _own_frame),
        "not close",
    ),
    "expected counts are transposed": (
        test_baum_welch.test_the_likelihood_never_falls_and_ends_at_a_stationary_point,
        method_of(Chain, "expect", _transposed),
        "must raise the objective",
    ),
    "transitions after the end are counted": (
        test_baum_welch.test_missing_frames_are_left_out,
        method_of(Chain, "__init__", _counted_to_the_end),
        "assert",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message, error=(AssertionError, RuntimeError))
