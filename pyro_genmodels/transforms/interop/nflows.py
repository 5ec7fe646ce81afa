"""Transforms of the nflows package as parts of this one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_genmodels._batching import broadcast_batch, event_of
from pyro_genmodels._checks import check
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
        context_shape: Sizes of a context, if the transform takes one (nflows'
            ``context_features``); then :class:`ConditionalFlow` is the conditional twin.

    Raises:
        ValueError: If ``transform`` is no such module, or, when called, changes an event's shape.

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
        context_shape: Sequence[int] | None = None,
    ) -> None:
        fits = isinstance(transform, nn.Module) and callable(getattr(transform, "inverse", None))
        rule = "be a module with nflows' two methods, `forward` and `inverse`"
        check(fits, "transform", rule, type(transform).__name__)
        check(event_dim >= 1, "event_dim", "be at least 1", event_dim)
        super().__init__(event_dim)
        self.transform = transform
        self.context_shape = None if context_shape is None else torch.Size(context_shape)

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
        given = (tensor, self.domain.event_dim), (context, self.context_event_dim or 0)
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
