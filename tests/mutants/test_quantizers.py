"""Mutants of quantisers and of what the guide adds of their losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_genmodels import nets
from tests.models import test_vqvae as vqvae_laws
from tests.mutants.mutation import Mutation, assert_caught, method_of
from tests.nets import test_quantizer as quantizer_laws

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def without_gradient(patch: pytest.MonkeyPatch) -> None:
    """Drop what passes straight through, of single and of composite quantisers."""
    for module in ("vector", "composite"):
        name = f"pyro_genmodels.nets.vector_quantization.{module}.straight_through"
        patch.setattr(name, lambda z, vectors: vectors.detach() + 0 * z)


def losses_of(change: Callable[[Tensor], Tensor]) -> Mutation:
    """Change what the guide adds of the quantisers' losses."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = pyro.factor

        def factor(name: str, total: Tensor, **options: Any) -> None:
            original(name, change(total) if name == "quantization" else total, **options)

        patch.setattr(pyro, "factor", factor)

    return mutate


def averages() -> None:
    quantizer_laws.test_averages_are_the_published_ones({})


def gradients(kind: str) -> Callable[[], None]:
    make = quantizer_laws.QUANTIZERS[kind]
    return lambda: quantizer_laws.test_the_gradient_passes_straight_through(make)


def objective() -> None:
    vqvae_laws.test_estimators_agree_with_the_objective_of_the_paper(
        vqvae_laws.vqvae, Trace_ELBO, False
    )


QUANTIZER_MUTANTS: dict[str, tuple[Callable[[], None], Mutation, str]] = {
    "averages not debiased": (
        averages,
        method_of(nets.VectorQuantizer, "_weight_of_batches", lambda r, _: torch.ones_like(r)),
        "not close",
    ),
    "averages debiased for a batch more": (
        averages,
        method_of(nets.VectorQuantizer, "_weight_of_batches", lambda r, q: 1 - q.decay * (1 - r)),
        "not close",
    ),
    "no gradient straight through": (gradients("ema"), without_gradient, "equal"),
    "no gradient straight through any part": (gradients("residual"), without_gradient, "equal"),
    "commitment with the other sign": (
        quantizer_laws.test_loss_and_its_gradients_are_those_of_the_paper,
        method_of(nets.VectorQuantizer, "forward", lambda r, *_: r._replace(loss=-r.loss)),
        "not close",
    ),
    "guide's losses with the other sign": (objective, losses_of(torch.neg), "comparison failed"),
    "guide's losses of one pixel": (objective, losses_of(lambda t: t / 30), "comparison failed"),
    "guide's losses left out": (objective, losses_of(torch.zeros_like), "comparison failed"),
}


@pytest.mark.parametrize("mutant", QUANTIZER_MUTANTS)
def test_quantizer(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = QUANTIZER_MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message)
