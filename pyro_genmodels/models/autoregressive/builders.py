"""Short forms of the PixelCNNs and of PixelSNAIL."""

from __future__ import annotations

from typing import Any

from pyro_genmodels._checks import integers_checked
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.autoregressive.autoregressive_model import AutoregressiveModel
from pyro_genmodels.nets import GatedPixelCNNNet, PixelCNNNet, PixelSNAILNet


@integers_checked
def pixelcnn(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.3,
    **options: Any,
) -> AutoregressiveModel:
    """Make a PixelCNN model.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of features dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelCNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> pixelcnn((1, 8, 8), num_levels=17, hidden_channels=8).sample().shape
        torch.Size([1, 1, 8, 8])
    """
    return AutoregressiveModel(
        PixelCNNNet(
            event_shape,
            num_levels,
            num_classes=num_classes,
            context_shape=context_shape,
            dropout=dropout,
            **options,
        )
    )


@integers_checked
def gated_pixelcnn(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.25,
    **options: Any,
) -> AutoregressiveModel:
    """Make a gated PixelCNN model.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of features dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        options: Others, as for :class:`~pyro_genmodels.nets.GatedPixelCNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), Conditional image generation with PixelCNN decoders.
        https://arxiv.org/abs/1606.05328

    Example:
        >>> gated_pixelcnn((1, 8, 8), num_levels=17, hidden_channels=8).sample().shape
        torch.Size([1, 1, 8, 8])
    """
    return AutoregressiveModel(
        GatedPixelCNNNet(
            event_shape,
            num_levels,
            num_classes=num_classes,
            context_shape=context_shape,
            dropout=dropout,
            **options,
        ),
        distribution="GatedPixelCNN",
    )


@integers_checked
def pixelsnail(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.25,
    **options: Any,
) -> AutoregressiveModel:
    """Make a PixelSNAIL model: gated layers and causal self-attention.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of features dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelSNAILNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        Chen et al. (2018), PixelSNAIL: an improved autoregressive generative model.
        https://arxiv.org/abs/1712.09763

    Example:
        >>> pixelsnail((1, 8, 8), num_levels=17, hidden_channels=8).sample().shape
        torch.Size([1, 1, 8, 8])
    """
    return AutoregressiveModel(
        PixelSNAILNet(
            event_shape,
            num_levels,
            num_classes=num_classes,
            context_shape=context_shape,
            dropout=dropout,
            **options,
        ),
        distribution="PixelSNAIL",
    )
