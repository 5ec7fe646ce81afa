"""Mutants of sums over paths of hidden states, and of what surrounds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pyro_genmodels import distributions
from pyro_genmodels.distributions.hidden_markov import hidden_markov, partition, paths, scaled
from tests.distributions.hidden_markov_oracles import law_of_enumeration, law_of_spread
from tests.distributions.test_hidden_markov import law_of_masks
from tests.distributions.test_hidden_markov_peers import law_of_pyro_shift
from tests.mutants.mutation import Mutation, assert_caught

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def factors_changed(change: Callable[[Any], Any]) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = partition.chain_of
        for module in (partition, paths, hidden_markov):
            patch.setattr(module, "chain_of", lambda *args: change(original(*args)))

    return mutate


def transposed(chain: Any) -> Any:
    return replace(chain, transitions=chain.transitions.transpose(-1, -2))


def a_state_before_the_first(chain: Any) -> Any:
    initial = chain.initial.unsqueeze(-1) + chain.transitions[:, 0]
    return replace(chain, initial=initial.logsumexp(-2))


def of_scaled(name: str, change: Callable[..., Any]) -> Mutation:
    """Replace a function's result ``r`` by ``change(r, *arguments)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = getattr(scaled, name)
        patch.setattr(scaled, name, lambda *a, **o: change(original(*a, **o), *a))

    return mutate


def first_total_dropped(found: scaled.Filtered, *_: Any) -> scaled.Filtered:
    totals = found.totals.clone()
    totals[0] = 1.0
    return replace(found, totals=totals)


def unnoticed(exact: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.ones_like(exact)


def mask_of_nothing(patch: pytest.MonkeyPatch) -> None:
    original = distributions.HiddenMarkov.__init__

    def init(self: Any, *args: Any, mask: Any = None, **options: Any) -> None:
        original(self, *args, mask=None if mask is None else torch.ones_like(mask), **options)

    patch.setattr(distributions.HiddenMarkov, "__init__", init)


ENUMERATED: dict[str, tuple[str, Mutation]] = {
    "transitions transposed": ("loop", factors_changed(transposed)),
    "a state before the first": ("loop", factors_changed(a_state_before_the_first)),
    **{
        f"first frame's normaliser dropped, {algorithm}": (
            algorithm,
            of_scaled(name, first_total_dropped),
        )
        for algorithm, name in {
            "loop": "forward_loop",
            "blocks": "forward_parallel",
            "scan": "forward_parallel",
        }.items()
    },
    **{
        f"backward pass off by one, {algorithm}": (
            algorithm,
            of_scaled(name, lambda changes, *_: changes.roll(1, 0)),
        )
        for algorithm, name in {
            "loop": "backward_loop",
            "blocks": "backward_parallel",
            "scan": "backward_parallel",
        }.items()
    },
}


@pytest.mark.parametrize("mutant", ENUMERATED)
def test_enumeration(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, mutation = ENUMERATED[mutant]

    def law() -> None:
        with pytest.MonkeyPatch.context() as patch:
            law_of_enumeration(algorithm, patch)

    assert_caught(law, mutation, monkeypatch, "not close")


def test_another_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    mutation = factors_changed(a_state_before_the_first)
    assert_caught(law_of_pyro_shift, mutation, monkeypatch, "not close")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_underflow_that_is_not_noticed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def law() -> None:
        with pytest.MonkeyPatch.context() as patch:
            law_of_spread("loop", dtype, patch)

    mutation = of_scaled("is_exact", unnoticed)
    assert_caught(law, mutation, monkeypatch, "nats off at a spread of|not close")


def test_a_mask_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(law_of_masks, mask_of_nothing, monkeypatch, "not close|value", error=Exception)
