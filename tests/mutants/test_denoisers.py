"""Mutants of denoisers: levels, contexts and examples that mix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import nets, testing
from pyro_genmodels.nets.denoisers.conditioning import ConditionedDenoiser, LevelEmbedding
from tests.cases import LABELS
from tests.cases.nets import unet
from tests.mutants.mutation import Mutation, assert_caught, method_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def of_all(value: Tensor, *_: Any) -> Tensor:
    """The mean over the batch, in place of each example's own."""
    rows = value.reshape(-1, value.shape[-1])
    return rows.mean(0).expand_as(value)


def keeping(change: Any) -> Mutation:
    """Change which contexts are kept."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = ConditionedDenoiser._context_features

        def method(self: Any, context: Any, keep: Any, sizes: Any) -> Any:
            return original(self, context, None if keep is None else change(keep), sizes)

        patch.setattr(ConditionedDenoiser, "_context_features", method)

    return mutate


def null_is_added(result: Any, self: Any, context: Any, keep: Any, sizes: Any) -> Any:
    """To the context, which still enters."""
    return result if keep is None else self.context(context) + (~keep)[..., None] * self.null


MUTANTS: dict[str, tuple[Mutation, bool, str]] = {
    "one level for all": (method_of(LevelEmbedding, "forward", of_all), True, "as if alone"),
    "centred over the batch": (
        method_of(nets.UNet, "_evaluate", lambda r, *_: r - r.mean(0)),
        True,
        "as if alone",
    ),
    "the others are kept": (keeping(torch.logical_not), True, "a context that is kept"),
    "one decision for all": (keeping(lambda keep: keep.any().expand_as(keep)), True, "null .* of"),
    "the null context is added": (
        method_of(ConditionedDenoiser, "_context_features", null_is_added),
        True,
        "the null context",
    ),
    "the context is unused": (
        method_of(ConditionedDenoiser, "_context_features", lambda r, *_: 0 * r),
        False,
        "the context changes",
    ),
    "dropout without a null context": (keeping(lambda keep: None), False, "`keep` is refused"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_denoiser(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, null_context, message = MUTANTS[mutant]
    torch.manual_seed(0)
    net = testing.randomize_parameters(unet(1, 1, num_classes=3, null_context=null_context).eval())
    z = torch.randn(1, 3, 4)
    assert_caught(lambda: testing.check_denoiser(net, z, LABELS), mutation, monkeypatch, message)
