"""A learned law of the values that round down to given integers: the guide of a flow on levels."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pyro.distributions.conditional import ConditionalTransform

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.logistic import FiniteLogistic
from pyro_genmodels.nets.layers import DerivedBuffers
from pyro_genmodels.transforms import ConditionalFlow, ConditionalRealNVP, Dequantize
from pyro_genmodels.transforms.interop import FlowDensity, forget

_RULE = "be 'uniform', 'variational' or a conditional transform of events and contexts"


def make_dequantizer(
    choice: str | ConditionalTransform, event_shape: torch.Size, num_levels: int | None
) -> ConditionalTransform | None:
    """Return the conditional transform that is chosen; ``None`` for the uniform law.

    Raises:
        ValueError: If the choice is unknown, does not fit the events, or the data are continuous.
    """
    if isinstance(choice, str):
        check(choice in ("uniform", "variational"), "dequantization", _RULE, repr(choice))
    else:
        fits = isinstance(choice, ConditionalTransform)
        check(fits, "dequantization", _RULE, type(choice).__name__)
    if choice == "uniform":
        return None
    check(num_levels is not None, "dequantization", "be 'uniform' for continuous data", choice)
    if isinstance(choice, ConditionalTransform):
        _check_fits(choice, event_shape)
        return choice
    small = {"num_couplings": 4, "num_blocks": 1, "width": 64 if len(event_shape) == 1 else 32}
    return ConditionalRealNVP(event_shape, context_shape=event_shape, num_scales=1, **small)


def _check_fits(transform: ConditionalTransform, event_shape: torch.Size) -> None:
    if not isinstance(transform, ConditionalFlow):
        return  # others do not say what they take
    flow, expected = transform.flow, tuple(event_shape)
    found = expected if flow.event_shape is None else tuple(flow.event_shape)
    check(found == expected, "dequantization", f"have events of shape {expected}", found)
    rule = "take no labels, which it is not given"
    check(flow.num_classes is None, "dequantization", rule, flow.num_classes)
    taken = None if flow.context_shape is None else tuple(flow.context_shape)
    check(taken == expected, "dequantization", f"take contexts of shape {expected}", taken)


class VariationalDequantization(DerivedBuffers):
    r"""Makes the law of :math:`v = x + \sigma(f(\epsilon; x))`, :math:`\epsilon` logistic noise.

    The flow :math:`f` is given the data scaled to :math:`[-1, 1]`. With :math:`f` the identity
    the law is the uniform one, exactly: the paper's noise is normal, for which no :math:`f` that
    is affine in it gives weights :math:`p / q` that stay bounded at the ends of a cell.

    Args:
        transform: :math:`f`, a conditional transform whose events and contexts are data.
        event_shape: Sizes of a data point.
        num_levels: Number of the data's levels.

    References:
        Ho et al. (2019), Flow++, section 3.1. https://arxiv.org/abs/1902.00275
    """

    origin: Tensor

    def __init__(
        self, transform: ConditionalTransform, event_shape: torch.Size, num_levels: int
    ) -> None:
        super().__init__()
        self.transform = transform
        self.fill = ConditionalFlow(Dequantize(event_shape))
        self.highest = num_levels - 1
        self.register_derived("origin", partial(torch.zeros, ()))

    def forward(self, x: Float[Tensor, "*batch_event"]) -> FlowDensity:
        """Return the law given data; a draw and its density cost one evaluation of the flow."""
        forget([self.transform])
        event_shape = self.fill.event_shape or ()
        zero = self.origin.expand(event_shape)
        noise = FiniteLogistic(zero, zero + 1, validate_args=False).to_event(len(event_shape))
        scaled = 2 * x / self.highest - 1
        parts = [self.transform.condition(scaled), self.fill.condition(x)]
        return FlowDensity(noise, parts)

    def __getstate__(self) -> dict[str, Any]:
        forget([self.transform])
        return self.__dict__.copy()
