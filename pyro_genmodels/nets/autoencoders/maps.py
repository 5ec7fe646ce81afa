"""Encoder and decoder of VQ-VAE: from images to smaller feature maps, and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.nets.layers.context import ConditionalNet, add_features
from pyro_genmodels.nets.layers.residual import residual_blocks, strided_layers


class MapEncoder(ConditionalNet):
    """Strided convolutions, then residual blocks: each stride halves height and width.

    Every ``strided_channels`` entry is a 4x4 convolution of stride 2 and a ReLU; a 3x3
    convolution (the projection) leads to ``hidden_channels``; the blocks are ReLU, 3x3, ReLU, 1x1,
    added to their input; a ReLU ends them.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, by a last 1x1 convolution; ``None`` has none and
            gives ``hidden_channels``.
        strided_channels: Channels after each halving.
        hidden_channels: Channels of the residual blocks.
        residual_channels: Channels inside a block.
        num_blocks: Number of blocks.
        projection: Whether there is the 3x3 convolution, as in Sonnet's code, not in the paper.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps; the context enters before the blocks.

    Shape:
        ``(*batch, in_channels, H, W)`` to ``(*batch, out_channels, h, w)``; each halving rounds
        down.

    Raises:
        ValueError: If a number is not positive, or widths differ without a projection.

    References:
        van den Oord et al. (2017), Neural discrete representation learning, section 4.1; Sonnet's
        VQ-VAE example.

    Example:
        >>> import torch
        >>> MapEncoder(3, 64)(torch.zeros(2, 3, 32, 24)).shape
        torch.Size([2, 64, 8, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        strided_channels: Sequence[int] = (64, 128),
        hidden_channels: int = 128,
        residual_channels: int = 32,
        num_blocks: int = 2,
        projection: bool = True,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, hidden_channels=hidden_channels)
        widths = (in_channels, *strided_channels)
        fits = projection or widths[-1] == hidden_channels
        check(fits, "hidden_channels", f"be {widths[-1]} without a projection", hidden_channels)
        check(min(widths) > 0, "strided_channels", "be positive", list(strided_channels))
        self.out_channels = out_channels or hidden_channels
        self.strided = strided_layers(nn.Conv2d, widths)
        self.projection = _projection(widths[-1], hidden_channels) if projection else nn.Identity()
        self._take_context(hidden_channels, num_classes, context_shape)
        self.blocks = residual_blocks(hidden_channels, residual_channels, num_blocks)
        self.last = nn.Conv2d(hidden_channels, out_channels, 1) if out_channels else nn.Identity()

    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        h = add_features(self.projection(self.strided(x)), features)
        return self.last(self.blocks(h))


class MapDecoder(ConditionalNet):
    """Residual blocks, then transposed convolutions: each doubles height and width.

    The mirror of :class:`MapEncoder`, with its arguments: a 3x3 convolution to
    ``hidden_channels``, the blocks, and for every entry of ``strided_channels`` a transposed 4x4
    convolution of stride 2, with ReLUs between; without any a 3x3 convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        strided_channels: As the encoder's; only those between the transposed convolutions count.
        hidden_channels: Channels of the residual blocks.
        residual_channels: Channels inside a block.
        num_blocks: Number of blocks.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps; the context enters before the blocks.

    Shape:
        ``(*batch, in_channels, h, w)`` to ``(*batch, out_channels, H, W)``.

    Raises:
        ValueError: If a number is not positive.

    References:
        van den Oord et al. (2017), section 4.1; Sonnet's VQ-VAE example.

    Example:
        >>> import torch
        >>> MapDecoder(64, 3)(torch.zeros(2, 64, 8, 6)).shape
        torch.Size([2, 3, 32, 24])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        strided_channels: Sequence[int] = (64, 128),
        hidden_channels: int = 128,
        residual_channels: int = 32,
        num_blocks: int = 2,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels)
        check_positive(hidden_channels=hidden_channels)
        self.projection = _projection(in_channels, hidden_channels)
        self._take_context(hidden_channels, num_classes, context_shape)
        self.blocks = residual_blocks(hidden_channels, residual_channels, num_blocks)
        widths = (hidden_channels, *reversed(strided_channels[:-1]), out_channels)
        self.strided = strided_layers(nn.ConvTranspose2d, widths)[:-1]
        if not strided_channels:  # the sizes stay as they are
            self.strided = nn.Sequential(nn.Conv2d(hidden_channels, out_channels, 3, padding=1))

    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        h = add_features(self.projection(x), features)
        return self.strided(self.blocks(h))


def _projection(in_channels: int, hidden_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, hidden_channels, 3, padding=1)
