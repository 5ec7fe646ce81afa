"""Mutants of a coupling's log-determinant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from pyro_genmodels import models, testing, transforms
from tests.mutants.mutation import Mutation, assert_caught
from tests.mutants.parts import image_coupling, points

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def log_det_of(change: Callable[[Tensor, Tensor], Tensor], *methods: str) -> Mutation:
    """Replace the log-determinant ``d`` of maps of ``x`` by ``change(d, x)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for name in methods or ("forward_and_log_det", "inverse_and_log_det"):
            patch.setattr(transforms.AffineCoupling, name, changed(name))

    def changed(name: str) -> Callable[..., Any]:
        original = getattr(transforms.AffineCoupling, name)

        def method(self: Any, value: Tensor, context: Tensor | None = None) -> Any:
            result, log_det = original(self, value, context)
            return result, change(log_det, value)

        return method

    return mutate


LOG_DET_MUTANTS = {
    "dropped H*W": log_det_of(lambda d, x: d / x[0, 0].numel()),
    "zeroed": log_det_of(lambda d, x: 0 * d),
    "halved": log_det_of(lambda d, x: d / 2),
    "doubled": log_det_of(lambda d, x: 2 * d),
    "flipped sign": log_det_of(lambda d, x: -d),
    "flipped sign and dropped H*W": log_det_of(lambda d, x: -d / x[0, 0].numel()),
    "flipped sign of the inverse's only": log_det_of(lambda d, x: -d, "inverse_and_log_det"),
    "averaged over the batch": log_det_of(lambda d, x: d.mean(0).expand(d.shape)),
}


@pytest.mark.parametrize("mutant", LOG_DET_MUTANTS)
def test_log_det(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = testing.randomize_parameters(image_coupling()).eval()
    x = points(layer, 3, 2, 3, 4)
    mutation = LOG_DET_MUTANTS[mutant]
    assert_caught(lambda: testing.check_log_det(layer, x), mutation, monkeypatch, "slogdet")


@pytest.mark.parametrize("mutant", ["zeroed", "halved", "flipped sign"])
def test_log_det_shows_in_samples_and_evidence(
    mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a wrong log-determinant does to users: samples of another law, evidence off one."""
    flow = transforms.RealNVP(2, width=4, num_couplings=2, activation="tanh", logit_margin=0.0)
    model = testing.randomize_parameters(models.FlowModel((2,), flow, num_levels=3)).eval()

    def law() -> None:
        testing.check_evidence_normalized(model, num_particles=1000)

    assert_caught(law, LOG_DET_MUTANTS[mutant], monkeypatch, "evidence sums to one")


def test_randomizing_is_what_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its initial value, a coupling is the identity: nothing to catch."""
    flow = transforms.RealNVP(4, width=4)
    x = points(flow, 3, 4)
    LOG_DET_MUTANTS["zeroed"](monkeypatch)
    testing.check_log_det(flow, x)
    with pytest.raises(AssertionError):
        testing.check_log_det(testing.randomize_parameters(flow), x)
