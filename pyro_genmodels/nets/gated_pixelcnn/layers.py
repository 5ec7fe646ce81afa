"""Gated layers of a vertical and a horizontal stack: together they see the whole past."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Bool, Float
from pyro_genmodels.nets.layers.derived_buffers import DerivedBuffers
from pyro_genmodels.nets.layers.masked_conv import causal_mask
from pyro_genmodels.nets.layers.pointwise import pointwise_conv


class VerticalConv2d(nn.Conv2d):
    """Convolution over the rows above a pixel, and its own if not ``shift``.

    Of a ``k x k`` kernel the ``k // 2`` rows above the centre, or with its own row one more. Only
    the first layer of a stack is shifted: behind it no row holds anything of itself.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd size of the whole kernel.
        shift: Whether the pixel's own row is left out.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, shift: bool
    ) -> None:
        check(kernel_size % 2 == 1, "kernel_size", "be odd", kernel_size)
        least = 3 if shift else 1
        check(kernel_size >= least, "kernel_size", f"be at least {least}", kernel_size)
        rows = kernel_size // 2 + (not shift)
        super().__init__(in_channels, out_channels, (rows, kernel_size))
        self.shift = shift
        draw_weight(self.weight, rows * kernel_size * in_channels, gain=1.0 if shift else 2.0)

    def forward(
        self, x: Float[Tensor, "batch in height width"]
    ) -> Float[Tensor, "batch out height width"]:
        """Return the convolution."""
        rows, columns = self.weight.shape[2:]
        if rows == columns == 1 and not self.shift:
            return pointwise_conv(x, self.weight, self.bias)
        # Padded below as well and cut: cheaper than a copy of the input, padded on three sides.
        y = F.conv2d(x, self.weight, self.bias, padding=(rows - 1 + self.shift, columns // 2))
        return y[:, :, : x.shape[2]]


class MaskedRowConv2d(DerivedBuffers):
    """Convolution over the pixels to the left, and of the own pixel the earlier colours.

    Args:
        in_channels: Channels of the input, in groups by colour.
        out_channels: Channels of each part of the output, in groups by colour.
        columns: Number of pixels seen, the own one included.
        kind: "A" hides a sub-pixel's own colour, "B" shows it.
        num_groups: Number of colours, generated in order.
        parts: How many outputs to make, one after another in the channels.
        bias: Whether to add one.
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        columns: int = 1,
        *,
        kind: str = "B",
        num_groups: int,
        parts: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kind, self.num_groups = kind, num_groups
        sizes = (in_channels, out_channels, columns, parts)
        self.register_derived("mask", partial(_row_mask, *sizes, kind=kind, num_groups=num_groups))
        self.weight = nn.Parameter(torch.empty(self.mask.shape))
        self.bias = nn.Parameter(torch.empty(parts * out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Draw the weight by :func:`draw_weight`, the bias from U(-b, b), b = 1/sqrt(inputs)."""
        inputs = self.mask.sum((1, 2, 3)).clamp(min=1)
        draw_weight(self.weight, inputs[:, None, None, None], gain=gain)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.uniform_(-1, 1).mul_(inputs.to(self.bias.dtype).rsqrt())

    @property
    def masked_weight(self) -> Float[Tensor, "out in 1 columns"]:
        """The weight with zeros where the mask forbids."""
        return self.weight * self.mask

    def forward(
        self, x: Float[Tensor, "batch in height width"]
    ) -> Float[Tensor, "batch out height width"]:
        """Return the convolution."""
        left = self.weight.shape[3] - 1
        if not left:
            return pointwise_conv(x, self.masked_weight, self.bias)
        return F.conv2d(x, self.masked_weight, self.bias, padding=(0, left))[..., : x.shape[3]]


def _row_mask(
    in_channels: int, out_channels: int, columns: int, parts: int, *, kind: str, num_groups: int
) -> Bool[Tensor, "out in 1 columns"]:
    mask = torch.ones(out_channels, in_channels, 1, columns, dtype=torch.bool)
    mask[..., -1:] = causal_mask(in_channels, out_channels, 1, kind=kind, num_groups=num_groups)
    return mask.repeat(parts, 1, 1, 1)


def draw_weight(weight: Tensor, inputs: Tensor | int, *, gain: float) -> None:
    """Draw a weight with standard deviation ``gain / sqrt(inputs)``, uniformly.

    A gate passes about half of a small input. With gain 2 around it features keep their size
    through the layers; torch's own rule, a gain of 0.58, loses a factor of three in each.
    """
    with torch.no_grad():
        scale = torch.as_tensor(inputs, dtype=weight.dtype, device=weight.device).rsqrt()
        weight.uniform_(-1, 1).mul_(gain * 3**0.5 * scale)


def gated(x: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch half ..."]:
    """Return ``tanh(a) * sigmoid(b)`` of the two halves of the channels.

    Example:
        >>> gated(torch.tensor([[100.0, 0.0]]))
        tensor([[0.5000]])
    """
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    r"""One layer of both stacks.

    .. math:: a = W_v * v + U c, \quad v' = g(a), \qquad y = g(W_h * h + L a + V c)

    with :math:`g` the gate; :math:`h' = h + R y`, and :math:`S y` is the skip connection. The
    vertical features need no groups: what is above is there with all its colours.

    Args:
        in_channels: Channels of both inputs.
        channels: Features of each stack.
        kernel_size: Odd size of the kernel that the two stacks share out.
        skip_channels: Features that go to the network's output.
        num_groups: Number of colours.
        kind: "A" for the first layer, which is shifted and has no residual connection.
        last: Leave out what only a further layer would read.
        dropout: Share of the horizontal gated features dropped, in training mode.
        context: Number of a context's features.
        residual_channels: Features of a rectified layer within the residual connection, which then
            has two; ``None`` for a linear one.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        *,
        skip_channels: int,
        num_groups: int,
        kind: str = "B",
        last: bool = False,
        dropout: float = 0.0,
        context: int | None = None,
        residual_channels: int | None = None,
    ) -> None:
        super().__init__()
        first, gates, groups = kind == "A", 2 * channels, num_groups
        self.channels, self.kind = channels, kind
        self.vertical = VerticalConv2d(in_channels, gates, kernel_size, shift=first)
        self.horizontal = MaskedRowConv2d(
            in_channels, channels, kernel_size // 2 + 1, kind=kind, num_groups=groups, parts=2
        )
        self.link = nn.Conv2d(gates, gates, 1, bias=False)
        self.horizontal.reset_parameters(gain=1.0 if first else 2.0)
        self.context = None if context is None else nn.Conv2d(context, 2 * gates, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        # The biases of the first layer serve for the sums over all layers.
        self.skip = MaskedRowConv2d(channels, skip_channels, num_groups=groups, bias=first)
        self.residual = self.wide = None
        if not last:
            inner = channels if residual_channels is None else residual_channels
            if residual_channels is not None:
                self.wide = MaskedRowConv2d(channels, inner, num_groups=groups)
                self.wide.reset_parameters(gain=2.0)
            self.residual = MaskedRowConv2d(inner, channels, num_groups=groups, bias=first)
            self.residual.reset_parameters(gain=2.0 if self.wide is None else 2**0.5)
        self.skip.reset_parameters(gain=2.0)

    def forward(
        self, v: Tensor, h: Tensor, features: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the vertical and the horizontal features, and the skip connection's."""
        above, beside = self.vertical(v), self.horizontal(h)
        if self.context is not None:
            to_above, to_beside = self.context(features).chunk(2, 1)
            above, beside = above + to_above, beside + to_beside
        y = self.dropout(gated(beside + pointwise_conv(above, self.link.weight)))
        skip = cast(Tensor, self.skip(y))
        if self.residual is None:
            return v, h, skip
        branch = self.residual(y if self.wide is None else self.wide(y).relu())
        return gated(above), branch if self.kind == "A" else h + branch, skip
