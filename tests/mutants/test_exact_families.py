"""Mutants of Gaussian and categorical models, and of the scores of all their labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, models, testing
from pyro_genmodels.models.gaussian import class_scores, gaussian_model, observed_gaussian
from pyro_genmodels.models.gaussian.observed_normal import ObservedNormal
from pyro_genmodels.models.mixtures import categorical_model
from tests import cases
from tests.models import test_categorical as categorical_laws
from tests.models import test_gaussian as gaussian_laws
from tests.mutants.mutation import Mutation, assert_caught, method_of
from tests.test_laws import batch_for, prepared

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def exact(name: str) -> Callable[[], None]:
    def law() -> None:
        case = prepared(cases.MODELS[name])
        testing.check_exact_distribution(case.part, *batch_for(case, 3))

    return law


def units_of_a_sphere() -> None:
    torch.manual_seed(0)
    model = models.GaussianModel((3,), covariance="spherical").eval()
    testing.check_standardization(model, torch.randn(5, 3))


def scores(covariance: str, *, missing: bool = False) -> Callable[[], None]:
    return lambda: gaussian_laws.test_scores_are_those_of_dense_gaussians(
        covariance, (4,), False, missing
    )


def replaced(part: Any, name: str, value: Any) -> Mutation:
    return lambda patch: patch.setattr(part, name, value)


def one_covariance(
    x: Tensor, loc: Tensor, whitening: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    """The first label's, read as all labels'."""
    return class_scores.dense_scores(x, loc, whitening[:1].expand_as(whitening))


def draws_alone(self: Any, value: Tensor) -> Tensor:
    """Missing elements from the marginal, whatever was observed."""
    return torch.where(value.isnan(), self.whole.expand(value.shape[:-1]).sample(), value)


def products_with_infinities(x: Tensor, log_probs: Tensor) -> Tensor:
    levels = enumerate(log_probs.unbind(-1))
    return sum((x == level).to(part) @ part.mT for level, part in levels)  # type: ignore[return-value]


def first_label(self: Any, context: Tensor | None) -> Any:
    return original_law(self, None if context is None else 0 * context)


original_law = models.GaussianModel._law

MUTANTS: dict[str, tuple[Callable[[], None], Mutation, str]] = {
    "log-determinant of the covariance's factor": (
        scores("full"),
        method_of(distributions.WhitenedNormal, "_log_det", lambda nats, _: -nats),
        "not close",
    ),
    "log-determinant twice": (
        scores("tied"),
        method_of(distributions.WhitenedNormal, "_log_det", lambda nats, _: 2 * nats),
        "not close",
    ),
    "one label's covariance for all scores": (
        exact("GaussianModel/labels"),
        replaced(gaussian_model, "dense_scores", one_covariance),
        "class_log_probs are those of each label",
    ),
    "one label for all": (
        scores("full"),
        replaced(models.GaussianModel, "_law", first_label),
        "not close",
    ),
    "moments without units": (
        lambda: gaussian_laws.test_scores_are_those_of_dense_gaussians("full", (4,), True, False),
        method_of(
            models.GaussianModel,
            "_units",
            lambda units, _: (torch.zeros_like(units[0]), torch.ones_like(units[1])),
        ),
        "not close",
    ),
    "the block of all elements": (
        scores("full", missing=True),
        replaced(ObservedNormal, "_factor", lambda self, _: torch.linalg.cholesky(self.covariance)),
        "not close",
    ),
    "imputed from the marginal": (
        lambda: gaussian_laws.test_imputations_are_draws_from_the_conditional("full", (4,)),
        replaced(observed_gaussian.ObservedGaussian, "conditional_sample", draws_alone),
        "assert|not close",
    ),
    "products that cancel": (
        lambda: gaussian_laws.test_chunks_change_nothing("diagonal"),
        replaced(class_scores, "_cancels", lambda *_: False),
        "not close",
    ),
    "a scale for each element of a sphere": (
        units_of_a_sphere,
        replaced(models.GaussianModel, "standardization_scale", "per_dimension"),
        "noise that is the same in all directions stays so",
    ),
    "zero times minus infinity": (
        lambda: categorical_laws.test_an_impossible_level_is_minus_infinity(2, torch.float64),
        replaced(categorical_model, "_by_products", products_with_infinities),
        "assert|not close",
    ),
    "a missing element that counts": (
        lambda: categorical_laws.test_scores_are_those_of_tables(7, (4,), True),
        replaced(
            categorical_model,
            "_by_look_up",
            lambda x, table: categorical_look_up(x.nan_to_num(), table),
        ),
        "not close",
    ),
}
categorical_look_up = categorical_model._by_look_up


@pytest.mark.parametrize("mutant", MUTANTS)
def test_exact_families(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message, error=(AssertionError, ValueError))
