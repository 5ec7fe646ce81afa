"""Causal attention evaluated along a raster scan, with memory for all keys and values."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_genmodels.nets.autoregressive.row_cache import (
    colour_weights,
    group_views,
    matrix,
    part_order,
    row_biases,
)
from pyro_genmodels.nets.gated_pixelcnn.attention import CausalAttention
from pyro_genmodels.nets.gated_pixelcnn.products import branches, gate_scale
from pyro_genmodels.nets.layers.masked_conv import MaskedRowConv2d, group_bounds


class AttentionEvaluation:
    """One attention of a batch of images.

    Args:
        layer: The layer; its weights are laid out once, here.
        gated: Where the gated features ``(batch, channels)`` of a pixel go.
        pixels: The levels' features of a row, ``(width, batch, features)``.
        features: Features of the context, ``(batch, F, H, W)``.
    """

    def __init__(
        self, layer: CausalAttention, gated: Tensor, pixels: Tensor, features: Tensor
    ) -> None:
        self._layer, self._gated, self._pixels = layer, gated, pixels
        self._own = torch.zeros_like(gated)  # the horizontal features of the pixel
        self.targets = [group_views(self._own, layer.num_groups)] * len(pixels)
        self._branches: list[list[tuple[Tensor, ...]]] | None = None
        self._lay_out_products(features)
        # The start token lies at place 0.
        places = (len(gated), layer.num_heads, 1 + features[0, 0].numel(), layer.head_size)
        self._keys, self._values = gated.new_zeros(2, *places).unbind()
        self._seen = 1

    def _lay_out_products(self, features: Tensor) -> None:
        layer, size = self._layer, self._layer.num_heads * self._layer.head_size
        outs = self._outs = group_bounds(layer.channels, layer.num_groups)
        sizes = self._sizes = list(range(0, (layer.num_groups + 1) * size, size))
        scale, order = gate_scale(self._gated, 2 * layer.channels), part_order(outs, 2)
        own, found = ((matrix(x) * scale)[:, order] for x in (layer.own, layer.attended))
        self._own_weights = colour_weights(own, outs[1:], outs, parts=2)
        self._found_weights = colour_weights(found, sizes[1:], outs, parts=2)
        self._query_weights = colour_weights(matrix(layer.query), outs[1:], sizes)
        self._found = self._gated.new_empty(len(self._gated), sizes[-1])
        bias, weight = cast(Tensor, layer.context.bias), matrix(layer.context)
        gates = sizes[-1] + order
        queries = row_biases(bias[: sizes[-1]], weight[:, : sizes[-1]], features)
        to_gates = bias[gates] * scale[order], weight[:, gates] * scale[order]
        split = [self._pixels.shape[2], layer.channels, features.shape[1]]
        *self._memory_weights, context = matrix(layer.memory).split(split)
        memory = row_biases(cast(Tensor, layer.memory.bias), context, features)
        self._rows = zip(queries, row_biases(*to_gates, features), memory, strict=False)

    def feed(self, beside: list[list[Tensor]]) -> None:
        """Have the features written where the next layer reads them."""
        conv = cast(MaskedRowConv2d, self._layer.residual)
        self._branches = branches(conv, self._gated, self.targets, beside)

    def start_row(self) -> None:
        """Make what the context adds in a row."""
        self._queries, self._gates, self._memory = next(self._rows)

    def step(self, j: int, c: int) -> None:
        """Make colour ``c``'s features of pixel ``j``."""
        start, stop = self._outs[c : c + 2]
        own = self._own[:, :stop]
        self._attend(j, c, own)
        gates = self._gates[j, :, 2 * start : 2 * stop]
        gates.addmm_(own, self._own_weights[c])
        gates.addmm_(self._found[:, : self._sizes[c + 1]], self._found_weights[c]).tanh_()
        tanh, sigmoid = gates.chunk(2, 1)
        torch.addcmul(tanh, tanh, sigmoid, out=self._gated[:, start:stop])
        if self._branches is not None:
            past, seen, weight, target = self._branches[j][c]
            torch.addmm(past, seen, weight, out=target)

    def _attend(self, j: int, c: int, own: Tensor) -> None:
        start, stop = self._sizes[c : c + 2]
        query = torch.addmm(self._queries[j, :, start:stop], own, self._query_weights[c])
        heads = query.unflatten(1, (self._layer.num_heads, 1, -1))
        seen = self._keys[:, :, : self._seen], self._values[:, :, : self._seen]
        self._found[:, start:stop] = F.scaled_dot_product_attention(heads, *seen).flatten(1)

    def finish(self, j: int) -> None:
        """Keep the key and the value of pixel ``j``, all colours of which are there."""
        from_pixels, from_own = self._memory_weights
        memory = self._memory[j].addmm_(self._pixels[j], from_pixels).addmm_(self._own, from_own)
        key, value = memory.unflatten(1, (2, self._layer.num_heads, -1)).unbind(1)
        self._keys[:, :, self._seen], self._values[:, :, self._seen] = key, value
        self._seen += 1
