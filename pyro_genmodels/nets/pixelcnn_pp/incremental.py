"""PixelCNN++ evaluated along a raster scan, through all its sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor, nn

from pyro_genmodels.nets.pixelcnn_pp.layer_cache import (
    Doubling,
    GatedPairCache,
    PixelConv,
    RowConv,
)
from pyro_genmodels.nets.pixelcnn_pp.layers import GatedPair, Resizing


class ScaleEvaluation:
    """One size of the network, and in it the smaller ones.

    Args:
        down: Layers of the way down, from this size on.
        up: Layers of the way up, to this size.
        batch_size: Number of images.
        width: Width of this size.
        features: The context's features for this size and the smaller ones, from large to small.
    """

    def __init__(
        self,
        down: Iterable[nn.Module],
        up: Iterable[nn.Module],
        batch_size: int,
        width: int,
        features: Sequence[Tensor | None],
    ) -> None:
        down, up = list(down), list(up)
        halving = [i for i, layer in enumerate(down) if isinstance(layer, Resizing)]
        doubling = [i for i, layer in enumerate(up) if isinstance(layer, Resizing)]
        self._inner: ScaleEvaluation | None = None
        self._row = 0
        if halving:
            first, last = halving[0], doubling[-1]
            smaller, larger = cast(Resizing, down[first]), cast(Resizing, up[last])
            self._halving_row = RowConv(smaller.up, batch_size, width)
            self._halving = PixelConv(smaller.left, batch_size, width)
            self._doubling = Doubling(larger, batch_size, width // 2)
            inside = (down[first + 1 :], up[:last])
            self._inner = ScaleEvaluation(*inside, batch_size, width // 2, features[1:])
            down, up = down[:first], up[last + 1 :]
        self._down, self._up = (
            [GatedPairCache(cast(GatedPair, x), batch_size, width, features[0]) for x in way]
            for way in (down, up)
        )

    def start_row(self, above: Tensor) -> Tensor:
        """Take the next row ``(batch, width, channels)`` of the first stream; return its end."""
        results = [above]
        for pair in self._down:
            results.append(pair.start_row(results[-1], None))
        x = results.pop() if self._inner is None else self._row_from_inside(results[-1])
        for pair in self._up:
            x = pair.start_row(x, results.pop())
        self._row += 1
        return x

    def step(self, column: int, x: Tensor) -> Tensor:
        """Take the next pixel ``(batch, channels)`` of the second stream; return its end."""
        results = [x]
        for pair in self._down:
            results.append(pair.step(column, results[-1], None))
        x = results.pop() if self._inner is None else self._pixel_from_inside(column, results[-1])
        for pair in self._up:
            x = pair.step(column, x, results.pop())
        return x

    def _row_from_inside(self, x: Tensor) -> Tensor:
        inner = cast(ScaleEvaluation, self._inner)
        if self._row % 2 == 0:
            self._halving.start_row()
            self._rows = self._doubling.row(inner.start_row(self._halving_row(x)))
        else:
            self._halving_row.feed(x)
        return self._rows[self._row % 2]

    def _pixel_from_inside(self, column: int, x: Tensor) -> Tensor:
        inner, odd = cast(ScaleEvaluation, self._inner), (self._row - 1) % 2
        self._halving.put(column, x)
        if odd == 0 and column % 2 == 0:
            y = inner.step(column // 2, self._halving(column // 2))
            self._doubling.put(column // 2, y)
        return self._doubling.pixel(odd, column)
