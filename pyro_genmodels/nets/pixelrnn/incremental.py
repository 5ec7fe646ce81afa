"""PixelRNN evaluated sub-pixel by sub-pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pyro_genmodels._typing import Float
from pyro_genmodels.nets.autoregressive.image_net import RasterEvaluation, SoftmaxImageNet
from pyro_genmodels.nets.autoregressive.row_cache import (
    OutputEvaluation,
    RowCache,
    group_views,
    matrix,
    skip_products,
)
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d
from pyro_genmodels.nets.pixelrnn.layer_cache import (
    DiagonalLayerEvaluation,
    LayerEvaluation,
    RowLayerEvaluation,
    gate_biases,
)
from pyro_genmodels.nets.pixelrnn.layers import DiagonalLSTMLayer, LSTMLayer


class PixelRNNEvaluation(RasterEvaluation):
    """Evaluates a PixelRNN sub-pixel by sub-pixel, each multiplication done once.

    Args:
        net: The network.
        first: Its first convolution.
        layers: Its LSTM layers.
        batch_size: Number of images.
        features: Features of the context, as a map.
    """

    def __init__(
        self,
        net: SoftmaxImageNet,
        first: MaskedConv2d,
        layers: Sequence[LSTMLayer],
        batch_size: int,
        features: Tensor | None,
    ) -> None:
        super().__init__(net)
        self._first = RowCache(first, batch_size, self._width)
        self.targets = self._first.targets
        states = first.weight.new_empty(batch_size, len(layers), layers[0].channels)
        last = first.weight.new_empty(batch_size, first.out_channels)
        is_diagonal = isinstance(layers[0], DiagonalLSTMLayer)
        evaluation = DiagonalLayerEvaluation if is_diagonal else RowLayerEvaluation
        self._layers: list[LayerEvaluation] = [
            evaluation(layer, state, features)
            for layer, state in zip(layers, states.unbind(1), strict=True)
        ]
        self._right: RightWay | None = None
        if is_diagonal:
            self._right = RightWay(layers, self._layers, self._first.pixels, features)
        self._inputs = self._layers[0].targets
        rows = [layer.targets for layer in self._layers[1:]]
        ends = [group_views(last, net.levels.num_groups)] * self._width
        for layer, following in zip(self._layers, [*rows, ends], strict=True):
            layer.feed(following)
        skips = [layer.skip for layer in layers if layer.skip is not None]
        self._skips = skip_products(skips, states, last) if skips else []
        self._output = OutputEvaluation(net.outputs, last)

    def start_row(self, row: int) -> None:
        """Make what each layer reads of the row above."""
        self._first.start_row()
        if self._right is not None:
            self._right.start_row(row)
        for layer in self._layers:
            layer.start_row()

    def step(self, column: int, channel: int) -> Float[Tensor, "batch parameters"]:
        """Return the logits of a sub-pixel."""
        self._first.evaluate(column, channel, out=self._inputs[column][channel])
        for layer in self._layers:
            layer.step(column, channel)
        if self._skips:
            states, weight, _, into = self._skips[channel]
            into.addmm_(states.flatten(1), weight)
        return self._output.step(channel)


class RightWay:
    """The right ways of all layers, for the row above the one that is about to start.

    Args:
        layers: The layers.
        evaluations: Their left ways, whose inputs are read, and which are given the states.
        levels: Where the levels' features of a row lie, ``(width, batch, features)``.
        features: Features of the context.
    """

    def __init__(
        self,
        layers: Sequence[LSTMLayer],
        evaluations: Sequence[LayerEvaluation],
        levels: Tensor,
        features: Tensor | None,
    ) -> None:
        self._evaluations = evaluations
        self._channels, self._width = layers[0].channels, layers[0].width
        self._levels, self._see = levels, cast(nn.Linear, layers[0].levels)
        gates = 4 * self._channels
        self._enter = torch.stack([matrix(layer.enter)[:, gates:] for layer in layers])
        recur = torch.stack([layer.recur[1] for layer in layers])
        self._beside, self._above = recur.split(self._channels, 1)
        columns = slice(gates, 2 * gates)
        self._biases = [gate_biases(layer, columns, features) for layer in layers]
        batch = evaluations[0].cells.pixels.shape[1]
        self._states = recur.new_zeros(len(layers), self._width, batch, self._channels)
        for layer, states in zip(evaluations, self._states, strict=True):
            layer.from_right = states

    def start_row(self, row: int) -> None:
        """Make the states of the row above; of the first row there is none."""
        if row == 0:
            return
        inputs = torch.stack([layer.cells.pixels for layer in self._evaluations])
        gates = torch.stack([next(biases) for biases in self._biases])
        gates = gates.expand(*inputs.shape[:3], -1).flatten(1, 2)
        gates = torch.baddbmm(gates, inputs.flatten(1, 2), self._enter)
        gates = gates.baddbmm_(self._states.flatten(1, 2), self._above)
        gates[0] += self._see(self._levels).flatten(0, 1)
        self._run(gates.unflatten(1, (self._width, -1)))

    def _run(self, gates: Tensor) -> None:
        memory = torch.zeros_like(self._states[:, 0])
        for j in reversed(range(self._width)):
            gate = gates[:, j]
            if j + 1 < self._width:
                gate = torch.baddbmm(gate, self._states[:, j + 1], self._beside)
            gate[..., : 3 * self._channels].sigmoid_()
            o, f, i, g = gate.chunk(4, -1)
            memory.mul_(f).addcmul_(i, g.tanh_())
            torch.mul(o, memory.tanh(), out=self._states[:, j])
