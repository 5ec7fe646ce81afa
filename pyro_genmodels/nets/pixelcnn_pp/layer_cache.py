"""PixelCNN++'s layers evaluated along a raster scan, with one row of memory each.

The stream of rows above is computed a row at a time. Of the other stream, all that comes from the
first stream and from its own row above is a product for the whole row (``start_row``); what is
left for a pixel (``step``) is one product with the pixel to its left and itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_genmodels.nets.autoregressive.row_cache import row_biases
from pyro_genmodels.nets.pixelcnn_pp.layers import (
    GatedPair,
    GatedResidual,
    Resizing,
    ShiftedConv2d,
)


def _concat_elu(x: Tensor) -> Tensor:
    return F.elu_(torch.cat([x, -x], -1))


def _windows(rows: Tensor, size: int, stride: int) -> Tensor:
    """Return ``(batch, windows, size * channels)``, views of ``size`` neighbours."""
    batch, width, channels = rows.shape
    count = (width - size) // stride + 1
    strides = (rows.stride(0), stride * channels, 1)
    return rows.as_strided((batch, count, size * channels), strides, rows.storage_offset())


class RowConv:
    """A convolution of the rows above, a row of output for each row of input.

    Args:
        layer: The convolution; its weight is normed and laid out once, here.
        batch_size: Number of images.
        width: Width of its input.
    """

    def __init__(self, layer: ShiftedConv2d, batch_size: int, width: int) -> None:
        weight, (rows, columns) = layer.weight, layer.kernel
        self._columns, self._stride = columns, 2 if layer.step == "down" else 1
        self._weight = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
        self._bias, self._half = layer.bias, columns // 2
        size = (batch_size, width + columns - 1, weight.shape[1])
        self._rows = [weight.new_zeros(size) for _ in range(rows)]

    def feed(self, row: Tensor) -> None:
        """Take a row ``(batch, width, in)`` that is followed by another before any output."""
        self._rows = [*self._rows[1:], self._rows[0]]
        self._rows[-1][:, self._half : self._half + row.shape[1]] = row

    def __call__(self, row: Tensor) -> Tensor:
        """Return the output ``(batch, width, out)`` of the row given and those before."""
        self.feed(row)
        windows = [_windows(row, self._columns, self._stride) for row in self._rows]
        return torch.cat(windows, -1) @ self._weight + self._bias


class PixelConv:
    """A convolution that reaches up and left, by two columns or one.

    Args:
        layer: The convolution; its weight is normed and laid out once, here.
        batch_size: Number of images.
        width: Width of its input.
    """

    def __init__(self, layer: ShiftedConv2d, batch_size: int, width: int) -> None:
        weight, (_, columns) = layer.weight, layer.kernel
        out, self._size = weight.shape[:2]
        self._columns, self._stride = columns, 2 if layer.step == "down" else 1
        self._upper, self._lower = weight.permute(2, 3, 1, 0).reshape(2, -1, out).unbind(0)
        self._bias = layer.bias
        self._row = weight.new_zeros(batch_size, width + columns - 1, self._size)
        self._flat = self._row.view(batch_size, -1)

    def start_row(self, extra: Tensor | float = 0.0) -> None:
        """Move down a row; ``extra`` (batch, width or 1, out) is added to its outputs."""
        above = _windows(self._row, self._columns, self._stride)
        self._base = above @ self._upper + (self._bias + extra)

    def put(self, column: int, x: Tensor) -> None:
        """Take the input ``(batch, in)`` of a column."""
        self._row[:, column + self._columns - 1] = x

    def __call__(self, column: int) -> Tensor:
        """Return the output ``(batch, out)`` at a column of the output."""
        first = column * self._stride * self._size
        x = self._flat[:, first : first + self._columns * self._size]
        return torch.addmm(self._base[:, column], x, self._lower)


class GatedPairCache:
    """A gated block of each stream.

    Args:
        pair: The blocks.
        batch_size: Number of images.
        width: Width of this size.
        features: The context's features for this size.
    """

    def __init__(
        self, pair: GatedPair, batch_size: int, width: int, features: Tensor | None
    ) -> None:
        above, left = pair.up, pair.left
        self._rows = [RowConv(x, batch_size, width) for x in (above.first, above.second)]
        self._first, self._second = (
            PixelConv(x, batch_size, width) for x in (left.first, left.second)
        )
        self._to_rows, self._to_pixels = (_context_biases(x, features) for x in (above, left))
        self._row_shortcut = None if above.beside is None else matrix(above.beside)
        weight, self._bias = matrix(cast(ShiftedConv2d, left.beside))
        channels = left.first.direction.shape[0]
        # Rows for the other stream and, if there is one, the shortcut; then for their negatives.
        parts = weight.view(2, -1, channels, weight.shape[1])
        self._above = parts[:, 0].reshape(2 * channels, -1)
        self._shortcut = parts[:, 1:].reshape(-1, weight.shape[1])

    def start_row(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        """Return a row of the first block's output, and have the second move down to it."""
        first, second = self._rows
        y = first(_concat_elu(x))
        if self._row_shortcut is not None and shortcut is not None:
            weight, bias = self._row_shortcut
            y = y + (_concat_elu(shortcut) @ weight + bias)
        y = second(_concat_elu(y)) + next(self._to_rows).transpose(0, 1)
        value, gate = y.chunk(2, -1)
        row = x + value * gate.sigmoid()
        self._first.start_row(_concat_elu(row) @ self._above + self._bias)
        self._second.start_row(next(self._to_pixels).transpose(0, 1))
        return row

    def step(self, column: int, x: Tensor, shortcut: Tensor | None) -> Tensor:
        """Return the second block's output at the next column."""
        self._first.put(column, _concat_elu(x))
        y = self._first(column)
        if shortcut is not None:
            y = torch.addmm(y, _concat_elu(shortcut), self._shortcut)
        self._second.put(column, _concat_elu(y))
        value, gate = self._second(column).chunk(2, -1)
        return torch.addcmul(x, value, gate.sigmoid())


