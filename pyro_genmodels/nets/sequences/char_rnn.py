"""A recurrent network over symbols."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check_choice, check_positive
from pyro_genmodels._typing import EventShape, Float, Int
from pyro_genmodels.nets.layers.mlp import make_dropout
from pyro_genmodels.nets.sequences.base import SequenceNet, context_layer, plus

_CELLS: dict[str, type[nn.GRU | nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class RecurrentLayer(nn.Module):
    """One GRU or LSTM layer over whole sequences, or one step of it.

    The weights are torch's module's, named anew at each call: the module itself would go on with
    those that it was built with where others stand in for them (``torch.func.functional_call``).
    """

    def __init__(self, cell: str, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell, self.hidden = cell, hidden
        self.rnn = _CELLS[cell](inputs, hidden, batch_first=True)

    @property
    def _weights(self) -> list[Tensor]:
        return [cast(Tensor, getattr(self.rnn, name)) for name in _WEIGHTS]

    def start(self, x: Tensor, batch_size: int) -> tuple[Tensor, ...]:
        """Return the state before the first step: zeros."""
        zeros = x.new_zeros(batch_size, self.hidden)
        return (zeros,) if self.cell == "gru" else (zeros, zeros)

    def forward(self, x: Float[Tensor, "batch length inputs"]) -> Float[Tensor, "batch length h"]:
        """Return the outputs at all steps."""
        # torch has no rule for vmap over its fused layers.
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return self._step_by_step(x)
        state = [part[None] for part in self.start(x, len(x))]
        options = (True, 1, 0.0, False, False, True)  # one layer with bias, one way, batch first
        if self.cell == "gru":
            return torch.gru(x, state[0], self._weights, *options)[0]
        return torch.lstm(x, state, self._weights, *options)[0]

    def _step_by_step(self, x: Tensor) -> Tensor:
        outputs, state = [], self.start(x, len(x))
        for one in x.unbind(1):
            state = self.step(one, state)
            outputs.append(state[0])
        return torch.stack(outputs, 1)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the state after one more input; its first part is the output."""
        # Written out: torch has no rule for vmap over its cells either.
        of_input, of_state, input_bias, state_bias = self._weights
        inputs, before = F.linear(x, of_input, input_bias), state[0]
        recurrent = F.linear(before, of_state, state_bias)
        if self.cell == "lstm":
            i, f, g, o = (inputs + recurrent).chunk(4, -1)
            memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
            return o.sigmoid() * memory.tanh(), memory
        reset, update, new = inputs.chunk(3, -1)
        past_reset, past_update, past_new = recurrent.chunk(3, -1)
        new = (new + (reset + past_reset).sigmoid() * past_new).tanh()
        return (torch.lerp(new, before, (update + past_update).sigmoid()),)


class CharRNNNet(SequenceNet):
    r"""Recurrent layers over the symbols so far: each symbol sees all before it.

    .. math:: h_t = \mathrm{cell}(e(s_{t-1}), h_{t-1}), \qquad
        p(s_t \mid s_{<t}) = \mathrm{softmax}(W h_t + b)

    Sampling carries the state along, so its memory does not grow with the sequence.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of symbols.
        hidden_features: Width of the recurrent layers.
        num_layers: Number of recurrent layers.
        cell: ``"gru"`` or ``"lstm"``.
        embedding_features: Features of a symbol's embedding; ``hidden_features`` by default.
        dropout: Share of features dropped before each further layer, in training mode.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)``, or local: sequences ``(C, L)``, for an image
            maps ``(C, H, W)``. They are added to the embeddings.

    Shape:
        ``(*batch, *event_shape)`` to logits ``(*batch, *event_shape, num_levels)``.

    Raises:
        ValueError: If a size is impossible, or there is no such cell.

    References:
        Graves (2013), Generating sequences with recurrent neural networks.
        https://arxiv.org/abs/1308.0850
        Cho et al. (2014), Learning phrase representations using RNN encoder-decoder (GRU).
        https://arxiv.org/abs/1406.1078

    Example:
        >>> net = CharRNNNet((12,), 26, hidden_features=16)
        >>> net(torch.zeros(4, 12)).shape
        torch.Size([4, 12, 26])
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        hidden_features: int = 128,
        num_layers: int = 2,
        cell: str = "gru",
        embedding_features: int | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        inputs = hidden_features if embedding_features is None else embedding_features
        check_positive(hidden_features=hidden_features, num_layers=num_layers)
        check_positive(embedding_features=inputs)
        check_choice("cell", cell, _CELLS)
        super().__init__(
            event_shape,
            num_levels,
            context_features=inputs,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        widths = (inputs, *(hidden_features for _ in range(num_layers)))
        self.embedding = nn.Embedding(num_levels + 1, inputs)
        self.first_context = context_layer(self.context_channels, inputs)
        self.layers = nn.ModuleList(
            RecurrentLayer(cell, a, b) for a, b in itertools.pairwise(widths)
        )
        self.dropout = make_dropout(dropout)
        self.output = nn.Linear(hidden_features, num_levels)

    def logits(
        self, symbols: Int[Tensor, "batch length"], steps: Float[Tensor, "batch steps F"] | None
    ) -> Float[Tensor, "batch length K"]:
        """Return each step's logits given the symbols before it."""
        y = plus(self.embedding(self.shifted(symbols)), self.first_context, steps)
        for layer in self.layers:
            y = self.dropout(layer(y))
        return cast(Tensor, self.output(y))

    def start(self, batch_size: int) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Return a function that keeps the layers' states."""
        layers = [cast(RecurrentLayer, layer) for layer in self.layers]
        states = [layer.start(self.embedding.weight, batch_size) for layer in layers]

        def step(symbols: Tensor, features: Tensor | None) -> Tensor:
            y = plus(self.embedding(symbols), self.first_context, features)
            for index, layer in enumerate(layers):
                states[index] = layer.step(y, states[index])
                y = states[index][0]
            return cast(Tensor, self.output(y))

        return step
