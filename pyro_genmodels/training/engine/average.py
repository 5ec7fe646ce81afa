"""Averaged weights: what is validated, kept as best, and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    r"""Exponential moving average of a module's parameters.

    .. math:: \bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t)\,\theta_t,
        \qquad d_t = \min\left(d, \frac{1 + t}{10 + t}\right)

    The decay rises from 0.1, so that early averages forget the initial parameters. Buffers are
    not averaged. Without a decay the average is the parameters themselves.

    Args:
        module: Whose parameters to average.
        decay: The decay :math:`d`.
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self.module, self.decay, self.steps = module, decay, 0
        self.average = [p.detach().clone() for p in self._parameters()]

    def update(self) -> None:
        """Take the parameters of one more step into the average."""
        if self.decay is None:
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self.average, self._parameters(), None)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the module have the averaged weights for a while."""
        current = [p.detach().clone() for p in self._parameters()]
        self._copy(self.average)
        try:
            yield
        finally:
            self._copy(current)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the module's ``state_dict`` with averaged parameters."""
        averaged = dict(zip(self._names(), self.average, strict=True))
        return {**self.module.state_dict(), **averaged}

    def load_state_dict(self, state: dict[str, Any], steps: int) -> None:
        """Take up an average again after ``steps`` steps."""
        parameters = self._parameters()
        self.average = [
            state[name].to(p) if self.decay is not None else p
            for name, p in zip(self._names(), parameters, strict=True)
        ]
        self.steps = steps

    @torch.no_grad()
    def _copy(self, weights: list[Tensor]) -> None:
        # In place, not by swapping `.data`: whoever caches by tensor version must notice.
        for parameter, weight in zip(self._parameters(), weights, strict=True):
            parameter.copy_(weight)

    def _names(self) -> list[str]:
        return [] if self.decay is None else [n for n, _ in self.module.named_parameters()]

    def _parameters(self) -> list[Tensor]:
        return [] if self.decay is None else [p.detach() for p in self.module.parameters()]
