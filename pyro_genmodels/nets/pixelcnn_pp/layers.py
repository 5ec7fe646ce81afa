"""PixelCNN++'s layers: weight-normed convolutions that reach up, or up and left; gated blocks."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels.nets.layers.data_dependent_init import (
    FirstData,
    is_frozen,
    set_values,
    standardizing,
)
from pyro_genmodels.nets.layers.mlp import make_dropout
from pyro_genmodels.nets.layers.pointwise import pointwise_conv
from pyro_genmodels.nets.layers.weight_norm import with_length

Streams: TypeAlias = tuple[Tensor, Tensor]


def concat_elu(x: Tensor) -> Tensor:
    """Return ELU of the features and of their negatives, twice as many channels."""
    return F.elu(torch.cat([x, -x], 1))


class ShiftedConv2d(nn.Module):
    """Weight-normed convolution of the rows up to the present one, of all columns or up to it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Rows and columns of the kernel; its last row lies on the output's row.
        left: Whether its last column lies on the output's column; otherwise its middle does.
        step: "same" keeps the size, "down" halves it, "up" doubles it.
        scale: Deviation that the first data in training give each output channel.

    References:
        Salimans and Kingma (2016), Weight Normalization, section 3. https://arxiv.org/abs/1602.07868
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        *,
        left: bool,
        step: Literal["same", "down", "up"] = "same",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.kernel, self.left, self.step, self.scale = kernel, left, step, scale
        # Rows are output channels, in transposed convolutions too.
        self.direction = nn.Parameter(0.05 * torch.randn(out_channels, in_channels, *kernel))
        self.length = nn.Parameter(torch.full((out_channels,), scale))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.first_data = FirstData()

    @property
    def weight(self) -> Tensor:
        """The kernels: directions brought to their lengths."""
        return with_length(self.direction, self.length)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution; the first data in training set its lengths and bias."""
        if self.first_data.is_due and not is_frozen(self):
            self._standardize(x)
        return self._convolve(x) + self.bias[:, None, None]

    def _convolve(self, x: Tensor) -> Tensor:
        rows, columns = self.kernel
        if self.step == "up":
            y = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            first = 0 if self.left else (columns - 1) // 2
            return y[:, :, : 2 * x.shape[2], first : first + 2 * x.shape[3]]
        before = columns - 1 if self.left else columns // 2
        if (rows, columns) == (1, 1):
            return pointwise_conv(x, self.weight)
        x = F.pad(x, (before, columns - 1 - before, rows - 1, 0))
        return F.conv2d(x, self.weight, stride=2 if self.step == "down" else 1)

    @torch.no_grad()
    def _standardize(self, x: Tensor) -> None:
        set_values(self.length, torch.ones_like(self.length))
        shift, log_scale = standardizing(self._convolve(x), 1)
        length = self.scale * log_scale.exp()
        # With a frozen length the result is only shifted, at the size that it has.
        factor = length if self.length.requires_grad else torch.ones_like(length)
        set_values(self.length, length)
        set_values(self.bias, shift * factor)
        self.first_data.done()


class GatedResidual(nn.Module):
    r"""Gated residual block: :math:`x + a \odot \sigma(b)`, with a and b from two convolutions.

    Args:
        channels: Channels of the block.
        kernel: Rows and columns of both kernels.
        left: Whether they reach left only.
        beside: Channels of features that join after the first convolution, by a 1x1 layer.
        dropout: Share of features dropped between the convolutions, in training mode.
        context: Channels of a context's features, if there is one.
    """

    def __init__(
        self,
        channels: int,
        kernel: tuple[int, int],
        *,
        left: bool,
        beside: int = 0,
        dropout: float = 0.0,
        context: int | None = None,
    ) -> None:
        super().__init__()
        self.first = ShiftedConv2d(2 * channels, channels, kernel, left=left)
        self.beside = pointwise(2 * beside, channels) if beside else None
        self.dropout = make_dropout(dropout)
        self.second = ShiftedConv2d(2 * channels, 2 * channels, kernel, left=left, scale=0.1)
        self.context = None if context is None else nn.Conv2d(context, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor, beside: Tensor | None, features: Tensor | None) -> Tensor:
        """Return the block's output."""
        y = self.first(concat_elu(x))
        if self.beside is not None and beside is not None:
            y = y + self.beside(concat_elu(beside))
        y = self.second(self.dropout(concat_elu(y)))
        if self.context is not None:
            y = y + self.context(features)
        value, gate = y.chunk(2, 1)
        return x + value * gate.sigmoid()


def pointwise(in_channels: int, out_channels: int) -> ShiftedConv2d:
    """Return a weight-normed 1x1 layer."""
    return ShiftedConv2d(in_channels, out_channels, (1, 1), left=True)


def kernel_of(left: bool) -> tuple[int, int]:
    """Return the kernel's size: 2x3 for the rows above, 2x2 for up and left."""
    return (2, 2) if left else (2, 3)


class Resizing(nn.Module):
    """Halves or doubles the size of both streams.

    Args:
        channels: Channels of a stream.
        step: "down" or "up".
    """

    def __init__(self, channels: int, step: Literal["down", "up"]) -> None:
        super().__init__()
        self.up, self.left = (
            ShiftedConv2d(channels, channels, kernel_of(left), left=left, step=step)
            for left in (False, True)
        )

    def forward(
        self, streams: Streams, shortcuts: Streams | None, features: Tensor | None
    ) -> Streams:
        """Return both streams; nothing else is read."""
        del shortcuts, features
        return self.up(streams[0]), self.left(streams[1])


class GatedPair(nn.Module):
    """A gated residual block in each stream; the second sees the first.

    The first stream, ``up``, sees the rows above; the second, ``left``, also pixels to the left.

    Args:
        channels: Channels of a stream.
        shortcut: Channels of the shortcut that each block takes; none if 0.
        dropout: As for :class:`GatedResidual`.
        context: As for :class:`GatedResidual`.
    """

    def __init__(
        self, channels: int, *, shortcut: int, dropout: float, context: int | None
    ) -> None:
        super().__init__()
        self.up, self.left = (
            GatedResidual(
                channels,
                kernel_of(left),
                left=left,
                beside=shortcut + (channels if left else 0),
                dropout=dropout,
                context=context,
            )
            for left in (False, True)
        )

    def forward(
        self, streams: Streams, shortcuts: Streams | None, features: Tensor | None
    ) -> Streams:
        """Return both streams."""
        above, beside = (None, None) if shortcuts is None else shortcuts
        up = cast(Tensor, self.up(streams[0], above, features))
        beside = up if beside is None else torch.cat([up, beside], 1)
        return up, cast(Tensor, self.left(streams[1], beside, features))
