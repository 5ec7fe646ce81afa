"""LSTM layers evaluated along a raster scan, with memory for one row each.

A pixel's gates are a sum over what is above, which is made for a whole row at once, and one
product with the pixel to the left and the pixel itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from pyro_genmodels.nets.autoregressive.row_cache import (
    PixelRow,
    colour_products,
    colour_weights,
    matrix,
    part_order,
    row_biases,
)
from pyro_genmodels.nets.layers.masked_conv import group_bounds
from pyro_genmodels.nets.pixelrnn.layers import LSTMLayer


class SubPixel(NamedTuple):
    """Where one colour's features of a pixel are read and written, in one layer."""

    window: Tensor
    gates: Tensor
    sigmoids: Tensor
    parts: tuple[Tensor, ...]
    memory: Tensor
    kept: Tensor
    beside: Tensor | None
    state: Tensor
    target: Tensor
    following: Tensor


class LayerEvaluation(ABC):
    """One LSTM layer of a batch of images, its states from the left.

    A row of memory holds cells, each of what a pixel reads beside it and of its own input, so that
    what a gate sees is one window.

    Args:
        layer: The layer; its weights are laid out once, here.
        state: Where a pixel's state goes, ``(batch, channels)``.
        features: Features of the context, as a map.
        beside: Weight of what is read beside a pixel.
        own: Weight of its own input.
        cell_size: How far apart the pixels' windows start.

    Attributes:
        cells: What lies where in the row.
        targets: Where each pixel's input lies, colour by colour.
        memory: The memory that each pixel finds and leaves.
        states: Where each pixel's state is kept.
        from_right: What is added to each pixel's state behind the layer.
    """

    memory: Sequence[Tensor]
    states: Sequence[Tensor]
    from_right: Sequence[Tensor] | None = None

    def __init__(
        self,
        layer: LSTMLayer,
        state: Tensor,
        features: Tensor | None,
        beside: Tensor,
        own: Tensor,
        cell_size: int,
    ) -> None:
        self._layer, self._state, self.width = layer, state, layer.width
        batch, self.channels = state.shape
        self._bounds = group_bounds(self.channels, layer.enter.num_groups)
        self.cells = PixelRow(layer.enter, batch, self.width, before=len(beside), step=cell_size)
        self.targets = self.cells.targets
        columns = part_order(self._bounds, 4)
        window = torch.cat([beside, own])[:, columns]
        self._products = colour_weights(window, self.cells.stops, self._bounds, parts=4)
        self._above = layer.recur[0][:, columns]
        self._biases = gate_biases(layer, columns, features)
        self._gates = state.new_empty(self.width, batch, 4 * self.channels)

    @abstractmethod
    def read_above(self) -> None:
        """Add to the row's gates what they read of the row above."""

    def feed(self, following: list[list[Tensor]]) -> None:
        """Have the output written where the next layer reads it."""
        self._steps = [
            [self._step(j, c, target) for c, target in enumerate(targets)]
            for j, targets in enumerate(following)
        ]
        up = self._layer.up
        self._up = None if up is None else colour_products(up, self._state)

    def _step(self, j: int, c: int, following: Tensor) -> SubPixel:
        start, stop = self._bounds[c : c + 2]
        gates = self._gates[j][:, 4 * start : 4 * stop]
        return SubPixel(
            window=self.cells.windows[j][c],
            gates=gates,
            sigmoids=gates[:, : 3 * (stop - start)],
            parts=gates.split(stop - start, 1),
            memory=self.memory[j][:, start:stop],
            kept=self.states[j][:, start:stop],
            beside=None if self.from_right is None else self.from_right[j][:, start:stop],
            state=self._state[:, start:stop],
            target=self.targets[j][c],
            following=following,
        )

    def start_row(self) -> None:
        """Make what a row's gates see of the row above."""
        self._gates.copy_(next(self._biases))
        self.read_above()

    def step(self, j: int, c: int) -> None:
        """Make colour ``c``'s features of pixel ``j``."""
        at = self._steps[j][c]
        o, f, i, g = at.parts
        at.gates.addmm_(at.window, self._products[c])
        at.sigmoids.sigmoid_()
        at.memory.mul_(f).addcmul_(i, g.tanh_())
        torch.mul(o, torch.tanh(at.memory, out=g), out=at.kept)
        if at.beside is None:
            at.state.copy_(at.kept)
        else:
            torch.add(at.kept, at.beside, out=at.state)
        if self._up is None:
            at.following.copy_(at.state)
        else:
            seen, weight, _ = self._up[c]
            torch.addmm(at.target, seen, weight, out=at.following)


class RowLayerEvaluation(LayerEvaluation):
    """A Row LSTM layer: a pixel's window holds the input to its left and its own."""

    def __init__(self, layer: LSTMLayer, state: Tensor, features: Tensor | None) -> None:
        left, own = layer.enter.masked_weight[:, :, 0].permute(2, 1, 0)
        super().__init__(layer, state, features, left, own, cell_size=len(own))
        self.memory = list(state.new_zeros(self.width, *state.shape))
        # With a margin on both sides.
        self._row = state.new_zeros(self.width + 2, *state.shape)
        self.states = list(self._row[1:-1])

    def read_above(self) -> None:
        """Add the state-to-state convolution of the row above."""
        gates = self._gates.flatten(0, 1)
        for tap, weight in enumerate(self._above.split(self.channels)):
            gates.addmm_(self._row[tap : tap + self.width].flatten(0, 1), weight)


class DiagonalLayerEvaluation(LayerEvaluation):
    """The left way of a Diagonal BiLSTM layer: a window holds the state beside and the input."""

    def __init__(self, layer: LSTMLayer, state: Tensor, features: Tensor | None) -> None:
        channels = layer.channels
        own, size = matrix(layer.enter)[:, : 4 * channels], channels + layer.enter.weight.shape[1]
        super().__init__(layer, state, features, layer.recur[0, :channels], own, cell_size=size)
        # The memory of the pixel to the left; a state is kept where the next pixel reads it.
        self._memory = torch.zeros_like(state)
        self.memory = [self._memory] * self.width
        starts = [(j + 1) * size for j in range(self.width)]
        self.states = [self.cells.row[:, start : start + channels] for start in starts]

    def read_above(self) -> None:
        """Add what the left way reads of the row above, and forget its memory."""
        states = torch.cat(list(self.states))
        self._gates.flatten(0, 1).addmm_(states, self._above[self.channels :])
        self._memory.zero_()


def gate_biases(
    layer: LSTMLayer, columns: Tensor | slice, features: Tensor | None
) -> Iterator[Tensor]:
    """Yield for each row the biases of some gates, and what a context adds to them."""
    weight = None if layer.context is None else layer.context.weight[columns].t()
    return row_biases(cast(Tensor, layer.enter.bias)[columns], weight, features)
