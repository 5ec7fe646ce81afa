"""Convolutions that see only the past of a raster scan, with colour channels in order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Bool, Float, Int
from pyro_genmodels.nets.layers.derived_buffers import DerivedBuffers
from pyro_genmodels.nets.layers.pointwise import pointwise_conv


def group_bounds(channels: int, num_groups: int) -> list[int]:
    """Return where each colour's group of features starts, and where the last one ends.

    Example:
        >>> group_bounds(8, 3)
        [0, 2, 5, 8]
    """
    return [channels * group // num_groups for group in range(num_groups + 1)]


def group_of(channels: int, num_groups: int) -> Int[Tensor, " channels"]:
    """Return the colour that each feature belongs to.

    Example:
        >>> group_of(6, 3)
        tensor([0, 0, 1, 1, 2, 2])
    """
    bounds = torch.tensor(group_bounds(channels, num_groups))
    # On the meta device the sum of the sizes, which torch would ask for, is not known.
    groups = torch.arange(num_groups)
    return torch.repeat_interleave(groups, bounds.diff(), output_size=channels)


def causal_mask(
    in_channels: int, out_channels: int, kernel_size: int, *, kind: str, num_groups: int = 1
) -> Bool[Tensor, "out in rows columns"]:
    """Return which taps of a kernel's upper half may be used.

    All of the rows above, all pixels to the left; at the centre, the features of earlier colours
    (kind "A"), or of earlier colours and the own one (kind "B").
    """
    half = kernel_size // 2
    mask = torch.ones(out_channels, in_channels, half + 1, kernel_size, dtype=torch.bool)
    mask[:, :, half, half:] = False
    own = group_of(out_channels, num_groups)[:, None]
    other = group_of(in_channels, num_groups)[None, :]
    mask[:, :, half, half] = other < own if kind == "A" else other <= own
    return mask


class _MaskedConv(DerivedBuffers):
    """A masked weight and a bias; what is convolved with them, a subclass says.

    The mask multiplies the weight at each evaluation, so a network is causal whatever an optimizer
    or a state dict writes into the weight.
    """

    mask: Tensor

    def __init__(self, make_mask: Callable[[], Tensor], *, bias: bool = True) -> None:
        super().__init__()
        self.register_derived("mask", make_mask)
        self.weight = nn.Parameter(torch.empty(self.mask.shape))
        self.bias = nn.Parameter(torch.empty(len(self.mask))) if bias else None
        self.reset_parameters()

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Draw the weight by :func:`draw_weight`, the bias from U(-b, b), b = 1/sqrt(inputs).

        What counts is what an output really sees: a third of the inputs for the first of three
        colours.
        """
        inputs = self.mask.sum((1, 2, 3)).clamp(min=1)
        draw_weight(self.weight, inputs[:, None, None, None], gain=gain)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.uniform_(-1, 1).mul_(inputs.to(self.bias.dtype).rsqrt())

    @property
    def masked_weight(self) -> Float[Tensor, "out in rows columns"]:
        """The weight with zeros where the mask forbids."""
        return self.weight * self.mask


class MaskedConv2d(Configured, _MaskedConv):
    r"""Convolution whose output at a sub-pixel depends on the sub-pixels before it only.

    Only the upper half of the kernel is stored, ``kernel_size // 2 + 1`` rows: the rows below the
    centre would be all masked.

    Args:
        in_channels: Channels of the input, in groups by colour.
        out_channels: Channels of the output, in groups by colour.
        kernel_size: Odd size of the whole kernel.
        kind: "A" hides a sub-pixel's own colour (the first layer), "B" shows it (all others).
        num_groups: Number of colours, generated in order; the channels are shared out evenly.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.

    Raises:
        ValueError: If the kernel size is even, or a colour would have no channel.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks, section 3.4.
        https://arxiv.org/abs/1601.06759

    Example:
        >>> MaskedConv2d(1, 8, 7, kind="A")(torch.zeros(2, 1, 5, 6)).shape
        torch.Size([2, 8, 5, 6])
    """

    bias: nn.Parameter

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        kind: str,
        num_groups: int = 1,
    ) -> None:
        check_positive(kernel_size=kernel_size, num_groups=num_groups)
        check(kernel_size % 2 == 1, "kernel_size", "be odd", kernel_size)
        check_choice("kind", kind, ("A", "B"))
        for name, size in (("in_channels", in_channels), ("out_channels", out_channels)):
            check(size >= num_groups, name, f"be at least num_groups = {num_groups}", size)
        sizes = (in_channels, out_channels, kernel_size)
        super().__init__(partial(causal_mask, *sizes, kind=kind, num_groups=num_groups))
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.kind, self.num_groups = kernel_size, kind, num_groups

    def reset_parameters(self, gain: float = 3**-0.5) -> None:
        """Draw weight and bias from U(-b, b), b = 1 / sqrt(number of unmasked inputs)."""
        super().reset_parameters(gain)

    def forward(
        self, x: Float[Tensor, "batch in height width"]
    ) -> Float[Tensor, "batch out height width"]:
        """Return the convolution."""
        half = self.kernel_size // 2
        if not half:
            return pointwise_conv(x, self.masked_weight, self.bias)
        # Padded below as well and cut: cheaper than a copy of the input, padded on three sides.
        return F.conv2d(x, self.masked_weight, self.bias, padding=half)[:, :, : x.shape[2]]

    def extra_repr(self) -> str:
        """Describe the layer in a printed network."""
        sizes = f"{self.in_channels}, {self.out_channels}, {self.kernel_size}"
        return f"{sizes}, kind={self.kind!r}, num_groups={self.num_groups}"


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


class MaskedRowConv2d(_MaskedConv):
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
        sizes = (in_channels, out_channels, columns, parts)
        super().__init__(partial(_row_mask, *sizes, kind=kind, num_groups=num_groups), bias=bias)
        self.kind, self.num_groups = kind, num_groups

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
