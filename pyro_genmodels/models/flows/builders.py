"""Builders: models of the published flows, each one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.distributions.conditional import ConditionalTransform

from pyro_genmodels._checks import check_event_shape, check_positive, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.flows.flow_model import FlowModel
from pyro_genmodels.transforms import (
    NICE,
    ConditionalFlow,
    FlowTransform,
    Glow,
    Logit,
    MaskedAutoregressive,
    NeuralSplineFlow,
    RealNVP,
    Reverse,
)


@integers_checked
@takes_arguments_of(NICE, width=256, num_layers=3, dropout=0.1)
def nice(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    base: str = "logistic",
    dequantization: str | ConditionalTransform = "uniform",
    **options: Any,
) -> FlowModel:
    """Make a NICE model of vectors, or of images as vectors of their pixels.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of discrete data; ``None`` for continuous data.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        base: As for :class:`FlowModel`; as published, logistic noise.
        dequantization: As for :class:`FlowModel`.
        width: Width of the networks' hidden layers; 1000 and more in the paper.
        num_layers: Hidden layers of each network; 5 in the paper for MNIST.
        dropout: Share of the coupling networks' features dropped in training; not in the paper.
        options: Others.

    Returns:
        The model; its transform is ``model.transforms[0]``.

    References:
        Dinh et al. (2014), NICE: Non-linear independent components estimation.
        https://arxiv.org/abs/1410.8516

    Example:
        >>> nice((1, 4, 4), num_levels=17, width=16).sample(2).shape
        torch.Size([2, 1, 4, 4])
    """
    flow = NICE(event_shape, **options)
    return _model(flow, num_levels, base=base, dequantization=dequantization)


@integers_checked
@takes_arguments_of(RealNVP)
def realnvp(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    base: str = "normal",
    dequantization: str | ConditionalTransform = "uniform",
    logit_margin: float = 0.05,
    dropout: float | None = None,
    **options: Any,
) -> FlowModel:
    """Make a RealNVP model of vectors or images.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of discrete data; ``None`` for continuous data.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        base: As for :class:`FlowModel`.
        dequantization: As for :class:`FlowModel`.
        logit_margin: Distance from 0 and 1 that discrete data, scaled to the unit interval, are
            brought to before the logit; continuous data are taken as they are.
        dropout: Share of the coupling networks' features dropped in training, 0.25 if not given.
            Not in the paper; without it a thousand images are soon learned by heart. 0 for data
            without end, and with ``batch_norm``, whose networks for images have none.
        options: Others.

    Returns:
        The model; its transform is ``model.transforms[0]``.

    References:
        Dinh et al. (2017), Density estimation using Real NVP. https://arxiv.org/abs/1605.08803

    Example:
        >>> realnvp((1, 8, 8), num_levels=17).sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    if dropout is None:
        dropout = 0.0 if options.get("batch_norm", False) else 0.25
    margin = None if num_levels is None else logit_margin
    flow = RealNVP(event_shape, logit_margin=margin, dropout=dropout, **options)
    return _model(flow, num_levels, base=base, dequantization=dequantization)


@integers_checked
@takes_arguments_of(Glow, num_steps=8, width=64, dropout=0.1)
def glow(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    base: str = "normal",
    dequantization: str | ConditionalTransform = "uniform",
    **options: Any,
) -> FlowModel:
    """Make a Glow model of images or vectors.

    The first batch in training sets the first values of its normalisations.

    Args:
        event_shape: ``(C, H, W)`` or ``(D,)``.
        num_levels: Levels of discrete data; ``None`` for continuous data.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        base: As for :class:`FlowModel`.
        dequantization: As for :class:`FlowModel`.
        num_steps: Steps at each scale; 32 and 48 in the paper.
        width: Hidden channels of the coupling networks; 512 in the paper.
        dropout: Share of the coupling networks' features dropped in training; not in the paper.
        options: Others.

    Returns:
        The model; its transform is ``model.transforms[0]``.

    References:
        Kingma and Dhariwal (2018), Glow: Generative flow with invertible 1x1 convolutions.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> glow((1, 8, 8), num_levels=17, num_steps=2, width=16).eval().sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    flow = Glow(event_shape, **options)
    return _model(flow, num_levels, base=base, dequantization=dequantization)


@integers_checked
@takes_arguments_of(NeuralSplineFlow, dropout=0.25)
def spline_flow(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    base: str = "normal",
    dequantization: str | ConditionalTransform = "uniform",
    logit_margin: float = 0.05,
    **options: Any,
) -> FlowModel:
    """Make a neural spline flow model of vectors or images: of the flows here the best on digits.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of discrete data; ``None`` for continuous data.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        base: As for :class:`FlowModel`.
        dequantization: As for :class:`FlowModel`.
        logit_margin: Distance from 0 and 1 that discrete data, scaled to the unit interval, are
            brought to before the logit; continuous data are taken as they are.
        dropout: Share of the coupling networks' features dropped in training.
        options: Others.

    Returns:
        The model; its splines are ``model.transforms[0]``.

    References:
        Durkan et al. (2019), Neural Spline Flows. https://arxiv.org/abs/1906.04032

    Example:
        >>> spline_flow((1, 8, 8), num_levels=17, width=8).sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    flow = NeuralSplineFlow(event_shape, **options)
    rank = len(flow.event_shape or ())
    behind = [] if num_levels is None else [Logit(rank, margin=logit_margin)]
    return _model(flow, num_levels, behind, base=base, dequantization=dequantization)


def _model(
    flow: FlowTransform,
    num_levels: int | None,
    behind: Sequence[FlowTransform] = (),
    **options: Any,
) -> FlowModel:
    """Return the model of a flow, conditional if the flow is, and of what comes behind it."""
    waiting = ConditionalFlow(flow) if flow.context_event_dim is not None else flow
    return FlowModel(
        flow.event_shape or (),
        [waiting, *behind],
        num_levels=num_levels,
        num_classes=flow.num_classes,
        context_shape=flow.context_shape,
        **options,
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
        ValueError: If a size is impossible.

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
