"""Mutants of what tells a batch's dimensions from an event's."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from pyro_genmodels import metrics, models, testing
from pyro_genmodels.metrics import bounds
from pyro_genmodels.models.vae.vae import VAE
from tests.mutants.mutation import Mutation, assert_caught
from tests.mutants.parts import binary, vae

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def one_dimension(patch: pytest.MonkeyPatch) -> None:
    """Take the first dimension for the batch."""
    patch.setattr(bounds, "_flattened", lambda model, x, context: (x.shape[:1], x, context))


def order_lost(patch: pytest.MonkeyPatch) -> None:
    original = bounds._flattened

    def flattened(model: Any, x: Tensor, context: Any) -> Any:
        batch, rows, contexts = original(model, x, context)
        return batch, rows.flip(0) if len(batch) > 1 else rows, contexts

    patch.setattr(bounds, "_flattened", flattened)


def last_dimension_alone(patch: pytest.MonkeyPatch) -> None:
    """Take the last dimension for the minibatch of free bits."""
    original = VAE._pay

    def pay(self: Any, cost: Any, posterior: Any, z: Tensor, context: Any, _: int) -> None:
        original(self, cost, posterior, z, context, min(1, len(posterior.batch_shape)))

    patch.setattr(VAE, "_pay", pay)


MUTANTS: dict[str, tuple[Mutation, Any]] = {
    "the first dimension": (one_dimension, (AssertionError, RuntimeError, ValueError)),
    "another order": (order_lost, AssertionError),
    "the last dimension": (last_dimension_alone, (AssertionError, RuntimeError)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_batch_shapes(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, error = MUTANTS[mutant]
    model = vae(free_bits=0.17).eval()
    loss = models.ELBOLoss(model)

    def law() -> None:
        given = {"x": binary(6)}
        testing.check_any_batch_shape(loss, given)
        testing.check_any_batch_shape(lambda x: metrics.elbo(model, x), given)

    assert_caught(law, mutation, monkeypatch, ".", error=error)
