"""Residual networks of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.nets.denoisers.conditioning import ConditionedDenoiser
from pyro_genmodels.nets.denoisers.layers import ResidualBlock, group_norm
from pyro_genmodels.nets.layers.checkpointing import checkpointed
from pyro_genmodels.nets.layers.mlp import set_to_zero


class DenseDenoiser(ConditionedDenoiser):
    """Residual blocks of linear layers, for vectors: the blocks of :class:`UNet` without positions.

    Normalisation is over the features of one example. The output starts at zero.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        hidden: Widths of the residual blocks, each of two linear layers.
        scale_shift: Let level and context scale and shift the features, instead of shifting alone.
        dropout: Probability of dropping a unit before each block's second layer.
        checkpointing: Keep no activations inside the blocks; the backward pass computes them again.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)``.
        null_context: Learn an embedding that takes the context's place where there is none, for
            classifier-free guidance.

    Shape:
        ``(*batch, in_features)`` to ``(*batch, out_features)``.

    Raises:
        ValueError: If a width is not positive, or the context is impossible.

    Example:
        >>> import torch
        >>> DenseDenoiser(2, 2, hidden=(32, 32))(torch.zeros(5, 4, 2), torch.rand(4)).shape
        torch.Size([5, 4, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (256, 256, 256),
        scale_shift: bool = False,
        dropout: float = 0.0,
        checkpointing: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        null_context: bool = False,
    ) -> None:
        check_positive(in_features=in_features, out_features=out_features)
        check(len(hidden) > 0 and min(hidden) > 0, "hidden", "be positive sizes", hidden)
        features = hidden[0]
        super().__init__(
            [in_features],
            [out_features],
            sinusoids=max(features // 4, 32),
            features=features,
            channels=features,
            num_classes=num_classes,
            context_shape=context_shape,
            null_context=null_context,
            ranks=(1,),
        )
        self.checkpointing = checkpointing
        self.stem = nn.Linear(in_features, features)
        self.blocks = nn.ModuleList(
            ResidualBlock(0, before, after, features, dropout=dropout, scale_shift=scale_shift)
            for before, after in zip([features, *hidden], hidden, strict=False)
        )
        self.norm = group_norm(hidden[-1], 0)
        self.last = nn.Linear(hidden[-1], out_features)
        set_to_zero(self.last)

    def _evaluate(self, z: Tensor, embedding: Tensor, maps: Tensor | None) -> Tensor:
        h: Tensor = self.stem(z)
        for block in self.blocks:
            h = checkpointed(block, h, embedding) if self.checkpointing else block(h, embedding)
        return cast(Tensor, self.last(F.silu(self.norm(h))))