class Doubling:
    """The layer that doubles the size of both streams, which remembers a row to come."""

    def __init__(self, pair: Resizing, batch_size: int, width: int) -> None:
        self._row, weight, self._bias = pair.up, pair.left.weight, pair.left.bias
        self._weight = weight.permute(1, 2, 3, 0).reshape(weight.shape[1], -1)
        self._pixels = weight.new_empty(2, batch_size, width, 2, weight.shape[0])

    def row(self, x: Tensor) -> Tensor:
        """Return two rows ``(2, batch, 2 width, channels)`` from one."""
        y: Tensor = self._row(x.movedim(-1, 1)[:, :, None])
        return y.permute(2, 0, 3, 1)

    def put(self, column: int, x: Tensor) -> None:
        """Take the next pixel, of which four are made."""
        size = (len(x), 2, 2, len(self._bias))
        pixels = (x @ self._weight).view(size) + self._bias
        self._pixels[:, :, column] = pixels.transpose(0, 1)

    def pixel(self, row: int, column: int) -> Tensor:
        """Return a pixel of the row (0 or 1)."""
        return self._pixels[row, :, column // 2, column % 2]


def matrix(layer: ShiftedConv2d) -> tuple[Tensor, Tensor]:
    """Return the weight ``(in, out)`` and the bias of a 1x1 layer."""
    return layer.weight[:, :, 0, 0].t().contiguous(), layer.bias


def _context_biases(block: GatedResidual, features: Tensor | None) -> Iterator[Tensor]:
    """Yield what a context adds to a row: ``(columns, batch, channels)``, one column if alike."""
    weight = None if block.context is None else block.context.weight[:, :, 0, 0].t()
    return row_biases(torch.zeros_like(block.second.bias), weight, features)
