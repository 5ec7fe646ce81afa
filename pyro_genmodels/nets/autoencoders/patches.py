"""Encoder and decoder that see one patch at a time: no layer looks over a patch's border."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pyro_genmodels._checks import check_positive
from pyro_genmodels.nets.layers.context import ConditionalNet, add_features
from pyro_genmodels.nets.layers.residual import residual_blocks


class PatchEncoder(ConditionalNet):
    """One convolution whose kernel is its stride, then residual blocks of 1x1 convolutions.

    Each patch is encoded by itself, so equal patches have equal features wherever they stand:
    what a code means does not depend on its neighbours. The first layer is the patch embedding of
    vision transformers; the blocks are those of :class:`MapEncoder` with kernels of one.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, by a last 1x1 convolution; ``None`` has none and
            gives ``hidden_channels``.
        patch_size: Height and width of a patch.
        hidden_channels: Channels of the residual blocks.
        residual_channels: Channels inside a block.
        num_blocks: Number of blocks.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps, of which a patch sees its surroundings.

    Shape:
        ``(*batch, in_channels, H, W)`` to ``(*batch, out_channels, h, w)``; pixels that fill no
        patch are left out.

    Raises:
        ValueError: If a number is not positive.

    References:
        Dosovitskiy et al. (2021), An image is worth 16x16 words (patch embedding).
        https://arxiv.org/abs/2010.11929

    Example:
        >>> import torch
        >>> PatchEncoder(3, 64, patch_size=4)(torch.zeros(2, 3, 32, 24)).shape
        torch.Size([2, 64, 8, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        patch_size: int = 4,
        hidden_channels: int = 128,
        residual_channels: int = 32,
        num_blocks: int = 2,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, hidden_channels=hidden_channels)
        check_positive(patch_size=patch_size)
        self.out_channels = out_channels or hidden_channels
        self.patches = nn.Conv2d(in_channels, hidden_channels, patch_size, stride=patch_size)
        self._take_context(hidden_channels, num_classes, context_shape)
        self.blocks = residual_blocks(hidden_channels, residual_channels, num_blocks, kernel_size=1)
        self.last = nn.Conv2d(hidden_channels, out_channels, 1) if out_channels else nn.Identity()

    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        h = add_features(self.patches(x), features)
        return self.last(self.blocks(h))


class PatchDecoder(ConditionalNet):
    """The mirror of :class:`PatchEncoder`: each place of the map makes one patch by itself.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        patch_size: Height and width of a patch.
        hidden_channels: Channels of the residual blocks.
        residual_channels: Channels inside a block.
        num_blocks: Number of blocks.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps, of which a patch sees its surroundings.

    Shape:
        ``(*batch, in_channels, h, w)`` to ``(*batch, out_channels, H, W)``.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> import torch
        >>> PatchDecoder(64, 3, patch_size=4)(torch.zeros(2, 64, 8, 6)).shape
        torch.Size([2, 3, 32, 24])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        patch_size: int = 4,
        hidden_channels: int = 128,
        residual_channels: int = 32,
        num_blocks: int = 2,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels)
        check_positive(hidden_channels=hidden_channels, patch_size=patch_size)
        self.projection = nn.Conv2d(in_channels, hidden_channels, 1)
        self._take_context(hidden_channels, num_classes, context_shape)
        self.blocks = residual_blocks(hidden_channels, residual_channels, num_blocks, kernel_size=1)
        self.patches = nn.ConvTranspose2d(
            hidden_channels, out_channels, patch_size, stride=patch_size
        )

    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        h = add_features(self.projection(x), features)
        return self.patches(self.blocks(h))
