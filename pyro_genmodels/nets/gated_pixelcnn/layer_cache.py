r"""Gated layers evaluated along a raster scan: the vertical stack by rows, the other by pixels.

A gate is evaluated as :math:`2 \tanh(a) \sigma(b) = t + t \tanh(b / 2)`, :math:`t = \tanh(a)`: one
tanh over both halves and one product. The 1/2 of its argument is multiplied into the weights
before it, the 2 of its value out of the weights behind it.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from pyro_genmodels.nets.autoregressive.row_cache import (
    colour_products,
    colour_weights,
    group_views,
)
from pyro_genmodels.nets.gated_pixelcnn.layers import GatedLayer
from pyro_genmodels.nets.gated_pixelcnn.products import branches, gate_order, gate_scale
from pyro_genmodels.nets.layers.masked_conv import MaskedRowConv2d, VerticalConv2d, group_bounds


class VerticalCache:
    """A vertical convolution of one row after another, with memory for the rows it reaches.

    Rows of pixels hold ``(width, batch, channels)``: shifted by a column they are still one piece,
    so that each column of the kernel is one product, without a copy.

    Args:
        conv: The convolution.
        batch_size: Number of images.
        width: Number of pixels in a row.
    """

    def __init__(self, conv: VerticalConv2d, batch_size: int, width: int) -> None:
        rows, columns = conv.kernel_size
        # The input of a layer after the first is gated, and therefore doubled.
        weight = conv.weight if conv.shift else 0.5 * conv.weight
        weight = weight * gate_scale(weight, conv.out_channels)[:, None, None, None]
        self._taps = list(weight.permute(3, 2, 1, 0).flatten(1, 2).contiguous())
        self._cells = weight.new_zeros(width + columns - 1, batch_size, rows, conv.in_channels)
        self._columns = [
            self._cells[t : t + width].view(width * batch_size, -1) for t in range(columns)
        ]
        self.newest = self._cells[columns // 2 : columns // 2 + width, :, -1]

    def make_room(self) -> None:
        """Move the rows up, before :attr:`newest` is written."""
        if self._cells.shape[2] > 1:
            # Through a copy: the source and the target of the move overlap.
            self._cells[:, :, :-1] = self._cells[:, :, 1:].clone()

    def evaluate(self, constant: Tensor, out: Tensor) -> None:
        """Write ``constant`` plus the convolution of the kept rows, ``(width * batch, gates)``."""
        torch.addmm(constant, self._columns[0], self._taps[0], out=out)
        for column, tap in zip(self._columns[1:], self._taps[1:], strict=True):
            out.addmm_(column, tap)


class PixelRow:
    """The row of pixels that a horizontal convolution reads, and is written in turn.

    Args:
        conv: The convolution.
        batch_size: Number of images.
        width: Number of pixels in a row.
    """

    def __init__(self, conv: MaskedRowConv2d, batch_size: int, width: int) -> None:
        _, size, _, columns = conv.weight.shape
        left, groups = columns - 1, conv.num_groups
        # Each image's row lies in one piece, so that a window of pixels is a view of it.
        row = conv.weight.new_zeros(batch_size, (left + width) * size)
        self.pixels = row[:, left * size :].view(batch_size, width, size).transpose(0, 1)
        ins = group_bounds(size, groups)
        self.stops = [left * size + end for end in (ins[1:] if conv.kind == "B" else ins[:-1])]
        starts = [j * size for j in range(width)]
        self.windows = [[row[:, start : start + stop] for stop in self.stops] for start in starts]
        self.targets = [group_views(self.pixels[j], groups) for j in range(width)]


class LayerEvaluation:
    """One gated layer of a batch of images.

    Args:
        layer: The layer; its weights are laid out once, here.
        gated: Where the gated features ``(batch, channels)`` of a pixel go.
        width: Number of pixels in a row.
        features: Features of the context, ``(batch, F, H, W)`` or ``(batch, F, 1, 1)``.
    """

    def __init__(
        self, layer: GatedLayer, gated: Tensor, width: int, features: Tensor | None
    ) -> None:
        batch, groups = len(gated), layer.horizontal.num_groups
        self._layer, self._gated = layer, gated
        self.vertical = VerticalCache(layer.vertical, batch, width)
        self.row = PixelRow(layer.horizontal, batch, width)
        self._bounds = group_bounds(layer.channels, groups)
        scale, order = gate_scale(gated, 2 * layer.channels), gate_order(self._bounds)
        link = layer.link.weight[:, :, 0, 0].t() * scale / scale[:, None]
        window = layer.horizontal.masked_weight[:, :, 0].permute(2, 1, 0).flatten(0, 1) * scale
        self._link = link[:, order].contiguous()
        self._weights = colour_weights(window[:, order], self.row.stops, self._bounds, parts=2)
        self._constants = _Constants(layer, scale, order, width, features)
        above = gated.new_empty(width, batch, len(scale))
        self._above, self._halves = above.flatten(0, 1), above.chunk(2, -1)
        self._gates = torch.empty_like(above)
        self._above_to: VerticalCache | None = None
        self._branches: list[list[tuple[Tensor, ...]]] | None = None
        self._wide: list[tuple[Tensor, ...]] | None = None
        self.targets = self.row.targets
        self._steps = [[self._gate_step(j, c) for c in range(groups)] for j in range(width)]

    def feed_above(self, following: VerticalCache | None) -> None:
        """Have the vertical features written where the next gated layer reads them."""
        self._above_to = following

    def feed(self, beside: list[list[Tensor]]) -> None:
        """Have the horizontal features written where the next layer reads them."""
        conv, seen = cast(MaskedRowConv2d, self._layer.residual), self._gated
        if self._layer.wide is not None:
            products = colour_products(self._layer.wide, seen)
            seen = seen.new_empty(len(seen), conv.weight.shape[1])
            targets = group_views(seen, conv.num_groups)
            self._wide = [
                (x, weight, cast(Tensor, bias), target)
                for (x, weight, bias), target in zip(products, targets, strict=True)
            ]
        self._branches = branches(conv, seen, self.targets, beside, doubled=self._wide is None)

    def start_row(self, row: int) -> None:
        """Make the vertical stack's share of a row."""
        above, beside = self._constants.at(row)
        self.vertical.evaluate(above, self._above)
        torch.addmm(beside, self._above, self._link, out=self._gates.flatten(0, 1))
        if self._above_to is not None:
            self._above.tanh_()
            self._above_to.make_room()
            torch.addcmul(self._halves[0], *self._halves, out=self._above_to.newest)

    def step(self, j: int, c: int) -> None:
        """Make colour ``c``'s features of pixel ``j``."""
        gates, window, weight, tanh, sigmoid, gated = self._steps[j][c]
        gates.addmm_(window, weight).tanh_()
        torch.addcmul(tanh, tanh, sigmoid, out=gated)
        if self._wide is not None:
            seen, weight, bias, target = self._wide[c]
            torch.addmm(bias, seen, weight, out=target).relu_()
        if self._branches is not None:
            past, seen, weight, target = self._branches[j][c]
            torch.addmm(past, seen, weight, out=target)

    def _gate_step(self, j: int, c: int) -> tuple[Tensor, ...]:
        start, stop = self._bounds[c : c + 2]
        gates = self._gates[j, :, 2 * start : 2 * stop]
        gated = self._gated[:, start:stop]
        return gates, self.row.windows[j][c], self._weights[c], *gates.chunk(2, 1), gated


class _Constants:
    """Biases and what a context adds, for a row's gates of both stacks."""

    def __init__(
        self, layer: GatedLayer, scale: Tensor, order: Tensor, width: int, features: Tensor | None
    ) -> None:
        columns = torch.cat([torch.arange(len(order), device=order.device), len(order) + order])
        scale = scale.repeat(2)
        biases = [cast(Tensor, layer.vertical.bias), cast(Tensor, layer.horizontal.bias)]
        self._bias = (torch.cat(biases) * scale)[columns]
        self._rows: Tensor | None = None
        if layer.context is not None and features is not None:
            self._weight = (layer.context.weight[:, :, 0, 0].t() * scale)[:, columns]
            if math.prod(features.shape[2:]) == 1:  # the same everywhere
                everywhere = torch.addmm(self._bias, features.flatten(1), self._weight)
                self._bias = everywhere.repeat(width, 1)
            else:
                self._rows = features.permute(2, 3, 0, 1).flatten(1, 2)

    def at(self, row: int) -> tuple[Tensor, ...]:
        """Return those of the vertical and of the horizontal gates."""
        if self._rows is None:
            return self._bias.chunk(2, -1)
        return torch.addmm(self._bias, self._rows[row], self._weight).chunk(2, -1)
