r"""Gated layers evaluated along a raster scan: the vertical stack by rows, the other by pixels.

A gate is evaluated as :math:`2 \tanh(a) \sigma(b) = t + t \tanh(b / 2)`, :math:`t = \tanh(a)`: one
tanh over both halves and one product. The 1/2 of its argument is multiplied into the weights
before it, the 2 of its value out of the weights behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from pyro_genmodels.nets.autoregressive.row_cache import (
    PixelLayer,
    PixelRow,
    colour_weights,
    group_views,
    matrix,
    part_order,
    row_biases,
)
from pyro_genmodels.nets.gated_pixelcnn.layers import GatedLayer
from pyro_genmodels.nets.gated_pixelcnn.products import branches, gate_scale
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
        batch, horizontal = len(gated), layer.horizontal
        groups, (size, _, columns) = horizontal.num_groups, horizontal.weight.shape[1:]
        self._layer, self._gated = layer, gated
        self.vertical = VerticalCache(layer.vertical, batch, width)
        self.row = PixelRow(horizontal, batch, width, before=(columns - 1) * size)
        self._bounds = group_bounds(layer.channels, groups)
        scale, order = gate_scale(gated, 2 * layer.channels), part_order(self._bounds, 2)
        link = matrix(layer.link) * scale / scale[:, None]
        window = horizontal.masked_weight[:, :, 0].permute(2, 1, 0).flatten(0, 1) * scale
        self._link = link[:, order].contiguous()
        self._weights = colour_weights(window[:, order], self.row.stops, self._bounds, parts=2)
        self._biases = self._constants(scale, order, features)
        above = gated.new_empty(width, batch, len(scale))
        self._above, self._halves = above.flatten(0, 1), above.chunk(2, -1)
        self._gates = torch.empty_like(above)
        self._above_to: VerticalCache | None = None
        self._branches: list[list[tuple[Tensor, ...]]] | None = None
        self._wide: PixelLayer | None = None
        self.targets = self.row.targets
        self._steps = [[self._gate_step(j, c) for c in range(groups)] for j in range(width)]

    def feed_above(self, following: VerticalCache) -> None:
        """Have the vertical features written where the next gated layer reads them."""
        self._above_to = following

    def feed(self, beside: list[list[Tensor]]) -> None:
        """Have the horizontal features written where the next layer reads them."""
        conv, seen, scale = cast(MaskedRowConv2d, self._layer.residual), self._gated, 0.5
        if self._layer.wide is not None:
            wide = seen.new_empty(len(seen), conv.weight.shape[1])
            targets = group_views(wide, conv.num_groups)
            self._wide = PixelLayer(self._layer.wide, seen, targets, scale=0.5)
            seen, scale = wide, 1.0
        self._branches = branches(conv, seen, self.targets, beside, scale=scale)

    def start_row(self) -> None:
        """Make the vertical stack's share of a row."""
        biases = next(self._biases).expand(*self._gates.shape[:2], -1).flatten(0, 1)
        above, beside = biases.chunk(2, -1)
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
            self._wide.step(c).relu_()
        if self._branches is not None:
            past, seen, weight, target = self._branches[j][c]
            torch.addmm(past, seen, weight, out=target)

    def _constants(self, scale: Tensor, order: Tensor, features: Tensor | None) -> Iterator[Tensor]:
        """Yield biases and what a context adds, for a row's gates of both stacks."""
        layer, columns = self._layer, torch.cat([torch.arange(len(order)), len(order) + order])
        biases = [cast(Tensor, layer.vertical.bias), cast(Tensor, layer.horizontal.bias)]
        bias = (torch.cat(biases) * scale.repeat(2))[columns]
        if layer.context is None:
            return row_biases(bias, None, None)
        return row_biases(bias, (matrix(layer.context) * scale.repeat(2))[:, columns], features)

    def _gate_step(self, j: int, c: int) -> tuple[Tensor, ...]:
        start, stop = self._bounds[c : c + 2]
        gates = self._gates[j, :, 2 * start : 2 * stop]
        gated = self._gated[:, start:stop]
        return gates, self.row.windows[j][c], self._weights[c], *gates.chunk(2, 1), gated
