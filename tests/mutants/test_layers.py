"""Mutants of normalisations, linear maps, splines, scales and squeezes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import testing, transforms
from tests.mutants.mutation import Mutation, assert_caught, is_bijection, method_of
from tests.mutants.parts import factor_out, points

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def with_log_det(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """Change the second of a method's two results."""
    return lambda result, *_: (result[0], change(result[1]))


def both_ways(part: Any, change: Callable[[Tensor], Tensor]) -> Mutation:
    """Change the log-determinant of either direction."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for name in ("forward_and_log_det", "inverse_and_log_det"):
            method_of(part, name, with_log_det(change))(patch)

    return mutate


def transposed(result: Any, self: Any, context: Any) -> Any:
    """The inverse that a rotation would have."""
    weight, log_det = self._weight(context)
    return weight.mT, log_det


def spline(patch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]) -> None:
    from pyro_genmodels.transforms.couplings import spline as module

    original = module.rational_quadratic_spline

    def changed(*arguments: Any, **options: Any) -> Any:
        value, log_slope = original(*arguments, **options)
        return value, change(log_slope)

    patch.setattr(module, "rational_quadratic_spline", changed)


def act_norm() -> transforms.ActNorm:
    return transforms.ActNorm(2, initialized=True)


def linear(**options: Any) -> transforms.InvertibleLinear:
    torch.manual_seed(0)
    return transforms.InvertibleLinear(2, **options)


def batch_norm() -> transforms.BatchNorm:
    layer = transforms.BatchNorm(2, epsilon=0.1)
    layer.running_var.mul_(0.5)
    return layer


def spline_coupling() -> transforms.SplineCoupling:
    return transforms.spline_coupling((2, 3, 4), hidden=(4,), activation="tanh", num_bins=4)


def one_pixel_only(log_det: Tensor) -> Tensor:
    return log_det / 12


PART_MUTANTS: dict[str, tuple[Callable[[], Any], Mutation, str]] = {
    "ActNorm: dropped H*W": (act_norm, both_ways(transforms.ActNorm, one_pixel_only), "slogdet"),
    "ActNorm: flipped sign": (act_norm, both_ways(transforms.ActNorm, lambda d: -d), "slogdet"),
    "ActNorm: factor forgotten in the log-det": (
        act_norm,
        method_of(transforms.ActNorm, "_total", lambda r, self, *_: r / self.log_scale_factor),
        "slogdet",
    ),
    "1x1: dropped H*W": (
        linear,
        both_ways(transforms.InvertibleLinear, one_pixel_only),
        "slogdet",
    ),
    "1x1, plain: dropped H*W": (
        lambda: linear(lu=False),
        both_ways(transforms.InvertibleLinear, one_pixel_only),
        "slogdet",
    ),
    "1x1: flipped sign": (linear, both_ways(transforms.InvertibleLinear, torch.neg), "slogdet"),
    "1x1: transposed instead of inverse": (
        linear,
        method_of(transforms.InvertibleLinear, "_inverse_weight", transposed),
        "inverse|forward",
    ),
    "spline: halved log-det": (
        spline_coupling,
        lambda patch: spline(patch, lambda d: d / 2),
        "slogdet",
    ),
    "spline: flipped sign": (spline_coupling, lambda patch: spline(patch, torch.neg), "slogdet"),
    "BatchNorm: no epsilon in its log-det": (
        batch_norm,
        method_of(
            transforms.BatchNorm,
            "_over_event",
            lambda r, self, x, _: r.sign() * 0.5 * 12 * self.running_var.log().sum().abs(),
        ),
        "slogdet",
    ),
    "factored-out prior: log-det forgotten": (
        factor_out,
        both_ways(transforms.AffineCoupling, torch.zeros_like),
        "slogdet",
    ),
    "diagonal scale: flipped sign": (
        lambda: transforms.DiagonalScale((2, 3, 4)),
        both_ways(transforms.DiagonalScale, torch.neg),
        "slogdet",
    ),
}


@pytest.mark.parametrize("mutant", PART_MUTANTS)
def test_part(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, mutation, message = PART_MUTANTS[mutant]
    layer = testing.randomize_parameters(make()).eval()
    x = points(layer, 3, 2, 3, 4)

    assert_caught(lambda: is_bijection(layer, x), mutation, monkeypatch, message)


def test_act_norm_that_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = transforms.ActNorm(2).train()
    layer.initialize(points(layer, 9, 2, 3, 4))

    def law() -> None:
        before = [p.clone() for p in layer.parameters()]
        layer.inv(5 + points(layer, 9, 2, 3, 4) * 3)
        assert all(map(torch.equal, before, layer.parameters())), "initialises once"

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(type(layer.first_data), "is_due", property(lambda self: self.training))

    assert_caught(law, mutate, monkeypatch, "initialises once")


def test_squeeze_that_scrambles_on_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = transforms.Squeeze(alternating=True)
    x = points(layer, 2, 1, 4, 4)

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("pyro_genmodels.transforms.layers.squeeze._CORNERS_BACK", (0, 3, 1, 2))

    assert_caught(lambda: testing.check_inverse(layer, x), mutate, monkeypatch, "inverse")
