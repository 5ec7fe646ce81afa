"""Transforms of the nflows package as parts of this one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_genmodels._batching import broadcast_batch, event_of
from pyro_genmodels._checks import check
from pyro_genmodels.nets.layers import one_hot_context
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform


class NFlowsTransform(FlowTransform):
    """A transform of the nflows package, or any module with its two methods.

    ``forward(inputs, context)`` and ``inverse(inputs, context)`` take one batch dimension and
    return what they make and the log-determinants; nflows' forward goes from data to noise, as
    our inverse does. Any leading dimensions are folded into that one, contexts broadcast, and one
    evaluation serves a density, as in every :class:`FlowTransform`. What is left of nflows'
    habits: its batch norm needs more than one example, its autoregressive transforms sample one
    element a pass, and a model with such a part is saved as a ``state_dict``, not by
    configuration.

    Args:
        transform: The transform; of the nflows package, or with its two methods. It must keep the
            shape of an event.
        event_dim: Rank of an event: 1 for vectors, 3 for images.
        num_classes: Condition on labels, which enter as one-hot vectors, in front of features if
            there are any; nflows' ``context_features`` then counts the classes too.
        context_shape: Sizes of a context of features, if the transform takes one (nflows'
            ``context_features``).

    With a context, :class:`ConditionalFlow` is the conditional twin.

    Raises:
        ValueError: If ``transform`` is no such module, or labels come beside maps; when called, if
            it changes an event's shape.

    References:
        Durkan et al. (2020), nflows: normalizing flows in PyTorch.
        https://doi.org/10.5281/zenodo.4296287

    Example:
        >>> from nflows.transforms import MaskedAffineAutoregressiveTransform
        >>> flow = NFlowsTransform(MaskedAffineAutoregressiveTransform(3, hidden_features=8))
        >>> flow.inv(torch.zeros(2, 5, 3)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        transform: nn.Module,
        *,
        event_dim: int = 1,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        fits = isinstance(transform, nn.Module) and callable(getattr(transform, "inverse", None))
        rule = "be a module with nflows' two methods, `forward` and `inverse`"
        check(fits, "transform", rule, type(transform).__name__)
        check(event_dim >= 1, "event_dim", "be at least 1", event_dim)
        super().__init__(event_dim)
        self.transform = transform
        self.num_classes = num_classes
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        flat = num_classes is None or self.context_event_dim in (0, 1)
        check(flat, "context_shape", "be that of a vector beside num_classes", context_shape)

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant: nflows' inverse."""
        inverse: Callable[..., tuple[Tensor, Tensor]] = self.transform.inverse  # type: ignore[assignment]
        return self._over_batch(inverse, x, context)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant: nflows' forward."""
        return self._over_batch(self.transform, y, context)

    def _over_batch(
        self,
        function: Callable[..., tuple[Tensor, Tensor]],
        tensor: Tensor,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        rank = self.context_event_dim or 0
        if context is not None and self.num_classes is not None:
            context = one_hot_context(context, self.num_classes, self.context_shape)
            context, rank = context.to(tensor.dtype), 1
        given = (tensor, self.domain.event_dim), (context, rank)
        batch = broadcast_batch(*given)
        rows = [_rows(t, batch, rank) for t, rank in given if t is not None]
        output, log_det = function(*rows)
        shape = tuple(output.shape[1:])
        rule = f"keep the shape of an event, {tuple(rows[0].shape[1:])}"
        check(shape == rows[0].shape[1:], "transform", rule, shape)
        return output.reshape(batch + shape), log_det.expand(len(rows[0])).reshape(batch)


def _rows(tensor: Tensor, batch: torch.Size, rank: int) -> Tensor:
    """Return ``(prod(batch), *event)``."""
    event = event_of(tensor, rank)
    return tensor.expand(batch + event).reshape(math.prod(batch), *event)
