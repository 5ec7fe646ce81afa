"""Mutants of the refusal of weights in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_genmodels import models, testing, transforms
from pyro_genmodels.nets.layers import FullPrecisionWeights
from tests.mutants.mutation import Mutation, assert_caught

pytestmark = pytest.mark.once


def no_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FullPrecisionWeights, "_apply", nn.Module._apply)


def afterwards(patch: pytest.MonkeyPatch) -> None:
    """Refuse when all weights are rounded already."""

    def apply(self: Any, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        result = nn.Module._apply(self, fn, recurse)
        if any(p.element_size() < 4 for p in self.parameters()):
            raise ValueError("`dtype` must be float32 or float64 for weights (")
        return result

    patch.setattr(FullPrecisionWeights, "_apply", apply)


def by_the_methods(patch: pytest.MonkeyPatch) -> None:
    """Refuse in the methods, which a module that holds this one does not call."""

    def refuse(self: Any) -> Any:
        raise ValueError("`dtype` must be float32 or float64 for weights (")

    no_refusal(patch)
    for name in ("half", "bfloat16"):
        patch.setattr(FullPrecisionWeights, name, refuse)


MUTANTS: dict[str, Mutation] = {
    "no refusal": no_refusal,
    "afterwards": afterwards,
    "by the methods": by_the_methods,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_half_precision(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = models.FlowModel((3,), transforms.affine_coupling(3, hidden=(4,)))

    def law() -> None:
        testing.check_half_precision(flow, lambda model: models.ELBOLoss(model)(torch.ones(2, 3)))

    error = (AssertionError, RuntimeError)
    assert_caught(law, MUTANTS[mutant], monkeypatch, ".", error=error)
