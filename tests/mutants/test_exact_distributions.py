"""Mutants of the distribution over data that exact models have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyro_genmodels import models, testing
from pyro_genmodels.models import AutoregressiveModel, FactorAnalysis, FlowModel, GenerativeModel
from tests import cases
from tests.cases import Case
from tests.mutants.mutation import Mutation, assert_caught, method_of
from tests.test_laws import batch_for, prepared

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def replaced(kind: type, method: Callable[..., Any]) -> Mutation:
    return lambda patch: patch.setattr(kind, "distribution", method)


def detached_mean(patch: pytest.MonkeyPatch) -> None:
    original = FactorAnalysis.distribution

    def distribution(self: Any, context: Any = None) -> Any:
        law = original(self, context)
        law.loc = law.loc.detach()
        return law

    patch.setattr(FactorAnalysis, "distribution", distribution)


def refuses(self: Any, context: Any = None) -> Any:
    raise ValueError("there is none")


def with_dequantized_values(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FlowModel, "distribution", FlowModel.density)


def one_noise_for_all_contexts(patch: pytest.MonkeyPatch) -> None:
    original = FlowModel._noise
    patch.setattr(FlowModel, "_noise", lambda self, context: original(self, None))


CASES = {
    "factors": cases.MODELS["FactorAnalysis"],
    "flow of levels": cases.MODELS["FlowModel/margin"],
    "Pyro's flow": cases.FEATURE_MODELS["FlowModel/pyro"],
    "labels": cases.MODELS["AutoregressiveModel"],
    "vae": cases.MODELS["VAE"],
}
MUTANTS: dict[str, tuple[str, Mutation, str]] = {
    "standardised units": (
        "factors",
        method_of(FactorAnalysis, "distribution", lambda law, *_: getattr(law, "base", law)),
        "log-probabilities are the log-weights, of a batch",
    ),
    "one label for all": (
        "labels",
        replaced(
            AutoregressiveModel,
            lambda self, labels: models.AutoregressiveModel._law(self, 0 * labels),
        ),
        "log-probabilities are the log-weights, of a batch",
    ),
    "the mean's gradient missing": ("factors", detached_mean, "gradients are the log-weights'"),
    "dequantised values scored": (
        "flow of levels",
        with_dequantized_values,
        "log-probabilities are the log-weights",
    ),
    "one noise for all contexts": (
        "Pyro's flow",
        one_noise_for_all_contexts,
        "shape|size",
    ),
    "forgotten": (
        "labels",
        replaced(AutoregressiveModel, GenerativeModel.distribution),
        "an exact model has a distribution",
    ),
    "refused without a name": (
        "vae",
        replaced(GenerativeModel, refuses),
        "a model that has no distribution is named",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_exact_distribution(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, mutation, message = MUTANTS[mutant]

    def law() -> None:
        case: Case = prepared(CASES[name])
        testing.check_exact_distribution(case.part, *batch_for(case, 3))

    error = (AssertionError, RuntimeError)  # torch names shapes that do not fit
    assert_caught(law, mutation, monkeypatch, message, error=error)
