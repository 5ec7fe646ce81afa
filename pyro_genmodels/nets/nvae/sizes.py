"""Sizes that NVAE's two towers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyro_genmodels._checks import check, check_positive


@dataclass(frozen=True, kw_only=True)
class TowerSizes:
    """How large the towers are.

    Args:
        image_shape: Channels, height and width of an image.
        num_groups: Groups of latent variables on each scale, from the top.
        latent_channels: Channels of each group's map.
        channels: Channels at the image's size; twice as many with each halving.
        num_cells: Cells before each group, in either tower.
        num_blocks: Halvings before the finest group's scale.
        cells_per_block: Cells in each of these, the halving one included.
        num_flows: Pairs of autoregressive cells in each group's posterior.
        checkpointing: Keep no activations inside cells.

    Raises:
        ValueError: If a size is out of range.
    """

    image_shape: Sequence[int]
    num_groups: Sequence[int]
    latent_channels: int
    channels: int
    num_cells: int
    num_blocks: int
    cells_per_block: int
    num_flows: int
    checkpointing: bool

    def __post_init__(self) -> None:
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

    def latent_shape(self, scale: int) -> tuple[int, int, int]:
        """Return the shape of a group's map on a scale."""
        top = [-(-size // self.reduction) for size in self.image_shape[-2:]]
        return (self.latent_channels, top[0] * 2**scale, top[1] * 2**scale)
