"""Squeezing: 2x2 squares of pixels become channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float
from pyro_genmodels.transforms.base.event_types import Context, Event, Mapped
from pyro_genmodels.transforms.base.flow_transform import FlowTransform

# Opposite corners first, so that the first half of the channels is a checkerboard of the pixels.
_CORNERS = (0, 3, 1, 2)
_CORNERS_BACK = (0, 2, 3, 1)


def squeeze(
    x: Float[Tensor, "*batch C H W"], *, alternating: bool = False
) -> Float[Tensor, "*batch C4 H2 W2"]:
    """Return ``(*batch, 4 C, H / 2, W / 2)``; see :class:`Squeeze`."""
    # Not by pixel_unshuffle, which gets the sizes of an empty batch wrong.
    squares = x.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # C H/2 2 W/2 2
    corners = squares.movedim((-3, -1), (-4, -3)).flatten(-4, -3)  # C 4 H/2 W/2
    if alternating:
        corners = corners[..., _CORNERS, :, :].transpose(-4, -3)
    return corners.flatten(-4, -3)


def unsqueeze(
    y: Float[Tensor, "*batch C H W"], *, alternating: bool = False
) -> Float[Tensor, "*batch C4 H2 W2"]:
    """Undo :func:`squeeze`."""
    if alternating:
        corners = y.unflatten(-3, (4, -1)).transpose(-4, -3)[..., _CORNERS_BACK, :, :]
    else:
        corners = y.unflatten(-3, (-1, 4))
    squares = corners.unflatten(-3, (2, 2)).movedim((-4, -3), (-3, -1))
    return squares.flatten(-2, -1).flatten(-3, -2)


class Squeeze(FlowTransform):
    r"""Turns every 2x2 square of pixels into four channels: ``(C, H, W)`` to ``(4 C, H/2, W/2)``.

    A permutation, so the log-determinant is zero.

    Args:
        alternating: Order the new channels by corner, opposite corners first, so that the first
            half of the channels is a checkerboard of the pixels (RealNVP factors that half out).
            Otherwise the four pixels of one channel stay together.

    Raises:
        ValueError: If a height or width is odd.

    References:
        Dinh et al. (2017), RealNVP, section 3.6. https://arxiv.org/abs/1605.08803

    Example:
        >>> Squeeze()(torch.zeros(5, 3, 8, 6)).shape
        torch.Size([5, 12, 4, 3])
    """

    def __init__(self, *, alternating: bool = False) -> None:
        super().__init__(3)
        self.alternating = alternating

    def forward_and_log_det(self, x: Event, context: Context = None) -> Mapped:
        """Return the squeezed image and zero."""
        return squeeze(x, alternating=self.alternating), self._volume_kept(x)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> Mapped:
        """Return the image and zero."""
        return unsqueeze(y, alternating=self.alternating), self._volume_kept(y)

    def forward_shape(self, shape: Any) -> torch.Size:
        """Return the shape of the squeezed image."""
        *batch, channels, height, width = shape
        check(height % 2 == 0, "height", "be even", height)
        check(width % 2 == 0, "width", "be even", width)
        return torch.Size((*batch, 4 * channels, height // 2, width // 2))

    def inverse_shape(self, shape: Any) -> torch.Size:
        """Return the shape of the image."""
        *batch, channels, height, width = shape
        check(channels % 4 == 0, "channels", "be divisible by 4", channels)
        return torch.Size((*batch, channels // 4, 2 * height, 2 * width))
