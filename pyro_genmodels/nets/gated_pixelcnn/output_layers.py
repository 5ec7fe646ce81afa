"""Residual 1x1 layers behind the sum of a stack's skip connections, whole or by sub-pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_genmodels._typing import Float
from pyro_genmodels.nets.autoregressive.row_cache import PixelLayer, group_views
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d


class ResidualOutput(nn.Module):
    r"""Adds a place's own features, through a wider layer: :math:`y + W_2 r(W_1 r(y))`.

    Args:
        channels: Features, in groups by colour.
        residual_channels: Features of the layer between.
        num_groups: Number of colours.
    """

    def __init__(self, channels: int, residual_channels: int, *, num_groups: int) -> None:
        super().__init__()
        self.wide = MaskedConv2d(channels, residual_channels, 1, kind="B", num_groups=num_groups)
        self.back = MaskedConv2d(residual_channels, channels, 1, kind="B", num_groups=num_groups)

    def forward(
        self, y: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the features."""
        branch: Tensor = self.back(self.wide(y.relu()).relu())
        return y + branch


class ResidualOutputEvaluation:
    """One such layer at one sub-pixel after another.

    Args:
        layer: The layer.
        y: Its input ``(batch, channels)`` at a pixel, filled colour by colour.

    Attributes:
        result: Its output, filled likewise.
    """

    def __init__(self, layer: ResidualOutput, y: Tensor) -> None:
        groups = layer.wide.num_groups
        active, wide = torch.empty_like(y), y.new_empty(len(y), layer.wide.out_channels)
        self.result = torch.empty_like(y)
        self._y, self._active, self._result = (
            group_views(x, groups) for x in (y, active, self.result)
        )
        self._wide = PixelLayer(layer.wide, active, group_views(wide, groups))
        self._back = PixelLayer(layer.back, wide, self._result)

    def step(self, c: int) -> None:
        """Make the features of colour ``c``."""
        torch.clamp_min(self._y[c], 0, out=self._active[c])
        self._wide.step(c).relu_()
        self._back.step(c).add_(self._y[c])
