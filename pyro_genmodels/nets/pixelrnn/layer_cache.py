"""LSTM layers evaluated along a raster scan, with memory for one row each.

A pixel's gates are a sum over what is above, which is made for a whole row at once, and one
product with the pixel to the left and the pixel itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor

from pyro_genmodels.nets.autoregressive.row_cache import (
    colour_products,
    colour_weights,
    group_views,
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
        in_channels: Features of the input.
        features: Features of the context, as a map.
    """

    def __init__(
        self, layer: LSTMLayer, state: Tensor, in_channels: int, features: Tensor | None
    ) -> None:
        self._layer, self._state, self.width = layer, state, layer.width
        batch, self.channels = state.shape
        self._groups = layer.enter.num_groups
        self._bounds = group_bounds(self.channels, self._groups)
        columns = part_order(self._bounds, 4)
        beside, own = self.weights()
        self._before = len(beside)
        self._size = self.cell_size(in_channels)
        self.cells = state.new_zeros(batch, self.width * self._size + self._before)
        self.targets = [
            group_views(self.input_at(j, in_channels), self._groups) for j in range(self.width)
        ]
        stops = [self._before + x for x in group_bounds(in_channels, self._groups)[1:]]
        window = torch.cat([beside, own])[:, columns]
        self._products = colour_weights(window, stops, self._bounds, parts=4)
        self._above = layer.recur[0][:, columns]
        self._biases = gate_biases(layer, columns, features)
        self._gates = state.new_empty(self.width, batch, 4 * self.channels)
        self._stops = stops
        self.start()

    def input_at(self, j: int, in_channels: int) -> Tensor:
        """Return where pixel ``j``'s input lies."""
        start = j * self._size + self._before
        return self.cells[:, start : start + in_channels]

    @abstractmethod
    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights of what is read beside a pixel, and of its own input."""

    @abstractmethod
    def cell_size(self, in_channels: int) -> int:
        """Return how far apart the pixels' windows start."""

    @abstractmethod
    def start(self) -> None:
        """Make room for states and memory."""

    @abstractmethod
    def memory_at(self, j: int) -> Tensor:
        """Return the memory that pixel ``j`` finds and leaves."""

    @abstractmethod
    def state_at(self, j: int) -> Tensor:
        """Return where pixel ``j``'s state is kept."""

    @abstractmethod
    def read_above(self) -> None:
        """Add to the row's gates what they read of the row above."""

    def beside(self, j: int) -> Tensor | None:
        """Return what is added to pixel ``j``'s state behind the layer."""
        del j
        return None

    def feed(self, following: list[list[Tensor]]) -> None:
        """Have the output written where the next layer reads it."""
        self._steps = [
            [self._step(j, c, following[j][c]) for c in range(self._groups)]
            for j in range(self.width)
        ]
        up = self._layer.up
        self._up = None if up is None else colour_products(up, self._state)

    def _step(self, j: int, c: int, following: Tensor) -> SubPixel:
        start, stop = self._bounds[c : c + 2]
        first, beside = j * self._size, self.beside(j)
        gates = self._gates[j][:, 4 * start : 4 * stop]
        return SubPixel(
            window=self.cells[:, first : first + self._stops[c]],
            gates=gates,
            sigmoids=gates[:, : 3 * (stop - start)],
            parts=gates.split(stop - start, 1),
            memory=self.memory_at(j)[:, start:stop],
            kept=self.state_at(j)[:, start:stop],
            beside=None if beside is None else beside[:, start:stop],
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

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the input-to-state weights of both pixels."""
        left, own = self._layer.enter.masked_weight[:, :, 0].permute(2, 1, 0)
        return left, own

    def cell_size(self, in_channels: int) -> int:
        """Return the size of a pixel's input."""
        return in_channels

    def start(self) -> None:
        """Make a row of states, with a margin, and one of memory."""
        batch = len(self._state)
        self._states = self.cells.new_zeros(self.width + 2, batch, self.channels)
        self._memory = self.cells.new_zeros(self.width, batch, self.channels)

    def memory_at(self, j: int) -> Tensor:
        """Return the memory of the pixel above."""
        return self._memory[j]

    def state_at(self, j: int) -> Tensor:
        """Return the pixel's place in the row."""
        return self._states[j + 1]

    def read_above(self) -> None:
        """Add the state-to-state convolution of the row above."""
        gates = self._gates.flatten(0, 1)
        for tap, weight in enumerate(self._above.split(self.channels)):
            gates.addmm_(self._states[tap : tap + self.width].flatten(0, 1), weight)


class DiagonalLayerEvaluation(LayerEvaluation):
    """The left way of a Diagonal BiLSTM layer: a window holds the state beside and the input."""

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights of the state to the left, and of the input."""
        gates = 4 * self.channels
        return self._layer.recur[0, : self.channels], matrix(self._layer.enter)[:, :gates]

    def cell_size(self, in_channels: int) -> int:
        """Return the size of a state and an input."""
        return self.channels + in_channels

    def start(self) -> None:
        """Make room for one memory, and for the right way's states of the row above."""
        self._memory = torch.zeros_like(self._state)
        self.from_right = self.cells.new_zeros(self.width, *self._state.shape)

    def memory_at(self, j: int) -> Tensor:
        """Return the memory of the pixel to the left."""
        return self._memory

    def state_at(self, j: int) -> Tensor:
        """Return the next pixel's view of this one's state."""
        start = (j + 1) * self._size
        return self.cells[:, start : start + self.channels]

    def beside(self, j: int) -> Tensor:
        """Return the right way's state of the pixel above."""
        return self.from_right[j]

    def read_above(self) -> None:
        """Add what the left way reads of the row above, and forget its memory."""
        states = torch.stack([self.state_at(j) for j in range(self.width)])
        self._gates.flatten(0, 1).addmm_(states.flatten(0, 1), self._above[self.channels :])
        self._memory.zero_()


def gate_biases(
    layer: LSTMLayer, columns: Tensor | slice, features: Tensor | None
) -> Iterator[Tensor]:
    """Yield for each row the biases of some gates, and what a context adds to them."""
    weight = None if layer.context is None else layer.context.weight[columns].t()
    return row_biases(cast(Tensor, layer.enter.bias)[columns], weight, features)
