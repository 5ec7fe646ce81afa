"""Mutants of densities and maps at the ends of an interval."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch

from pyro_genmodels import models, testing, transforms
from pyro_genmodels.distributions import ClosedUniform
from pyro_genmodels.transforms.couplings import spline
from pyro_genmodels.transforms.layers.logit import _OpenInterval
from tests.mutants.mutation import Mutation, assert_caught, method_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def cube() -> transforms.NeuralSplineFlow:
    torch.manual_seed(0)
    flow = transforms.NeuralSplineFlow(2, splines="unit", num_couplings=2, width=4)
    return testing.randomize_parameters(flow).eval()


def half_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClosedUniform, "log_prob", dist.Uniform.log_prob)


def test_a_uniform_that_lacks_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.FlowModel((2,), cube(), base="uniform")
    message = "all elements at the upper end is its limit"
    assert_caught(lambda: testing.check_ends(model.density()), half_open, monkeypatch, message)


def test_a_closed_range_of_the_logit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.FlowModel((2,), transforms.Logit(1))

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(_OpenInterval, "check", torch.distributions.constraints.interval.check)

    assert_caught(
        lambda: testing.check_ends(model.density()),
        mutate,
        monkeypatch,
        "finite image",
        error=ValueError,  # of the transform, before the law sees a NaN
    )


def beyond_by_rounding(patch: pytest.MonkeyPatch) -> None:
    original = spline.rational_quadratic_spline

    def overshooting(*arguments: Any, **options: Any) -> Any:
        value, log_slope = original(*arguments, **options)
        return value * (1 + torch.finfo(value.dtype).eps), log_slope

    patch.setattr(spline, "rational_quadratic_spline", overshooting)


steep_ends = method_of(
    transforms.SplineCoupling,
    "_knots",
    lambda result, *_: (result[0], torch.cat([2 * result[1][..., :1], result[1][..., 1:]], -1)),
)

SPLINE_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "carried beyond an end by rounding": (beyond_by_rounding, "is in the range"),
    "another slope at an end than beyond it": (steep_ends, "log-det .* is its limit"),
}


@pytest.mark.parametrize("mutant", SPLINE_MUTANTS)
def test_spline(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, message = SPLINE_MUTANTS[mutant]
    flow, x = cube(), torch.rand(3, 2)
    assert_caught(lambda: testing.check_closed_ends(flow, x), mutation, monkeypatch, message)
