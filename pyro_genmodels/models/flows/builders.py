"""Builders: models of the published flows, each one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.distributions.conditional import ConditionalTransform

from pyro_genmodels._checks import check_event_shape, check_positive, integers_checked
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
def nice(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    base: str = "logistic",
    dequantization: str | ConditionalTransform = "uniform",
    width: int = 256,
    num_layers: int = 3,
    dropout: float = 0.1,
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
        options: Others, as for :class:`~pyro_genmodels.transforms.NICE`.

    Returns:
        The model; its transform is ``model.transforms[0]``.

    References:
        Dinh et al. (2014), NICE: Non-linear independent components estimation.
        https://arxiv.org/abs/1410.8516

    Example:
        >>> nice((1, 4, 4), num_levels=17, width=16).sample(2).shape
        torch.Size([2, 1, 4, 4])
    """
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    made: dict[str, Any] = {"width": width, "num_layers": num_layers, "dropout": dropout}
    flow = NICE(event_shape, **made, **context, **options)
    return _model(flow, num_levels, base=base, dequantization=dequantization)


@integers_checked
def realnvp(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    base: str = "normal",
    dequantization: str | ConditionalTransform = "uniform",
    logit_margin: float = 0.05,
    dropout: float | None = None,
    batch_norm: bool = False,
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
        batch_norm: As for :class:`~pyro_genmodels.transforms.RealNVP`.
        options: Others, as there.

    Returns:
        The model; its transform is ``model.transforms[0]``.

    References:
        Dinh et al. (2017), Density estimation using Real NVP. https://arxiv.org/abs/1605.08803

    Example:
        >>> realnvp((1, 8, 8), num_levels=17).sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    dropout = (0.0 if batch_norm else 0.25) if dropout is None else dropout
    flow = RealNVP(
        event_shape,
        logit_margin=None if num_levels is None else logit_margin,
        dropout=dropout,
        batch_norm=batch_norm,
        **context,
        **options,
    )
    return _model(flow, num_levels, base=base, dequantization=dequantization)


@integers_checked
def glow(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    base: str = "normal",
    dequantization: str | ConditionalTransform = "uniform",
    num_steps: int = 8,
    width: int = 64,
    dropout: float = 0.1,
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
        options: Others, as for :class:`~pyro_genmodels.transforms.Glow`.

    Returns:
        The model; its transform is ``model.transforms[0]``.

    References:
        Kingma and Dhariwal (2018), Glow: Generative flow with invertible 1x1 convolutions.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> glow((1, 8, 8), num_levels=17, num_steps=2, width=16).eval().sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    made: dict[str, Any] = {"num_steps": num_steps, "width": width, "dropout": dropout}
    flow = Glow(event_shape, **made, **context, **options)
    return _model(flow, num_levels, base=base, dequantization=dequantization)


@integers_checked
def spline_flow(
    event_shape: EventShape,
    *,
    num_levels: int | None = None,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    base: str = "normal",
    dequantization: str | ConditionalTransform = "uniform",
    logit_margin: float = 0.05,
    dropout: float = 0.25,
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
        options: Others, as for :class:`~pyro_genmodels.transforms.NeuralSplineFlow`.

    Returns:
        The model; its splines are ``model.transforms[0]``.

    References:
        Durkan et al. (2019), Neural Spline Flows. https://arxiv.org/abs/1906.04032

    Example:
        >>> spline_flow((1, 8, 8), num_levels=17, width=8).sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    flow = NeuralSplineFlow(event_shape, dropout=dropout, **context, **options)
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
