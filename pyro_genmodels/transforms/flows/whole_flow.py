"""The base of whole flows: a chain of parts between noise and data of one fixed shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import as_shape, check_event_shape
from pyro_genmodels.nets.layers import context_event_dim
from pyro_genmodels.transforms.base.chain import Chain
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform
from pyro_genmodels.transforms.layers.logit import Logit


class WholeFlow(FlowTransform, Abstract):
    """A flow of one event shape; a subclass makes its parts and hands them to :meth:`_compose`.

    Args:
        event_shape: Sizes of an event, or the length of a vector.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.
    """

    flow: Chain
    event_shape: torch.Size

    def __init__(
        self,
        event_shape: int | Sequence[int],
        *,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
    ) -> None:
        shape = check_event_shape(as_shape(event_shape))
        super().__init__(len(shape), event_shape=shape)
        context_event_dim(num_classes, context_shape)  # checks them
        self.num_classes = num_classes
        self.context_shape = None if context_shape is None else torch.Size(context_shape)

    def _compose(
        self,
        parts: Sequence[FlowTransform],
        *,
        checkpoint: bool = False,
        logit_margin: float | None = None,
    ) -> None:
        parts = list(parts)
        if logit_margin is not None:
            parts.append(Logit(self.domain.event_dim, margin=logit_margin))
            self.codomain = parts[-1].codomain
        self.flow = Chain(parts, checkpoint=checkpoint)

    def largest_value(self, noise: float) -> float:
        """Return a bound on the size of the elements of data; see :class:`FlowTransform`."""
        return self.flow.largest_value(noise)

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant."""
        return self.flow.forward_and_log_det(x, context)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant."""
        return self.flow.inverse_and_log_det(y, context)
