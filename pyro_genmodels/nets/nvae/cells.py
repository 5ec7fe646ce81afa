"""NVAE's residual cells, combiners, and the masked networks of its autoregressive posterior."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._typing import Bool, Float
from pyro_genmodels.nets.layers.masked_conv import causal_mask
from pyro_genmodels.nets.nvae.layers import (
    BatchNorm,
    FactorizedReduce,
    RegularizedConv2d,
    SqueezeExcitation,
)


class EncoderCell(nn.Module):
    """Twice batch norm, swish and a 3x3 convolution; then squeeze-excitation.

    Args:
        in_channels: Channels of the input.
        halves: Halve the image and double the channels.

    References:
        Vahdat and Kautz (2020), NVAE, figure 3b.
    """

    def __init__(self, in_channels: int, *, halves: bool = False) -> None:
        super().__init__()
        channels, stride = (2 * in_channels, 2) if halves else (in_channels, 1)
        self.skip = FactorizedReduce(in_channels, channels) if halves else nn.Identity()
        self.branch = nn.Sequential(
            BatchNorm(in_channels),
            nn.SiLU(),
            RegularizedConv2d(in_channels, channels, 3, stride=stride),
            BatchNorm(channels),
            nn.SiLU(),
            RegularizedConv2d(channels, channels, 3),
        )
        self.excitation = SqueezeExcitation(channels)

    def forward(self, x: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch K h w"]:
        """Return the skip path plus a tenth of the branch."""
        return self.excitation(self.branch(x), self.skip(x))


class DecoderCell(nn.Module):
    """A 1x1 expansion, a depthwise 5x5 convolution, a 1x1 projection; batch norm around each.

    Args:
        in_channels: Channels of the input.
        expansion: How many times as many channels there are in between.
        doubles: Double the image and halve the channels.

    References:
        Vahdat and Kautz (2020), NVAE, figure 3a.
    """

    def __init__(self, in_channels: int, *, expansion: int = 6, doubles: bool = False) -> None:
        super().__init__()
        channels, hidden = in_channels // 2 if doubles else in_channels, expansion * in_channels
        plain: dict[str, Any] = {"bias": False, "normalized": False}
        self.skip = RegularizedConv2d(in_channels, channels, 1) if doubles else nn.Identity()
        self.expand = nn.Sequential(
            BatchNorm(in_channels),
            RegularizedConv2d(in_channels, hidden, 1, **plain),
            BatchNorm(hidden),
            nn.SiLU(),
        )
        self.project = nn.Sequential(
            RegularizedConv2d(hidden, hidden, 5, groups=hidden, **plain),
            BatchNorm(hidden),
            nn.SiLU(),
            RegularizedConv2d(hidden, channels, 1, **plain),
            BatchNorm(channels),
        )
        self.excitation = SqueezeExcitation(channels)
        self.doubles = doubles

    def forward(self, x: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch K h w"]:
        """Return the skip path plus a tenth of the branch."""
        skip, hidden = self.skip(x), self.expand(x)
        if self.doubles:
            # The published order doubles first. Copies of pixels, and interpolation with weights
            # that sum to one, commute with all that is done here, on a quarter of the pixels.
            skip = F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=True)
            hidden = F.interpolate(hidden, scale_factor=2)
        return self.excitation(self.project(hidden), skip)


class PosteriorCombiner(nn.Module):
    """Joins what the encoder and the decoder know of a group, and gives the posterior's numbers.

    Args:
        channels: Channels of both.
        outputs: Numbers a pixel.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.decoded = RegularizedConv2d(channels, channels, 1)
        self.output = RegularizedConv2d(channels, outputs, 3)

    def forward(
        self, encoded: Float[Tensor, "batch C H W"], decoded: Float[Tensor, "batch C H W"]
    ) -> Float[Tensor, "batch K H W"]:
        """Return the posterior's numbers."""
        return self.output(encoded + self.decoded(decoded))


class AutoregressiveShift(nn.Module):
    """A shift of each element of a map by a function of the elements before it.

    A masked 3x3, a masked depthwise 5x5 and a masked 1x1 convolution. "Before" is a raster scan,
    and within a pixel the order of its channels; mirrored, what comes after.

    Args:
        channels: Channels of the map.
        mirrored: Reverse the order.
        expansion: Hidden features of each channel.

    References:
        Vahdat and Kautz (2020), NVAE, section 3.4 and appendix A. Kingma et al. (2016), Improved
        variational inference with inverse autoregressive flow.
    """

    def __init__(self, channels: int, *, mirrored: bool = False, expansion: int = 6) -> None:
        super().__init__()
        hidden = expansion * channels

        def masked(
            inputs: int, outputs: int, size: int, kind: str, groups: int = 1
        ) -> RegularizedConv2d:
            # In a depthwise layer a feature sees itself alone, at its own place too.
            colours = channels if groups == 1 else 1
            make = partial(_whole_mask, kind=kind, num_groups=colours, mirrored=mirrored)
            mask = partial(make, inputs // groups, outputs, size)
            return RegularizedConv2d(inputs, outputs, size, groups=groups, mask=mask)

        self.first = masked(channels, hidden, 3, "A")
        self.middle = masked(hidden, hidden, 5, "B", groups=hidden)
        self.last = masked(hidden, channels, 1, "B")

    def forward(self, z: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch C H W"]:
        """Return the shifts."""
        return self.last(F.elu(self.middle(F.elu(self.first(z)))))


def _whole_mask(*sizes: int, kind: str, num_groups: int, mirrored: bool) -> Bool[Tensor, "..."]:
    """Return a causal mask with the rows below the centre, none of which is seen."""
    mask = causal_mask(*sizes, kind=kind, num_groups=num_groups)
    mask = F.pad(mask, (0, 0, 0, mask.shape[2] - 1))
    return mask.flip(0, 1, 2, 3) if mirrored else mask
