"""PixelCNN++ evaluated along a raster scan, through all its sizes."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._logistic_mixture import channel_laws
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets.autoregressive.base import IncrementalEvaluation
from pyro_genmodels.nets.pixelcnn_pp.layer_cache import (
    Doubling,
    GatedPixel,
    GatedRow,
    PixelConv,
    RowConv,
)
from pyro_genmodels.nets.pixelcnn_pp.layers import (
    GatedPair,
    GatedResidual,
    ShiftedConv2d,
    StreamPair,
)


class ScaleEvaluation:
    """One size of the network, and in it the smaller ones.

    Args:
        down: Layers of the way down, from this size on.
        up: Layers of the way up, to this size.
        batch_size: Number of images.
        width: Width of this size.
        by_height: The context's features for this size and the smaller ones, from large to small.
    """

    def __init__(
        self,
        down: Iterable[nn.Module],
        up: Iterable[nn.Module],
        batch_size: int,
        width: int,
        by_height: dict[int, Tensor | None],
    ) -> None:
        down, up, features = list(down), list(up), list(by_height.values())
        self._features, self._height = features[0], 0
        smaller = next((i for i, x in enumerate(down) if not isinstance(x, GatedPair)), None)
        self._inner: ScaleEvaluation | None = None
        self._row = 0
        if smaller is not None:
            larger = max(i for i, x in enumerate(up) if not isinstance(x, GatedPair))
            halving = cast(StreamPair, down[smaller])
            self._halving_row = RowConv(cast(ShiftedConv2d, halving.up), batch_size, width)
            self._halving = PixelConv(cast(ShiftedConv2d, halving.left), batch_size, width)
            self._doubling = Doubling(cast(StreamPair, up[larger]), batch_size, width // 2)
            rest = dict(list(by_height.items())[1:])
            inside = (down[smaller + 1 :], up[:larger])
            self._inner = ScaleEvaluation(*inside, batch_size, width // 2, rest)
            down, up = down[:smaller], up[larger + 1 :]
        self._down = [_Pair(cast(GatedPair, x), batch_size, width) for x in down]
        self._up = [_Pair(cast(GatedPair, x), batch_size, width) for x in up]

    def start_row(self, above: Tensor) -> Tensor:
        """Take the next row ``(batch, width, channels)`` of the first stream; return its end."""
        features, results = self._features_of_row(), [above]
        for pair in self._down:
            results.append(pair.start_row(results[-1], None, features))
        x = results.pop() if self._inner is None else self._row_from_inside(results[-1])
        for pair in self._up:
            x = pair.start_row(x, results.pop(), features)
        self._row += 1
        return x

    def step(self, column: int, x: Tensor) -> Tensor:
        """Take the next pixel ``(batch, channels)`` of the second stream; return its end."""
        results = [x]
        for pair in self._down:
            results.append(pair.pixel.step(column, results[-1], None))
        x = results.pop() if self._inner is None else self._pixel_from_inside(column, results[-1])
        for pair in self._up:
            x = pair.pixel.step(column, x, results.pop())
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

    def _features_of_row(self) -> Tensor | None:
        features = self._features
        if features is None or features.shape[-2] == 1:
            return features
        return features[:, :, self._row : self._row + 1]


class _Pair:
    """A gated block of each stream."""

    def __init__(self, pair: GatedPair, batch_size: int, width: int) -> None:
        self.row = GatedRow(cast(GatedResidual, pair.up), batch_size, width)
        self.pixel = GatedPixel(cast(GatedResidual, pair.left), batch_size, width)

    def start_row(self, x: Tensor, shortcut: Tensor | None, features: Tensor | None) -> Tensor:
        y = self.row(x, shortcut, features)
        self.pixel.start_row(y, features)
        return y


@dataclass(frozen=True)
class PixelCNNPlusPlusLayers:
    """The layers of a PixelCNN++ and the sizes that its evaluation reads.

    Attributes:
        first_above: Reads the rows above into the first stream.
        first_row: Reads the row above into the second stream.
        first_column: Reads the pixels to the left into the second stream.
        down: Layers of the way down.
        up: Layers of the way up.
        last: The 1x1 convolution that gives the parameters.
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        min_log_scale: Lower bound of the components' log-scales.
    """

    first_above: ShiftedConv2d
    first_row: ShiftedConv2d
    first_column: ShiftedConv2d
    down: nn.ModuleList
    up: nn.ModuleList
    last: ShiftedConv2d
    event_shape: torch.Size
    num_levels: int
    min_log_scale: float


class PixelCNNPlusPlusEvaluation(IncrementalEvaluation):
    """Evaluates a PixelCNN++ pixel by pixel, each multiplication done once.

    The stream of the rows above is made a row at a time, with all that the other stream takes of
    it and of its own row above; what is left for a pixel are the taps of its own row.

    Args:
        layers: The network's layers.
        batch_size: Number of images.
        by_height: The context's features for each size, from large to small.
    """

    def __init__(
        self,
        layers: PixelCNNPlusPlusLayers,
        batch_size: int,
        by_height: dict[int, Tensor | None],
    ) -> None:
        self._layers, (self._colours, _, self._width) = layers, layers.event_shape
        self._row = self._column = self._colour = 0
        self._laws: Generator[Tensor, Tensor, None]
        like = layers.first_row.direction
        self._above = RowConv(layers.first_above, batch_size, self._width)
        self._beside = RowConv(layers.first_row, batch_size, self._width)
        self._left = PixelConv(layers.first_column, batch_size, self._width)
        self._image_row = like.new_ones(batch_size, self._width, self._colours + 1)
        self._scales = ScaleEvaluation(layers.down, layers.up, batch_size, self._width, by_height)
        self._last = layers.last.weight[:, :, 0, 0].t().contiguous()
        self._pixel = like.new_empty(batch_size, self._colours)

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the next sub-pixel's parameters."""
        if self._colour > 0:
            return self._laws.send(self._pixel[:, self._colour - 1])
        if self._column == 0:
            self._start_row()
        self._laws = channel_laws(
            self._raw(self._column),
            self._colours,
            self._layers.num_levels,
            min_log_scale=self._layers.min_log_scale,
        )
        return next(self._laws)

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the next sub-pixel's value."""
        self._pixel[:, self._colour] = level
        self._colour += 1
        if self._colour == self._colours:
            scaled = self._pixel * (2 / (self._layers.num_levels - 1)) - 1
            self._image_row[:, self._column, :-1] = scaled
            self._left.put(self._column, self._image_row[:, self._column])
            self._colour, self._column = 0, self._column + 1
        if self._column == self._width:
            self._column, self._row = 0, self._row + 1

    def _start_row(self) -> None:
        if self._row == 0:
            size = (*self._image_row.shape[:2], len(self._layers.first_above.bias))
            above = self._from_above = self._image_row.new_zeros(size)
        else:
            above = self._above(self._image_row)
            self._from_above = self._beside(self._image_row)
        self._left.start_row()
        self._scales.start_row(above)

    def _raw(self, column: int) -> Tensor:
        x = self._from_above[:, column]
        if column > 0:
            x = x + self._left(column - 1)
        x = self._scales.step(column, x)
        return torch.addmm(self._layers.last.bias, F.elu(x), self._last)
