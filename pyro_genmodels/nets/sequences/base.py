"""Networks over a sequence of symbols, and over any data taken as one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check_event_shape
from pyro_genmodels._typing import EventShape, Float, Int, Num
from pyro_genmodels.nets.autoregressive.base import AutoregressiveNet, IncrementalEvaluation


class SequenceNet(AutoregressiveNet):
    """An autoregressive network that takes its elements as symbols, one after another.

    A subclass writes :meth:`logits` over whole sequences and :meth:`start`, which makes the
    function that does one step. Images are read in raster order, the channels of a pixel in turn.

    Args:
        event_shape: ``(T,)``, or ``(C, H, W)``.
        num_levels: Number of symbols.
        context_features: Number of features that a context is brought to.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)``; or local ones, features for each step:
            sequences ``(C, L)``, for an image maps ``(C, H, W)``, averaged or repeated to fit.

    Raises:
        ValueError: If a size is impossible.
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        context_features: int = 1,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        event_shape = check_event_shape(event_shape)
        super().__init__(
            event_shape,
            num_levels,
            context_features=context_features,
            num_classes=num_classes,
            context_shape=context_shape,
            context_ranks=(1, 2) if len(event_shape) == 1 else (1, 3),
        )

    @property
    def length(self) -> int:
        """Number of symbols."""
        return self.event_shape.numel()

    @abstractmethod
    def logits(
        self, symbols: Int[Tensor, "batch length"], steps: Float[Tensor, "batch steps F"] | None
    ) -> Float[Tensor, "batch length K"]:
        """Return each step's logits given the symbols before it.

        Args:
            symbols: Whole sequences.
            steps: A context's features for each step, or one for all; ``None`` for no context.
        """

    @abstractmethod
    def start(self, batch_size: int) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Return a function that does one step after another.

        It takes the last symbols ``(batch,)``, and the step's features ``(batch, F)`` if any, and
        returns the next symbols' logits. First it is given ``num_levels``, the symbol that stands
        before the first.
        """

    def shifted(self, symbols: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
        """Return the symbol before each; ``num_levels`` before the first."""
        first = torch.full_like(symbols[:, :1], self.num_levels)
        return torch.cat([first, symbols[:, :-1]], 1)

    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return the logits ``(batch, *event_shape, K)``."""
        symbols, in_order = x.flatten(1).long(), len(self.event_shape) == 1
        if not in_order:
            symbols = symbols[:, self.order]
        logits: Tensor = self.logits(symbols, self._steps(features))
        if not in_order:
            logits = logits[:, self.order.argsort()]
        return logits.reshape(*x.shape, logits.shape[-1])

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that goes one step at a time."""
        return SequenceEvaluation(self, batch_size, self._steps(features))

    def _steps(self, features: Tensor | None) -> Tensor | None:
        """Bring features, whatever their context, to ``(batch, steps, F)``."""
        if features is None or features.dim() == 2:
            return None if features is None else features[:, None]
        channels = self.event_shape[0] if features.dim() == 4 else 1
        return features.flatten(2).mT.repeat_interleave(channels, 1)


class SequenceEvaluation(IncrementalEvaluation):
    """Steps through a :class:`SequenceNet`."""

    def __init__(self, net: SequenceNet, batch_size: int, steps: Tensor | None) -> None:
        self._step, self._steps, self._position = net.start(batch_size), steps, 0
        self._last = torch.full((batch_size,), net.num_levels, device=net.device)

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the next symbol's logits."""
        if self._steps is None:
            return self._step(self._last, None)
        here = self._position if self._steps.shape[1] > 1 else 0
        return self._step(self._last, self._steps[:, here])

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the next symbol."""
        self._last = level.long()
        self._position += 1


def context_layer(features: int | None, width: int) -> Any:
    """Return a linear map of a context's features without a bias; ``None`` for no context."""
    return None if features is None else torch.nn.Linear(features, width, bias=False)


def plus(x: Tensor, layer: Any, features: Tensor | None) -> Tensor:
    """Add what a context gives, if there is any."""
    return x if layer is None else x + layer(features)
