"""Flows that wait for their context, and what they become when they have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions.conditional import ConditionalTransformModule
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn
from torch.distributions import Transform

from pyro_genmodels._checks import check
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Num
from pyro_genmodels.nets.layers import check_context, check_finite_context
from pyro_genmodels.transforms.base.flow_transform import FlowTransform, as_flow
from pyro_genmodels.transforms.base.torch_protocol import HandOver

CONTEXT = ("num_classes", "context_shape")
"""Arguments of a flow that say what context it takes."""

# At run time a module that is registered below, since the metaclass of Pyro's class conflicts with
# that of `PyroModule`; type checkers cannot see a registration.
_Base: Any = ConditionalTransformModule if TYPE_CHECKING else nn.Module


class ConditionedFlow(HandOver):
    """A flow at one context: a light view sharing the flow's parameters, not a module.

    Args:
        flow: Flow that takes a context.
        context: Labels, vectors or maps; the batch shape becomes that of the distribution.
    """

    def __init__(self, flow: FlowTransform, context: Tensor) -> None:
        super().__init__()
        self._shared = flow, context
        self.domain, self.codomain = flow.domain, flow.codomain

    @property
    def _flow(self) -> FlowTransform:
        return self._shared[0]

    @property
    def _context(self) -> Tensor:
        return self._shared[1]

    def clear_cache(self) -> None:
        """Drop the pending evaluation."""
        self._slot = self._traced = None


@ConditionalTransformModule.register
class ConditionalFlow(Configured, _Base):
    """A flow that waits for its context; the twin of every transform that takes one.

    Args:
        flow: Flow that takes a context.

    Raises:
        ValueError: If the flow is not of this package, or takes no context.

    Example:
        >>> from pyro_genmodels import transforms
        >>> flow = ConditionalFlow(transforms.affine_coupling(3, num_classes=10))
        >>> flow.condition(torch.tensor([4, 2]))(torch.zeros(3)).shape
        torch.Size([2, 3])
    """

    def __init__(self, flow: Transform) -> None:
        super().__init__()
        flow = as_flow("flow", flow)
        takes = flow.context_event_dim is not None
        check(takes, "num_classes or context_shape", "be given for a conditional flow", None)
        self.flow = flow

    inv = ConditionalTransformModule.inv

    @property
    def context_event_dim(self) -> int:
        """Rank of a context: label 0, vector 1, map 3."""
        return self.flow.context_event_dim or 0

    @property
    def event_shape(self) -> torch.Size | None:
        """Sizes of an event, if only these fit."""
        return self.flow.event_shape

    def condition(self, context: Num[Tensor, "*context"]) -> ConditionedFlow:
        """Return the transform at ``context``, sharing the parameters.

        Raises:
            ValueError: If the context is not what the flow takes; where Pyro validates arguments,
                also if it is not finite.
        """
        flow = self.flow
        check_context(context, num_classes=flow.num_classes, context_shape=flow.context_shape)
        if is_validation_enabled():
            check_finite_context(context)
        return ConditionedFlow(flow, context)

    def clear_cache(self) -> None:
        """Drop the pending evaluations of every transform conditioned from here."""
        self.flow.clear_cache()
