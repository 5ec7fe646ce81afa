"""Gated layers, with or without attention between them, evaluated sub-pixel by sub-pixel."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets.autoregressive.base import IncrementalEvaluation
from pyro_genmodels.nets.autoregressive.levels import LevelInput
from pyro_genmodels.nets.autoregressive.row_cache import OutputEvaluation
from pyro_genmodels.nets.gated_pixelcnn.attention import CausalAttention
from pyro_genmodels.nets.gated_pixelcnn.attention_cache import AttentionEvaluation
from pyro_genmodels.nets.gated_pixelcnn.layer_cache import LayerEvaluation
from pyro_genmodels.nets.gated_pixelcnn.layers import GatedLayer
from pyro_genmodels.nets.gated_pixelcnn.output_layers import ResidualOutput, stack_evaluations
from pyro_genmodels.nets.gated_pixelcnn.products import skip_products
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d


class StackEvaluation(IncrementalEvaluation):
    """Evaluates a stack of gated layers sub-pixel by sub-pixel, each multiplication done once.

    Memory: for each gated layer a row of gates, and the rows that its kernel reaches; for each
    attention the keys and values of all pixels.

    Args:
        levels: How levels enter.
        parts: The layers in order, a gated one first.
        outputs: The 1x1 layers at the end.
        stack: Residual layers before these.
        width: Number of pixels in a row.
        batch_size: Number of images.
        features: Features of the context; if there is attention, a map.
    """

    def __init__(
        self,
        levels: LevelInput,
        parts: Iterable[nn.Module],
        outputs: Iterable[nn.Module],
        *,
        stack: Iterable[nn.Module] = (),
        width: int,
        batch_size: int,
        features: Tensor | None,
    ) -> None:
        self._levels, self._width = levels, width
        self._row = self._column = self._colour = 0
        layers = [cast("GatedLayer | CausalAttention", part) for part in parts]
        skip = layers[0].skip.weight
        gated = skip.new_zeros(batch_size, len(layers), layers[0].channels)
        self._layers: list[LayerEvaluation] = []
        self._attentions: list[AttentionEvaluation] = []
        self._parts = [
            self._evaluation(layer, y, features)
            for layer, y in zip(layers, gated.unbind(1), strict=True)
        ]
        self._connect()
        sums = skip.new_empty(batch_size, skip.shape[0])
        self._skips = skip_products([layer.skip for layer in layers], gated, sums)
        self._stack = stack_evaluations([cast(ResidualOutput, x) for x in stack], sums)
        last = self._stack[-1].result if self._stack else sums
        self._output = OutputEvaluation([cast(MaskedConv2d, x) for x in outputs], last)

    def _evaluation(
        self, layer: GatedLayer | CausalAttention, gated: Tensor, features: Tensor | None
    ) -> LayerEvaluation | AttentionEvaluation:
        if isinstance(layer, GatedLayer):
            self._layers.append(LayerEvaluation(layer, gated, self._width, features))
            return self._layers[-1]
        pixels = self._layers[0].row.pixels
        self._attentions.append(AttentionEvaluation(layer, gated, pixels, cast(Tensor, features)))
        return self._attentions[-1]

    def _connect(self) -> None:
        for layer, following in itertools.pairwise(self._layers):
            layer.feed_above(following.vertical)
        for part, after in itertools.pairwise(self._parts):
            part.feed(after.targets)

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the logits of the next sub-pixel."""
        j, c = self._column, self._colour
        if j == c == 0:
            self._start_row()
        for part in self._parts:
            part.step(j, c)
        bias, gated, weight, target = self._skips[c]
        # Of the last colour a view, of the others a copy.
        torch.addmm(bias, gated.flatten(1), weight, out=target)
        for layer in self._stack:
            layer.step(c)
        return self._output.step(c)

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the value of the sub-pixel."""
        self._levels.write(level, self._colour, self._layers[0].targets[self._column][self._colour])
        self._colour = (self._colour + 1) % self._levels.num_groups
        if self._colour == 0:
            for attention in self._attentions:
                attention.finish(self._column)
            self._column = (self._column + 1) % self._width

    def _start_row(self) -> None:
        first = self._layers[0]
        if self._row:
            first.vertical.make_room()
            first.vertical.newest.copy_(first.row.pixels)
        for part in self._parts:
            part.start_row(self._row)
        self._row += 1
