"""Residual blocks, self-attention and changes of size, of vectors, sequences and maps."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check
from pyro_genmodels.nets.layers.mlp import make_dropout, set_to_zero

_MOST_EXPLICIT = 1024


def convolution(
    rank: int, in_channels: int, out_channels: int, size: int = 3, *, stride: int = 1
) -> nn.Module:
    """Return a convolution over ``rank`` dimensions that keeps the size; a linear layer over 0."""
    if rank == 0:
        return nn.Linear(in_channels, out_channels)
    kind = nn.Conv1d if rank == 1 else nn.Conv2d
    return kind(in_channels, out_channels, size, stride=stride, padding=size // 2)


def group_norm(channels: int, rank: int) -> nn.GroupNorm:
    """Return a group normalisation of at most 32 groups of at least 4 channels; a vector is one.

    A group of one channel would be zero on a map of one pixel, and lose a channel's mean on others.
    """
    most = min(32, channels // 4) if rank else 1
    groups = next(n for n in range(max(most, 1), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


class ResidualBlock(nn.Module):
    r"""Two convolutions, shifted by an embedding, added to their input; perhaps attention behind.

    Normalisation, SiLU and convolution, twice; the embedding, through a linear layer, is added
    between the two, or scales and shifts the second normalisation's result. The second convolution
    starts at zero, so that the block starts as its shortcut.

    Args:
        rank: 2 for maps, 1 for sequences, 0 for vectors and linear layers.
        in_channels: Channels of the input, those of a skip connection among them.
        out_channels: Channels of the output.
        features: Features of the embedding.
        dropout: Probability of dropping a unit before the second convolution.
        scale_shift: Let the embedding scale and shift.
        num_heads: Heads of self-attention behind the block; 0 for none.

    References:
        Dhariwal, Nichol (2021), Diffusion models beat GANs on image synthesis.
        https://arxiv.org/abs/2105.05233
    """

    def __init__(
        self,
        rank: int,
        in_channels: int,
        out_channels: int,
        features: int,
        *,
        dropout: float = 0.0,
        scale_shift: bool = False,
        num_heads: int = 0,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.first_norm = group_norm(in_channels, rank)
        self.first = convolution(rank, in_channels, out_channels)
        self.embedding = nn.Linear(features, out_channels * (1 + scale_shift))
        self.second_norm = group_norm(out_channels, rank)
        self.dropout = make_dropout(dropout)
        self.second = convolution(rank, out_channels, out_channels)
        set_to_zero(self.second)
        same = in_channels == out_channels
        self.shortcut = None if same else convolution(rank, in_channels, out_channels, 1)
        self.attention = SelfAttention(out_channels, num_heads) if num_heads else None

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return features ``(N, out_channels, *sizes)``.

        Args:
            x: Features ``(N, C, *sizes)``.
            embedding: ``(N, features)``, activated.
            skip: More channels of the input, from a skip connection.
        """
        if skip is not None:
            x = torch.cat([x, skip], 1)
        h = self.first(F.silu(self.first_norm(x)))
        shift = self.embedding(embedding)
        shift = shift.reshape(*shift.shape, *[1] * (x.dim() - 2))
        if self.scale_shift:
            scale, shift = shift.chunk(2, 1)
            h = self.second_norm(h) * (1 + scale) + shift
        else:
            h = self.second_norm(h + shift)
        h = self.second(self.dropout(F.silu(h)))
        h = h + (x if self.shortcut is None else self.shortcut(x))
        return h if self.attention is None else self.attention(h)


class SelfAttention(nn.Module):
    """Lets each position look at all of them, and adds to it what it finds; it starts as identity.

    Args:
        channels: Channels of the features.
        num_heads: Number of attention heads.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        divides = num_heads > 0 and channels % num_heads == 0
        rule = f"be positive and divide the {channels} channels where there is attention"
        check(divides, "num_heads", rule, num_heads)
        self.num_heads = num_heads
        self.norm = group_norm(channels, 2)
        self.queries_keys_values = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        set_to_zero(self.output)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(N, C, *sizes)`` of that shape."""
        positions = self.norm(x).flatten(2).mT
        parts = self.queries_keys_values(positions).unflatten(2, (3, self.num_heads, -1))
        found = attend(*parts.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)
        return x + cast(Tensor, self.output(found)).mT.reshape(x.shape)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the values' means by the softmax of the scaled products of queries and keys."""
    if queries.shape[-2] > _MOST_EXPLICIT:
        return F.scaled_dot_product_attention(queries, keys, values)
    # That one has no second derivatives, which losses of a score's derivatives need, and no forward
    # ones; up to so many positions, a map of 32x32, it is at most 7 % faster forth and back.
    products = (queries * queries.shape[-1] ** -0.5) @ keys.mT
    return products.softmax(-1) @ values


class Upsampling(nn.Module):
    """Repeats each position along all dimensions, and convolves.

    Args:
        rank: 2 for maps, 1 for sequences.
        channels: Channels of the features.
    """

    def __init__(self, rank: int, channels: int) -> None:
        super().__init__()
        self.conv = convolution(rank, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(N, C, *sizes)`` of twice the sizes."""
        return cast(Tensor, self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))
