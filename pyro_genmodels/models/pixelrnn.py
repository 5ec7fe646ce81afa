"""PixelRNN as a model."""

from __future__ import annotations

from typing import Any

from pyro_genmodels._checks import integers_checked
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.autoregressive.autoregressive_model import AutoregressiveModel
from pyro_genmodels.nets import MultiScaleNet, PixelRNNNet
from pyro_genmodels.nets.autoregressive.multiscale import small_shape


@integers_checked
def row_lstm(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.25,
    **options: Any,
) -> AutoregressiveModel:
    """Make a PixelRNN of Row LSTM layers.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of states dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelRNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> row_lstm((1, 6, 6), num_levels=17, hidden_channels=4).sample().shape
        torch.Size([1, 1, 6, 6])
    """
    options |= {"num_classes": num_classes, "context_shape": context_shape, "dropout": dropout}
    net = PixelRNNNet(event_shape, num_levels, layer="row", **options)
    return AutoregressiveModel(net, distribution="PixelRNN")


@integers_checked
def diagonal_bilstm(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.25,
    **options: Any,
) -> AutoregressiveModel:
    """Make a PixelRNN of Diagonal BiLSTM layers.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of states dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelRNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> diagonal_bilstm((1, 6, 6), num_levels=17, hidden_channels=4).sample().shape
        torch.Size([1, 1, 6, 6])
    """
    options |= {"num_classes": num_classes, "context_shape": context_shape, "dropout": dropout}
    net = PixelRNNNet(event_shape, num_levels, layer="diagonal", **options)
    return AutoregressiveModel(net, distribution="PixelRNN")


@integers_checked
def multiscale_pixelrnn(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.25,
    scale: int = 2,
    enlarged_channels: int = 32,
    **options: Any,
) -> AutoregressiveModel:
    """Make a multi-scale PixelRNN: a small image, every few pixels, then the rest of the large one.

    Other networks go together by :class:`~pyro_genmodels.nets.MultiScaleNet` in the same way.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of states dropped in training; not in the paper.
        scale: Every so many pixels, in both directions, are part of the small image.
        enlarged_channels: Features to which the small image is brought.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelRNNNet`; of both networks.

    Returns:
        The model; its networks are ``model.net.small`` and ``model.net.large``.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks, section 3.6.
        https://arxiv.org/abs/1601.06759

    Example:
        >>> multiscale_pixelrnn((1, 6, 6), num_levels=17, hidden_channels=4).sample().shape
        torch.Size([1, 1, 6, 6])
    """
    options = {"dropout": dropout, **options}
    small = PixelRNNNet(
        small_shape(event_shape, scale),
        num_levels,
        num_classes=num_classes,
        context_shape=context_shape,
        **options,
    )
    enlarged = (enlarged_channels, *event_shape[1:])
    large = PixelRNNNet(event_shape, num_levels, context_shape=enlarged, **options)
    net = MultiScaleNet(small, large, scale=scale)
    return AutoregressiveModel(net, distribution="MultiScalePixelRNN")
