"""Mutants of mixtures: of their weights, labels, chunks and noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import models
from pyro_genmodels.distributions import Mixture
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.mixtures import mixture_model
from tests.models import test_mixture
from tests.mutants.mutation import Mutation, assert_caught, method_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def unnormalised_weights(patch: pytest.MonkeyPatch) -> None:
    original = Mixture.__init__

    def init(self: Any, logits: Tensor, *arguments: Any, **options: Any) -> None:
        original(self, logits, *arguments, **options)
        self.logits = logits + 0.1

    patch.setattr(Mixture, "__init__", init)


def guide_ignores_the_label(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mixture_model, "_where_unknown", lambda known, logits: logits)


def unknown_is_the_first(patch: pytest.MonkeyPatch) -> None:
    def changed(parts: Any, *_: Any) -> Any:
        group, known, features = parts
        return group, None if known is None else known.clamp_min(0), features

    method_of(models.MixtureModel, "_split", changed)(patch)


def a_chunk_too_short(patch: pytest.MonkeyPatch) -> None:
    original = GenerativeModel.label_log_probs

    def label_log_probs(self: Any, x: Tensor, labels: Tensor, *rest: Any, **options: Any) -> Tensor:
        size = options.get("chunk_size")
        if size is not None and size < len(labels):
            labels = torch.cat([labels[:size], labels[size - 1 : -1]])
        scores: Tensor = original(self, x, labels, *rest, **options)
        return scores

    patch.setattr(GenerativeModel, "label_log_probs", label_log_probs)


def a_noise_of_each_component(patch: pytest.MonkeyPatch) -> None:
    """The dequantisation moved by the most probable component."""
    original = mixture_model.ComponentOf.log_prob

    def log_prob(self: Any, value: Tensor) -> Tensor:
        return original(self, value) + 0.3 * self.labels

    patch.setattr(mixture_model.ComponentOf, "log_prob", log_prob)


def prior_of_each_example(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(models.MixtureModel, "expect_examples", lambda self, number: None)


def evaluated_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(models.SharedPass, "look_up", lambda self, record, latents: None)


MUTANTS: dict[str, tuple[Mutation, Any, tuple[Any, ...]]] = {
    "weights unnormalised": (
        unnormalised_weights,
        test_mixture.test_the_mixture_is_the_formula,
        ("learned",),
    ),
    "label ignored": (
        guide_ignores_the_label,
        test_mixture.test_a_known_label_is_scored_and_an_unknown_one_is_not,
        (),
    ),
    "unknown label taken for 0": (
        unknown_is_the_first,
        test_mixture.test_a_known_label_is_scored_and_an_unknown_one_is_not,
        (),
    ),
    "chunk boundary": (a_chunk_too_short, test_mixture.test_chunks_change_nothing, ()),
    "label seen by the noise": (
        a_noise_of_each_component,
        test_mixture.test_a_dequantised_mixture_has_one_noise,
        (),
    ),
    "prior counted for each batch": (
        prior_of_each_example,
        test_mixture.test_a_dirichlet_prior_is_shared_by_the_examples,
        (),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mixtures(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, law, arguments = MUTANTS[mutant]
    assert_caught(lambda: law(*arguments), mutation, monkeypatch, "")


def test_components_evaluated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def law() -> None:
        with pytest.MonkeyPatch.context() as patch:
            test_mixture.test_components_are_evaluated_once_per_step(patch)

    assert_caught(law, evaluated_twice, monkeypatch, "")
