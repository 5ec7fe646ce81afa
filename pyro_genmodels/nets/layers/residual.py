"""Residual blocks of convolutional networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers.mlp import make_activation, make_dropout


def padded(
    x: Float[Tensor, "*batch_event"], multiple: int, *, rank: int = 2
) -> Float[Tensor, "*batch_padded"]:
    """Repeat the last row and column until the ``rank`` sizes are multiples of ``multiple``."""
    missing = [-size % multiple for size in x.shape[-rank:]]
    if not any(missing):
        return x
    after = [pad for size in reversed(missing) for pad in (0, size)]
    return over_batch(lambda flat: F.pad(flat, after, mode="replicate"), (x, 1 + rank))


class Residual(nn.Module):
    """Layers whose output is added to their input.

    Args:
        layers: The layers, one after the other.

    Example:
        >>> import torch
        >>> Residual(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))(torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the input plus what the layers make of it."""
        return x + self.branch(x)


def preactivation_block(
    channels: int, activation: str, dropout: float, *, kernel_size: int = 3
) -> Residual:
    """Return a block of two convolutions, each after an activation; dropout before the second."""
    return Residual(
        make_activation(activation),
        nn.Conv2d(channels, channels, kernel_size, padding="same"),
        make_activation(activation),
        make_dropout(dropout),
        nn.Conv2d(channels, channels, kernel_size, padding="same"),
    )


def strided_layers(
    convolution: type[nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d], widths: Sequence[int]
) -> nn.Sequential:
    """Return convolutions of width 4 and stride 2 from each width to the next, each with a ReLU."""
    layers = nn.Sequential()
    for inputs, outputs in itertools.pairwise(widths):
        layers.extend([convolution(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()])
    return layers


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
    convolution = nn.Conv2d if rank == 2 else nn.Conv1d
    blocks = (
        Residual(
            nn.ReLU(),
            convolution(channels, residual_channels, kernel_size, padding=kernel_size // 2),
            nn.ReLU(),
            convolution(residual_channels, channels, 1),
        )
        for _ in range(num_blocks)
    )
    return nn.Sequential(*blocks, nn.ReLU())
