"""Mutants of evaluation that keeps no activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import testing, transforms
from pyro_genmodels.nets.layers import checkpointing
from pyro_genmodels.nets.layers.checkpointing import _FirstEvaluation
from tests.mutants.mutation import Mutation, assert_caught

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def entered_once(patch: pytest.MonkeyPatch) -> None:
    """A context manager made of a function: it cannot be entered for a second backward pass."""
    patch.setattr(checkpointing, "_EachTime", lambda make: make())


def statistics_moved_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpointing, "_put", lambda entries: None)


def mode_of_the_backward_pass(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpointing, "_set_modes", lambda modes: None)


def other_units_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_FirstEvaluation, "drops", False)


def averages_of_the_backward_pass(patch: pytest.MonkeyPatch) -> None:
    """The statistics are put back, but the repetition reads those of its own time."""
    original = _FirstEvaluation._restored

    def restored(self: Any) -> Any:
        self._buffers = [(of, name, of[name]) for of, name, _ in self._buffers]
        return original(self)

    patch.setattr(_FirstEvaluation, "_restored", restored)


def loss_of_density(flow: Any, x: Tensor) -> Tensor:
    z, log_det = flow.inverse_and_log_det(x)
    return z.square().sum() - log_det.sum()  # type: ignore[no-any-return]


def loss_of_both(flow: Any, x: Tensor) -> Tensor:
    """A sample is made by the running averages before a density moves them."""
    y, log_det = flow.forward_and_log_det(x)
    return y.square().sum() + log_det.sum() + loss_of_density(flow, x)  # type: ignore[no-any-return]


MUTANTS: dict[str, tuple[Mutation, Any, str]] = {
    "entered once": (entered_once, loss_of_density, "has no attribute"),
    "statistics moved twice": (statistics_moved_twice, loss_of_density, "buffer .*running_mean"),
    "mode of the backward pass": (mode_of_the_backward_pass, loss_of_density, "number of tensors"),
    "other units dropped": (other_units_dropped, loss_of_density, "one backward pass: gradient"),
    "averages of the backward pass": (
        averages_of_the_backward_pass,
        loss_of_both,
        "one backward pass: gradient",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_checkpointing(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, loss, message = MUTANTS[mutant]
    torch.manual_seed(0)
    flow = transforms.RealNVP(4, num_couplings=2, width=8, dropout=0.3, batch_norm=True)
    testing.randomize_parameters(flow)
    x = torch.randn(8, 4)
    errors = (AssertionError, AttributeError, RuntimeError)
    assert_caught(
        lambda: testing.check_checkpointing(flow, lambda f: loss(f, x)),
        mutation,
        monkeypatch,
        message,
        error=errors,
    )
