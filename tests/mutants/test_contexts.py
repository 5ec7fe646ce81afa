"""Mutants of the check that a context is finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, models, nets, testing, transforms
from pyro_genmodels.distributions.autoregressive import base as distributions_base
from pyro_genmodels.models.base import arguments
from pyro_genmodels.transforms.base import conditional
from tests.mutants.mutation import assert_caught

pytestmark = pytest.mark.once


def _call_a_model() -> Callable[[Tensor], Any]:
    model = models.VAE(
        (3,), latent_dim=2, network=models.VAENetwork(hidden=(4,)), context_shape=(2,)
    )
    return lambda context: model.model(torch.zeros(3, 3), context)


def _make_a_distribution() -> Callable[[Tensor], Any]:
    net = nets.MADENet((3,), 2, hidden=(4,), context_shape=(2,))
    return lambda context: distributions.MADE(net, context)


def _condition_a_transform() -> Callable[[Tensor], Any]:
    return transforms.conditional_affine_coupling(3, 2).condition


PARTS: dict[str, tuple[Any, Callable[[], Callable[[Tensor], Any]]]] = {
    "model": (arguments, _call_a_model),
    "distribution": (distributions_base, _make_a_distribution),
    "transform": (conditional, _condition_a_transform),
}


def _unless(fits: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    def check(context: Tensor) -> None:
        if not bool(fits(context).all()):
            raise ValueError("`context` must be finite; got 1 NaN or infinite elements.")

    return check


CHECKS: dict[str, Callable[[Tensor], None]] = {
    "none": lambda context: None,
    "of NaN alone": _unless(lambda context: ~context.isnan()),
    "of the first element": _unless(lambda context: context.flatten()[0].isfinite()),
    "from above": _unless(lambda context: context < torch.inf),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("part", PARTS)
def test_context_validation(part: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, make = PARTS[part]
    call = make()

    def law() -> None:
        testing.check_context_validation(call, torch.zeros(3, 2))

    def mutation(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, "check_finite_context", CHECKS[check])

    assert_caught(law, mutation, monkeypatch, "is an error: ")
