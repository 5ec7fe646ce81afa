"""NICE: additive couplings and one diagonal scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro_genmodels._checks import as_shape, check_positive, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.nets.layers import vector_net
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform
from pyro_genmodels.transforms.couplings.coupling import AdditiveCoupling
from pyro_genmodels.transforms.couplings.masks import AlternatingMask
from pyro_genmodels.transforms.flows.whole_flow import WholeFlow
from pyro_genmodels.transforms.layers.elementary import DiagonalScale


class NICE(WholeFlow):
    r"""Additive couplings between even and odd elements, and a learned scale of each element.

    Volumes are kept but for the last layer, so the log-determinant is the same everywhere. An
    image is a vector of its pixels here, as published.

    Args:
        event_shape: ``D`` or ``(D,)`` for vectors, ``(C, H, W)`` for images. A single element is
            shifted and scaled by learned constants.
        num_couplings: Number of couplings.
        width: Width of the networks' hidden layers.
        num_layers: Number of hidden layers of each network.
        activation: Name of the activation.
        dropout: Dropout probability in the networks; not in the paper.
        checkpoint: In training, keep only what passes between the couplings, and evaluate each
            anew in the backward pass.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or maps ``(C, H, W)``.

    Raises:
        ValueError: If sizes are not positive.

    References:
        Dinh et al. (2014), NICE: Non-linear independent components estimation.
        https://arxiv.org/abs/1410.8516

    Example:
        >>> import torch
        >>> NICE((1, 4, 4), width=16).inv(torch.zeros(5, 1, 4, 4)).shape
        torch.Size([5, 1, 4, 4])
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        *,
        num_couplings: int = 4,
        width: int = 1000,
        num_layers: int = 5,
        activation: str = "relu",
        dropout: float = 0.0,
        checkpoint: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(event_shape, **context)
        shape = self.event_shape
        check_positive(num_couplings=num_couplings, width=width, num_layers=num_layers)
        size = shape.numel()
        options: dict[str, Any] = {"hidden": [width] * num_layers, "activation": activation}
        options |= {"dropout": dropout, "zero_init": True, **context}
        couplings: list[FlowTransform] = []
        for index in range(num_couplings):
            mask = AlternatingMask(inverted=index % 2 == 1)
            seen, changed = mask.sizes((size,))
            couplings.append(AdditiveCoupling(mask, vector_net(seen, changed, **options)))
        self._compose([DiagonalScale((size,)), *couplings], checkpoint=checkpoint)

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant."""
        y, log_det = self.flow.forward_and_log_det(x.flatten(-self.domain.event_dim), context)
        return y.reshape(x.shape), log_det

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant."""
        x, log_det = self.flow.inverse_and_log_det(y.flatten(-self.domain.event_dim), context)
        return x.reshape(y.shape), log_det


class ConditionalNICE(ConditionalFlow):
    """NICE that waits for its context: labels, vectors or maps.

    Args:
        options: As for :class:`NICE`, ``num_classes`` or ``context_shape`` among them.

    Raises:
        ValueError: As :class:`NICE`; also if neither kind of context is given.

    Example:
        >>> import torch
        >>> flow = ConditionalNICE(4, num_classes=10, width=8)
        >>> flow.condition(torch.arange(10)).forward_shape((4,))
        torch.Size([10, 4])
    """

    @takes_arguments_of(NICE)
    def __init__(self, event_shape: int | Sequence[int], **options: Any) -> None:
        super().__init__(NICE(event_shape, **options))


@integers_checked
@takes_arguments_of(NICE, without=["event_shape"])
def nice(input_dim: int | Sequence[int], **options: Any) -> NICE:
    """Return a :class:`NICE` for vectors of ``input_dim`` or events of that shape.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        options: Others.

    Example:
        >>> nice(4, width=8).event_shape
        torch.Size([4])
    """
    return NICE(input_dim, **options)


@integers_checked
@takes_arguments_of(NICE, without=["event_shape", *CONTEXT])
def conditional_nice(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalNICE:
    """Return a :class:`ConditionalNICE` for context vectors of ``context_dim`` or maps.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        context_dim: Length of the context vectors, or sizes of a map.
        options: Others.

    Example:
        >>> import torch
        >>> conditional_nice(4, 2, width=8).condition(torch.zeros(5, 2)).forward_shape((4,))
        torch.Size([5, 4])
    """
    return ConditionalNICE(input_dim, context_shape=as_shape(context_dim), **options)
