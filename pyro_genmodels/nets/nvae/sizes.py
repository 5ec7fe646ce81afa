"""Sizes that NVAE's two towers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._configuration import ArgumentGroup


@dataclass(frozen=True)
class NVAENetwork(ArgumentGroup):
    """Sizes of NVAE's encoder and decoder, its two towers.

    Args:
        num_groups: Groups of latents on each scale, from the top; each scale is twice the size of
            the one above.
        latent_channels: Channels of each group's map.
        channels: Channels at full size, twice as many with each halving.
        num_cells: Residual cells before each group in either tower.
        num_blocks: Halvings of the image before the finest scale.
        cells_per_block: Residual cells in each of them, the halving one included.
        num_flows: Pairs of autoregressive shifts in each group's posterior; with any, the KL terms
            are estimated from the draws.
        checkpointing: Keep no activations inside cells, and evaluate them again for gradients.

    Raises:
        ValueError: If a size is out of range.

    Example:
        >>> network = NVAENetwork((1, 2), latent_channels=2)
        >>> [network.latent_shape(scale, (1, 7, 9)) for scale in network.scales]
        [(2, 2, 3), (2, 4, 6), (2, 4, 6)]
    """

    num_groups: Sequence[int] = (2, 3)
    _: KW_ONLY
    latent_channels: int = 8
    channels: int = 16
    num_cells: int = 1
    num_blocks: int = 1
    cells_per_block: int = 2
    num_flows: int = 0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a size is out of range."""
        super().__post_init__()
        rule = "be a positive number for each scale"
        given = tuple(self.num_groups)
        check(bool(given) and min(given) > 0, "num_groups", rule, given)
        for name in ("latent_channels", "channels", "cells_per_block"):
            check_positive(**{name: getattr(self, name)})
        for name in ("num_cells", "num_blocks", "num_flows"):
            check(getattr(self, name) >= 0, name, "not be negative", getattr(self, name))

    @property
    def num_scales(self) -> int:
        """Number of scales."""
        return len(self.num_groups)

    @property
    def reduction(self) -> int:
        """How many times smaller than the image the top group's map is."""
        return 1 << (self.num_blocks + self.num_scales - 1)

    @property
    def scales(self) -> list[int]:
        """Scale of each group from the top, the top scale being 0."""
        return [scale for scale, count in enumerate(self.num_groups) for _ in range(count)]

    def channels_at(self, scale: int) -> int:
        """Return the towers' channels on a scale."""
        return self.channels << (self.num_blocks + self.num_scales - 1 - scale)

    def latent_shape(self, scale: int, image_shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the shape of a group's map on a scale, for images ``(C, H, W)``."""
        top = [-(-size // self.reduction) for size in image_shape[-2:]]
        return (self.latent_channels, top[0] * 2**scale, top[1] * 2**scale)
