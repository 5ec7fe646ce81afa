"""What can be known of a flow's parts before it meets data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.conditional import ConditionalTransform
from torch.distributions.transforms import Transform

from pyro_genmodels._checks import check
from pyro_genmodels.transforms import ConditionalFlow, FlowTransform

_ARGUMENT = "transforms"


def check_transforms(
    transforms: Sequence[Any],
    event_shape: torch.Size,
    num_classes: int | None,
    context_shape: torch.Size | None,
) -> None:
    """Raise ``ValueError`` unless transforms map noise to events, given the contexts declared."""
    check(len(transforms) > 0, _ARGUMENT, "be one transform or more", "none")
    for part in transforms:
        fits = isinstance(part, Transform | ConditionalTransform)
        rule = "be transforms of this package, of Pyro or of torch"
        check(fits, _ARGUMENT, rule, getattr(part, "__name__", type(part).__name__))
    _check_contexts(transforms, num_classes, context_shape)
    _check_shapes(transforms, event_shape)


def _check_contexts(
    transforms: Sequence[Any], num_classes: int | None, context_shape: torch.Size | None
) -> None:
    declared = num_classes, context_shape
    waiting = [part for part in transforms if isinstance(part, ConditionalTransform)]
    if declared == (None, None):
        rule = "take no context in a model without num_classes or context_shape"
        check(not waiting, _ARGUMENT, rule, type(waiting[0]).__name__ if waiting else None)
    else:
        check(len(waiting) > 0, _ARGUMENT, "be conditional in a conditional model", "none that is")
    for part in transforms:
        if isinstance(part, FlowTransform):
            rule = "wait for their context: wrap them in ConditionalFlow"
            check(part.context_event_dim is None, _ARGUMENT, rule, type(part).__name__)
        elif isinstance(part, ConditionalFlow):
            taken = part.flow.num_classes, part.flow.context_shape
            rule = f"take the model's context, {_described(*declared)}"
            check(taken == declared, _ARGUMENT, rule, _described(*taken))


def _described(num_classes: int | None, context_shape: torch.Size | None) -> str:
    parts = [] if num_classes is None else [f"{num_classes} classes"]
    parts += [] if context_shape is None else [f"shape {tuple(context_shape)}"]
    return " and ".join(parts) or "none"


def _check_shapes(transforms: Sequence[Any], event_shape: torch.Size) -> None:
    rule = f"map noise of shape {tuple(event_shape)} to data of that shape"
    shape = event_shape
    for part in transforms:
        plain = part.flow if isinstance(part, ConditionalFlow) else part
        if not isinstance(plain, Transform):
            return  # a conditional transform of others does not say
        name, rank = type(plain).__name__, plain.domain.event_dim
        problem = f"{name} for events of {rank} dimensions"
        check(rank <= len(shape), _ARGUMENT, rule, problem)
        try:
            shape = torch.Size(plain.forward_shape(shape))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"`{_ARGUMENT}` must {rule}; {name} cannot: {error}") from None
    check(shape == event_shape, _ARGUMENT, rule, f"data of shape {tuple(shape)}")
