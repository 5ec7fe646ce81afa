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
        self.average = self._copies()

    def update(self) -> None:
        """Take the parameters of one more step into the average."""
        if self.decay is None:
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        parameters = [p.detach() for p in self.module.parameters()]
        get_ema_multi_avg_fn(decay)(list(self.average.values()), parameters, None)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the module have the averaged weights for a while."""
        current = self._copies()
        self._set(self.average)
        try:
            yield
        finally:
            self._set(current)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the module's ``state_dict`` with averaged parameters, under all their names."""
        state = dict(self.module.state_dict())
        if self.average:
            # A part that two others share has its parameters in the state under two names.
            of_parameter = {id(p): name for name, p in self.module.named_parameters()}
            for name, parameter in self.module.named_parameters(remove_duplicate=False):
                state[name] = self.average[of_parameter[id(parameter)]]
        return state

    def load_state_dict(self, state: dict[str, Any], steps: int) -> None:
        """Take up an average again after ``steps`` steps."""
        self.average = {name: state[name].to(p) for name, p in self._copies().items()}
        self.steps = steps

    def _copies(self) -> dict[str, Tensor]:
        """Return the parameters as they are; none where none are averaged."""
        parameters = {} if self.decay is None else dict(self.module.named_parameters())
        return {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        # In place, not by swapping `.data`: whoever caches by tensor version must notice.
        for name, parameter in self.module.named_parameters() if weights else ():
            parameter.copy_(weights[name])
