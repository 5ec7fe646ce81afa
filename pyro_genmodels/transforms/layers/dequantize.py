"""Noise on the real line, data anywhere in the cell above an integer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_genmodels._checks import check, check_event_shape
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform


class Dequantize(FlowTransform):
    r"""Fills the cell of each integer: the last part of a dequantisation flow.

    .. math:: v = x + \sigma(y)

    from noise :math:`y` to values :math:`v` that round down to the context :math:`x`. Behind
    logistic noise it is the uniform dequantisation; behind a flow given :math:`x` a learned one.

    In floating point :math:`x + \sigma(y)` can round up to :math:`x + 1`, and the observed floor
    would be another value: results are kept below the next integer. Nor is a result exactly zero,
    the end of the range, whose logit is infinite. The log-determinant is that of the unrounded
    value. Only the way back from a value that this transform did not just make has to read
    :math:`y` off the fractional part, of which float32 keeps 16 bits at level 255. A value outside
    of the cell has the log-determinant of an impossible one, minus infinity in a density.

    Args:
        event_shape: Sizes of an event, ``(D,)`` or ``(C, H, W)``; the context, integers in a
            floating dtype, has the same.

    Raises:
        ValueError: If the sizes are impossible, or the context is missing.

    References:
        Ho et al. (2019), Flow++, section 3.1. https://arxiv.org/abs/1902.00275

    Example:
        >>> from pyro_genmodels.transforms import ConditionalFlow
        >>> x = torch.tensor([0.0, 3.0, 255.0])
        >>> ConditionalFlow(Dequantize((3,))).condition(x)(torch.zeros(2, 3))
        tensor([[  0.5000,   3.5000, 255.5000],
                [  0.5000,   3.5000, 255.5000]])
    """

    maps_everything = False

    def __init__(self, event_shape: Sequence[int]) -> None:
        shape = check_event_shape(event_shape)
        super().__init__(len(shape), event_shape=shape)
        self.context_shape = shape

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return values in the cells above ``context``, and the log-determinant."""
        low = _integers(context, x)
        values = low + torch.sigmoid(x).clamp_min(_least(x.dtype))
        return torch.minimum(values, _below_next(low)), self._sum(-F.softplus(x) - F.softplus(-x))

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of ``y``, and a log-determinant of minus infinity out of the cell."""
        low = _integers(context, y)
        # A fraction of zero stands for those that round to it: their middle.
        spacing = torch.nextafter(low, low + 1) - low
        fraction = torch.maximum(y - low, (spacing / 4).clamp_min(_least(y.dtype)))
        fraction = torch.minimum(fraction, _below_next(low) - low)
        log_p, log_q = torch.log(fraction), torch.log1p(-fraction)
        inside = y.floor() == low
        return log_p - log_q, self._sum(torch.where(inside, -log_p - log_q, -torch.inf))


def _integers(context: Tensor | None, like: Tensor) -> Tensor:
    check(context is not None, "context", "be the integers to dequantise", None)
    assert context is not None  # narrows the type for the checker
    return context.detach().to(like.dtype)  # nextafter has no gradient, nor have integers


def _below_next(low: Tensor) -> Tensor:
    return torch.nextafter(low + 1, low)


def _least(dtype: torch.dtype) -> float:
    """Return a positive number that divided by any number of levels is still a normal one."""
    return float(torch.finfo(dtype).tiny) * 2**24
