"""Residual blocks of the convolutional autoencoders."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers.context import ContextEmbedding


def padded(
    x: Float[Tensor, "*batch_event"], multiple: int, *, rank: int = 2
) -> Float[Tensor, "*batch_padded"]:
    """Repeat the last row and column until the ``rank`` sizes are multiples of ``multiple``."""
    missing = [-size % multiple for size in x.shape[-rank:]]
    if not any(missing):
        return x
    after = [pad for size in reversed(missing) for pad in (0, size)]
    return over_batch(lambda flat: F.pad(flat, after, mode="replicate"), (x, 1 + rank))


def residual_blocks(
    channels: int,
    residual_channels: int,
    num_blocks: int,
    *,
    kernel_size: int = 3,
    rank: int = 2,
) -> nn.Sequential:
    """Return blocks of ReLU, 3x3, ReLU, 1x1, added to their input, and a last ReLU."""
    check_positive(residual_channels=residual_channels)
    check(num_blocks >= 0, "num_blocks", "not be negative", num_blocks)
    sizes = (channels, residual_channels, kernel_size)
    blocks = (_ResidualBlock(*sizes, rank) for _ in range(num_blocks))
    return nn.Sequential(*blocks, nn.ReLU())


def shifted_by_context(h: Tensor, embedding: ContextEmbedding, context: Tensor | None) -> Tensor:
    """Add what an embedding makes of a context, place by place or everywhere alike."""
    shift: Tensor | None = embedding(context, size=h.shape[2:])
    if shift is None:
        return h
    return h + shift.reshape(*shift.shape, *[1] * (h.dim() - shift.dim()))


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, residual_channels: int, kernel_size: int, rank: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if rank == 2 else nn.Conv1d
        self.branch = nn.Sequential(
            nn.ReLU(),
            convolution(channels, residual_channels, kernel_size, padding=kernel_size // 2),
            nn.ReLU(),
            convolution(residual_channels, channels, 1),
        )

    def forward(self, h: Tensor) -> Tensor:
        branch: Tensor = self.branch(h)
        return h + branch
