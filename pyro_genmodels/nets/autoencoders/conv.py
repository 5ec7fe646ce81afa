"""Convolutional encoders and decoders: from an image of any size to features, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._checks import check, check_event_shape
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import EventShape, Float, Num, Tensor
from pyro_genmodels.nets.layers.context import (
    ContextEmbedding,
    add_features,
    context_event_dim,
)
from pyro_genmodels.nets.layers.mlp import check_dropout, make_activation
from pyro_genmodels.nets.layers.residual import preactivation_block


class ConvEncoder(Configured, nn.Module):
    """Convolutional network from images of any size to features, halving the size by strides.

    A size that is odd is halved upwards, so that no row is lost.

    Args:
        event_shape: Sizes of one image, ``(C, H, W)``.
        out_features: Number of features to give.
        channels: Channels at full size, at half size, at a quarter, and so on.
        num_blocks: Residual blocks at each size.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden value in training.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps; the context enters at every size.

    Raises:
        ValueError: If there are no channels, or the event is no image.

    Example:
        >>> ConvEncoder((3, 7, 5), 20)(torch.zeros(2, 3, 7, 5)).shape
        torch.Size([2, 20])
    """

    def __init__(
        self,
        event_shape: EventShape,
        out_features: int,
        *,
        channels: Sequence[int] = (32, 64),
        num_blocks: int = 1,
        activation: str = "silu",
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = check_event_shape(event_shape, ranks=(3,))
        self.context_event_dim = context_event_dim(num_classes, context_shape)
        height, width = _sizes(self.event_shape, channels)[-1]
        self.stem = nn.Conv2d(self.event_shape[0], channels[0], 3, padding=1)
        self.levels = nn.ModuleList(
            _Level(c, num_blocks, activation, dropout, num_classes, context_shape) for c in channels
        )
        self.downs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(channels)
        )
        self.activation = make_activation(activation)
        self.head = nn.Linear(channels[-1] * height * width, out_features)

    def forward(
        self, x: Float[Tensor, "*batch C H W"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*output"]:
        """Return features ``(*batch, out_features)`` of images ``(*batch, C, H, W)``."""
        return over_batch(self._encode, (x, 3), (context, self.context_event_dim or 0))

    def _encode(self, x: Tensor, context: Tensor | None) -> Tensor:
        h: Tensor = self.levels[0](self.stem(x), context)
        for down, level in zip(self.downs, list(self.levels)[1:], strict=True):
            h = level(down(h), context)
        return self.head(self.activation(h).flatten(1))


class ConvDecoder(Configured, nn.Module):
    """Convolutional network from features to images of any size, doubling the size by repetition.

    Args:
        in_features: Number of features to take.
        event_shape: Sizes of the output, ``(C, H, W)``.
        channels: Channels from the smallest size, in the order of application, to full size.
        num_blocks: Residual blocks at each size.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden value in training.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps; the context enters at every size.

    Raises:
        ValueError: If there are no channels, or the event is no image.

    Example:
        >>> ConvDecoder(20, (3, 7, 5))(torch.zeros(2, 20)).shape
        torch.Size([2, 3, 7, 5])
    """

    def __init__(
        self,
        in_features: int,
        event_shape: EventShape,
        *,
        channels: Sequence[int] = (64, 32),
        num_blocks: int = 1,
        activation: str = "silu",
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.event_shape = check_event_shape(event_shape, ranks=(3,))
        self.context_event_dim = context_event_dim(num_classes, context_shape)
        self.sizes = _sizes(self.event_shape, channels)[::-1]
        self.start_shape = torch.Size((channels[0], *self.sizes[0]))
        self.start = nn.Linear(in_features, math.prod(self.start_shape))
        self.levels = nn.ModuleList(
            _Level(c, num_blocks, activation, dropout, num_classes, context_shape) for c in channels
        )
        self.ups = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(channels)
        )
        self.activation = make_activation(activation)
        self.head = nn.Conv2d(channels[-1], self.event_shape[0], 3, padding=1)

    def forward(
        self, z: Float[Tensor, "*batch D"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*output"]:
        """Return images ``(*batch, *event_shape)``."""
        return over_batch(self._decode, (z, 1), (context, self.context_event_dim or 0))

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        h: Tensor = self.levels[0](self.start(z).unflatten(-1, self.start_shape), context)
        for size, up, level in zip(self.sizes[1:], self.ups, list(self.levels)[1:], strict=True):
            h = level(up(F.interpolate(h, size=size, mode="nearest")), context)
        return self.head(self.activation(h))


class _Level(nn.Module):
    """The residual blocks at one size, the context added before them."""

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        activation: str,
        dropout: float,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        self.context = ContextEmbedding(
            channels, num_classes=num_classes, context_shape=context_shape
        )
        self.blocks = nn.Sequential(
            *(preactivation_block(channels, activation, dropout) for _ in range(num_blocks))
        )

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        return self.blocks(add_features(h, self.context(context)))


def _sizes(event_shape: Sequence[int], channels: Sequence[int]) -> list[tuple[int, int]]:
    """Heights and widths from full size downwards, one for each entry of ``channels``."""
    check(len(channels) > 0, "channels", "name at least one number of channels", channels)
    _, height, width = event_shape
    return [(-(-height // 2**level), -(-width // 2**level)) for level in range(len(channels))]
