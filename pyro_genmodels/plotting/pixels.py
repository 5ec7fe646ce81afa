"""Images as arrays of pixels: values from 0 to 1, and many images on one grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._typing import Float, Num

# Below this many pixels a side, a tile is enlarged by whole factors: 8x8 digits are no stamps.
SMALLEST_SIDE = 48


@integers_checked
def to_pixels(
    images: Num[Tensor, "*batch C H W"], num_levels: int | None = None
) -> Float[Tensor, "*batch drawn H width"]:
    """Scale images to [0, 1] with one or three channels; other channels stand side by side.

    Args:
        images: Images ``(*batch, C, H, W)``.
        num_levels: Discrete levels; continuous images are scaled from their 1st to 99th percentile.
            Elements that are missing, NaN, are grey.

    Returns:
        Images ``(*batch, 1 or 3, H, W or C W)``.
    """
    values = images.detach().cpu().float()
    if num_levels is not None:
        values = values / (num_levels - 1)
    else:
        # A strided part: torch.quantile refuses more than 16 million elements.
        part = values.flatten()[:: max(1, values.numel() // 1_000_000)]
        # All but what is missing, NaN, which has no place in the order.
        low, high = part.nanquantile(torch.tensor([0.01, 0.99]))
        values = (values - low) / (high - low).clamp_min(1e-12)
    if values.shape[-3] not in (1, 3):
        values = torch.cat(values.split(1, dim=-3), dim=-1)
    return values.nan_to_num(0.5).clamp(0, 1)


@integers_checked
def image_grid(
    images: Num[Tensor, "*batch C H W"],
    num_levels: int | None = None,
    *,
    columns: int | None = None,
) -> Float[Tensor, "rows_high columns_wide rgb"]:
    """Lay images out in rows, enlarged to a visible size.

    Args:
        images: Images ``(*batch, C, H, W)``, at least one.
        num_levels: Discrete levels, ``None`` for continuous values.
        columns: Images a row; about a square by default.

    Returns:
        One picture ``(height, width, 3)`` with values from 0 to 1.
    """
    check(images.numel() > 0, "images", "hold at least one image", "none")
    tiles = F.pad(enlarged(images.reshape(-1, *images.shape[-3:]), num_levels), (1,) * 4, value=0.5)
    return arranged(tiles, columns or math.ceil(math.sqrt(len(tiles))), 0.5)


def enlarged(
    images: Num[Tensor, "n C H W"], num_levels: int | None
) -> Float[Tensor, "n rgb height width"]:
    """Return images in three channels, small ones enlarged by a whole factor."""
    pixels = to_pixels(images, num_levels)
    factor = max(1, math.ceil(SMALLEST_SIDE / max(pixels.shape[-2:])))
    return pixels.repeat_interleave(factor, -1).repeat_interleave(factor, -2).expand(-1, 3, -1, -1)


def arranged(
    tiles: Float[Tensor, "n rgb height width"], columns: int, fill: float
) -> Float[Tensor, "rows_high columns_wide rgb"]:
    """Lay tiles out in rows, and fill the last one."""
    n, c, h, w = tiles.shape
    tiles = torch.cat([tiles, tiles.new_full((-n % columns, c, h, w), fill)])
    grid = tiles.view(-1, columns, c, h, w).permute(0, 3, 1, 4, 2)
    return grid.reshape(-1, columns * w, c)
