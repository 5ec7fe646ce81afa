"""The neural n-gram model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check_positive
from pyro_genmodels._typing import EventShape, Float, Int
from pyro_genmodels.nets.layers.mlp import make_activation, make_dropout
from pyro_genmodels.nets.sequences.base import SequenceNet, context_layer, plus


class NGramNet(SequenceNet):
    r"""A multi-layer perceptron over the embeddings of the last few symbols.

    .. math:: y = b + U \tanh(d + H x), \qquad x = (e(s_{t-n}), \dots, e(s_{t-1}))

    Each symbol sees the ``order`` symbols before it and no others. Before the first stands a
    symbol of its own, so the first ones know where they are; the others do not.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of symbols, the vocabulary.
        order: Number :math:`n` of symbols that are seen.
        embedding_features: Features of a symbol's embedding.
        hidden: Widths of the hidden layers.
        activation: Name of the activation; tanh in the paper.
        direct: Whether the embeddings also feed the logits directly (the paper's :math:`W x`).
        dropout: Share of hidden units dropped, in training mode; not in the paper.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)``, or local: sequences ``(C, L)``, for an image
            maps ``(C, H, W)``. They shift the first hidden layer.

    Shape:
        ``(*batch, *event_shape)`` to logits ``(*batch, *event_shape, num_levels)``.

    Raises:
        ValueError: If a size is impossible.

    References:
        Bengio et al. (2003), A neural probabilistic language model, eq. 1.
        https://www.jmlr.org/papers/v3/bengio03a.html

    Example:
        >>> net = NGramNet((12,), 26, order=3)
        >>> net(torch.zeros(4, 12)).shape
        torch.Size([4, 12, 26])
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        order: int = 5,
        embedding_features: int = 32,
        hidden: Sequence[int] = (128,),
        activation: str = "tanh",
        direct: bool = False,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check_positive(
            order=order, embedding_features=embedding_features, hidden=min(hidden, default=0)
        )
        super().__init__(
            event_shape,
            num_levels,
            context_features=hidden[0],
            num_classes=num_classes,
            context_shape=context_shape,
        )
        self.memory = order
        window = order * embedding_features
        widths = (window, *hidden, num_levels)
        self.embedding = nn.Embedding(num_levels + 1, embedding_features)
        self.first_context = context_layer(self.context_channels, hidden[0])
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.direct = nn.Linear(window, num_levels, bias=False) if direct else None
        self.activation, self.dropout = make_activation(activation), make_dropout(dropout)

    @property
    def receptive_field(self) -> int:
        """Number of symbols before it that a symbol sees."""
        return self.memory

    def logits(
        self, symbols: Int[Tensor, "batch length"], steps: Float[Tensor, "batch steps F"] | None
    ) -> Float[Tensor, "batch length K"]:
        """Return each step's logits given the symbols before it."""
        before = torch.full_like(symbols[:, :1], self.num_levels).expand(-1, self.memory)
        padded = self.embedding(torch.cat([before, symbols[:, :-1]], 1))
        # A copy, `order` times the embeddings; the windows' features stand after the oldest first.
        windows = padded.unfold(1, self.memory, 1).transpose(2, 3).flatten(2)
        return self._predicted(windows, steps)

    def start(self, batch_size: int) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Return a function that keeps the window."""
        first = self.embedding.weight[self.num_levels]
        window = first.repeat(batch_size, self.memory)

        def step(symbols: Tensor, features: Tensor | None) -> Tensor:
            nonlocal window
            window = torch.cat([window[:, len(first) :], self.embedding(symbols)], 1)
            return self._predicted(window, features)

        return step

    def _predicted(self, windows: Tensor, features: Tensor | None) -> Tensor:
        first, *rest = self.layers
        y = plus(first(windows), self.first_context, features)
        for layer in rest:
            y = layer(self.dropout(self.activation(y)))
        return y if self.direct is None else y + self.direct(windows)
