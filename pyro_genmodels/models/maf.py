"""Short form: masked autoregressive flows; one layer is MADE with Gaussian outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro_genmodels._checks import check_event_shape, check_positive, integers_checked
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.flows.flow_model import FlowModel
from pyro_genmodels.transforms import (
    ConditionalFlow,
    FlowTransform,
    MaskedAutoregressive,
    Reverse,
)


@integers_checked
def maf(
    event_shape: EventShape,
    *,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    num_layers: int = 5,
    hidden: Sequence[int] = (64, 64),
) -> FlowModel:
    """Make a masked autoregressive flow of real-valued vectors; one layer is a Gaussian MADE.

    Each layer gives an element's mean and scale from the elements before it; the order of the
    elements is reversed between layers. Data are scored in one evaluation of each network, drawn
    in as many as there are elements.

    Args:
        event_shape: ``(D,)``.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector ``(C,)``.
        num_layers: Layers; with one the model is MADE with Gaussian outputs.
        hidden: Widths of the hidden layers of each network, ``D`` or more each.

    Returns:
        The model.

    Raises:
        ValueError: If a size is impossible, or both kinds of context are given.

    References:
        Papamakarios et al. (2017), Masked autoregressive flow for density estimation.
        https://arxiv.org/abs/1705.07057

    Example:
        >>> maf((4,), num_layers=1).sample(3).shape
        torch.Size([3, 4])
    """
    (size,) = check_event_shape(event_shape, ranks=(1,))
    check_positive(num_layers=num_layers)
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    parts: list[FlowTransform | ConditionalFlow] = []
    for index in range(num_layers):
        layer = MaskedAutoregressive(size, hidden=list(hidden), **context)
        waiting = ConditionalFlow(layer) if layer.context_event_dim is not None else layer
        parts += [Reverse(1), waiting] if index else [waiting]
    return FlowModel((size,), parts, **context)
