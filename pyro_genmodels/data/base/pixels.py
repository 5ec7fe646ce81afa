"""Depth and size of byte images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Num


def check_bits(num_bits: int, *, most: int = 8) -> None:
    """Raise ``ValueError`` unless channels of ``most`` bits can be cut to ``num_bits``."""
    check(1 <= num_bits <= most, "num_bits", f"lie between 1 and {most}", num_bits)


def with_bits(images: Num[Tensor, "*shape"], num_bits: int) -> Num[Tensor, "*shape"]:
    """Keep the highest bits of bytes.

    Example:
        >>> with_bits(torch.tensor([0, 127, 128, 255], dtype=torch.uint8), 1)
        tensor([0, 0, 1, 1], dtype=torch.uint8)
    """
    return images if num_bits == 8 else images >> (8 - num_bits)


def resized(images: Num[Tensor, "n c h w"], size: int | None) -> Num[Tensor, "n c h2 w2"]:
    """Scale byte images to ``size`` x ``size``, anti-aliased; ``None`` leaves them."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    check(size >= 1, "size", "be positive", size)
    parts = []
    for part in images.split(4096):  # floats of a whole data set would take gigabytes
        scaled = F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True)
        parts.append(scaled.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)
