"""Noise on the real line, data in a bounded range."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to

from pyro_genmodels._checks import check
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform


class _OpenInterval(constraints.interval):
    """Values between two ends, neither of which is included: their logits are infinite."""

    def check(self, value: Tensor) -> Tensor:
        """Return where values lie between the ends."""
        return (self.lower_bound < value) & (value < self.upper_bound)


for _registry in (biject_to, transform_to):
    _registry.register(
        _OpenInterval, lambda c: biject_to(constraints.interval(c.lower_bound, c.upper_bound))
    )


class Logit(FlowTransform):
    r"""Brings data from the unit interval to the real line, away from the ends by a margin.

    .. math:: y = \frac{\sigma(x) - \alpha}{1 - 2 \alpha}, \qquad
              x = \operatorname{logit}(\alpha + (1 - 2 \alpha)\, y)

    The codomain is a little larger than the unit interval,
    :math:`(-\alpha / (1 - 2\alpha),\ (1 - \alpha) / (1 - 2\alpha))`. It is open, as the logit of
    an end is infinite: data that reach the ends of the unit interval need a margin.

    Args:
        event_dim: Rank of an event.
        margin: :math:`\alpha`, 0.05 in RealNVP's code.

    Raises:
        ValueError: If ``margin`` is not in [0, 0.5).

    References:
        Dinh et al. (2017), RealNVP, section 4.1. https://arxiv.org/abs/1605.08803 (the paper's
        :math:`\alpha + (1 - \alpha) x` is not what its code does, which is this).

    Example:
        >>> Logit(3).inv(torch.full((2, 1, 8, 8), 0.5)).abs().max() < 1e-6
        tensor(True)
    """

    def __init__(self, event_dim: int, *, margin: float = 0.05) -> None:
        check(0 <= margin < 0.5, "margin", "be in [0, 0.5)", margin)
        super().__init__(event_dim)
        self.margin = margin
        low, high = -margin / (1 - 2 * margin), (1 - margin) / (1 - 2 * margin)
        self._ends = low, high
        self.codomain = constraints.independent(_OpenInterval(low, high), event_dim)

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data and the log-determinant."""
        width = 1 - 2 * self.margin
        log_slope = -F.softplus(x) - F.softplus(-x) - math.log(width)
        y = (torch.sigmoid(x) - self.margin) / width
        return y.clamp(*self._innermost(y.dtype)), self._sum(log_slope)

    def _innermost(self, dtype: torch.dtype) -> tuple[float, float]:
        """Return the ends of what a dtype has in the interval: a sigmoid rounds to 0 and 1."""
        (low, high), number = self._ends, torch.finfo(dtype)
        return low * (1 - number.eps) or number.tiny, high * (1 - number.eps)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the logits and the log-determinant."""
        width = 1 - 2 * self.margin
        p = self.margin + width * y
        # From p, not from the result: a log-determinant must not keep its own output alive.
        log_p, log_q = torch.log(p), torch.log1p(-p)
        return log_p - log_q, self._sum(math.log(width) - log_p - log_q)
