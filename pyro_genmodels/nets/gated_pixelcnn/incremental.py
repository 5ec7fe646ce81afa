"""Gated layers, with or without attention between them, evaluated sub-pixel by sub-pixel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from pyro_genmodels._typing import Float
from pyro_genmodels.nets.autoregressive.image_net import RasterEvaluation, SoftmaxImageNet
from pyro_genmodels.nets.autoregressive.row_cache import OutputEvaluation, skip_products
from pyro_genmodels.nets.gated_pixelcnn.attention import CausalAttention
from pyro_genmodels.nets.gated_pixelcnn.attention_cache import AttentionEvaluation
from pyro_genmodels.nets.gated_pixelcnn.layer_cache import LayerEvaluation
from pyro_genmodels.nets.gated_pixelcnn.layers import GatedLayer
from pyro_genmodels.nets.gated_pixelcnn.output_layers import (
    ResidualOutput,
    ResidualOutputEvaluation,
)


class StackEvaluation(RasterEvaluation):
    """Evaluates a stack of gated layers sub-pixel by sub-pixel, each multiplication done once.

    Memory: for each gated layer a row of gates, and the rows that its kernel reaches; for each
    attention the keys and values of all pixels.

    Args:
        net: The network.
        layers: Its layers in order, a gated one first.
        stack: Its residual layers behind the skip connections.
        batch_size: Number of images.
        features: Features of the context; if there is attention, a map.
    """

    def __init__(
        self,
        net: SoftmaxImageNet,
        layers: Sequence[GatedLayer | CausalAttention],
        stack: Sequence[ResidualOutput],
        batch_size: int,
        features: Tensor | None,
    ) -> None:
        super().__init__(net)
        skip = layers[0].skip.weight
        gated = skip.new_zeros(batch_size, len(layers), layers[0].channels)
        self._layers: list[LayerEvaluation] = []
        self._attentions: list[AttentionEvaluation] = []
        self._parts: list[LayerEvaluation | AttentionEvaluation] = []
        for layer, y in zip(layers, gated.unbind(1), strict=True):
            if isinstance(layer, GatedLayer):
                self._layers.append(LayerEvaluation(layer, y, self._width, features))
                self._parts.append(self._layers[-1])
            else:
                pixels, maps = self._layers[0].row.pixels, cast(Tensor, features)
                self._attentions.append(AttentionEvaluation(layer, y, pixels, maps))
                self._parts.append(self._attentions[-1])
        for above, below in itertools.pairwise(self._layers):
            above.feed_above(below.vertical)
        for part, after in itertools.pairwise(self._parts):
            part.feed(after.targets)
        self.targets = self._layers[0].targets
        sums = skip.new_empty(batch_size, skip.shape[0])
        self._skips = skip_products([layer.skip for layer in layers], gated, sums, scale=0.5)
        self._stack: list[ResidualOutputEvaluation] = []
        for output in stack:
            self._stack.append(ResidualOutputEvaluation(output, sums))
            sums = self._stack[-1].result
        self._output = OutputEvaluation(net.outputs, sums)

    def start_row(self, row: int) -> None:
        """Make the vertical stack's share of a row."""
        first = self._layers[0]
        if row:
            first.vertical.make_room()
            first.vertical.newest.copy_(first.row.pixels)
        for part in self._parts:
            part.start_row()

    def step(self, column: int, channel: int) -> Float[Tensor, "batch parameters"]:
        """Return the logits of a sub-pixel."""
        for part in self._parts:
            part.step(column, channel)
        gated, weight, bias, target = self._skips[channel]
        # Of the last colour a view, of the others a copy.
        torch.addmm(bias, gated.flatten(1), weight, out=target)
        for layer in self._stack:
            layer.step(channel)
        return self._output.step(channel)

    def finish(self, column: int) -> None:
        """Have a pixel attended to from now on."""
        for attention in self._attentions:
            attention.finish(column)
