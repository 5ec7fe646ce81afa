"""PixelCNN++ as a model."""

from __future__ import annotations

from typing import Any

from pyro_genmodels._checks import integers_checked
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.autoregressive.autoregressive_model import AutoregressiveModel
from pyro_genmodels.nets import PixelCNNPlusPlusNet


@integers_checked
def pixelcnn_pp(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.5,
    **options: Any,
) -> AutoregressiveModel:
    """Make a PixelCNN++ model.

    The paper trains by Adam with a learning rate of 1e-3, first and second moments' decays of
    0.95 and 0.9995, the rate falling by 5e-6 of itself a step, and averages the weights with a
    decay of 0.9995.

    Args:
        event_shape: ``(C, H, W)``; the sides divisible by 4, or as ``num_scales`` says.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of features dropped in training.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelCNNPlusPlusNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        Salimans et al. (2017), PixelCNN++. https://arxiv.org/abs/1701.05517

    Example:
        >>> pixelcnn_pp((1, 4, 4), num_levels=17, hidden_channels=4).sample().shape
        torch.Size([1, 1, 4, 4])
    """
    return AutoregressiveModel(
        PixelCNNPlusPlusNet(
            event_shape,
            num_levels,
            num_classes=num_classes,
            context_shape=context_shape,
            dropout=dropout,
            **options,
        ),
        distribution="PixelCNNPlusPlus",
    )
