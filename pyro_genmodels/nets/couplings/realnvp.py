"""The network of RealNVP's image couplings, as published."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check_positive
from pyro_genmodels.nets.layers.context import ConditionalNet, add_features
from pyro_genmodels.nets.layers.mlp import set_to_zero
from pyro_genmodels.nets.layers.weight_norm import WeightNormConv2d


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        self.convs = nn.ModuleList(WeightNormConv2d(channels, channels, 3) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        branch = h
        for norm, conv in zip(self.norms, self.convs, strict=True):
            branch = conv(F.relu(norm(branch)))
        return h + branch


class RealNVPNet(ConditionalNet):
    """Residual network with batch norm, weight norm and skip connections to its output.

    It sees the input with both signs, and a channel that marks the checkerboard. The last layer
    starts at zero. A context is added to the first convolution's result. In training the output
    for one image depends on the others of its batch.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden_channels: Channels of the blocks.
        num_blocks: Number of residual blocks.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or maps ``(C, H, W)``; a map of another size
            is resampled by averaging.

    Raises:
        ValueError: If a size is not positive.

    Shape:
        ``(*batch, in_channels, H, W)`` to ``(*batch, out_channels, H, W)``.

    References:
        Dinh et al. (2017), RealNVP, sections 3.7 and 4.1, and its code.
        https://arxiv.org/abs/1605.08803

    Example:
        >>> RealNVPNet(3, 6, hidden_channels=16)(torch.zeros(2, 5, 3, 7, 9)).shape
        torch.Size([2, 5, 6, 7, 9])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int = 64,
        num_blocks: int = 8,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels)
        check_positive(hidden_channels=hidden_channels, num_blocks=num_blocks)
        self._take_context(hidden_channels, num_classes, context_shape)
        self.norm = nn.BatchNorm2d(in_channels, affine=False)
        self.first = WeightNormConv2d(2 * in_channels + 1, hidden_channels, 3)
        self.blocks = nn.ModuleList(_Block(hidden_channels) for _ in range(num_blocks))
        sizes = (hidden_channels, hidden_channels, 1)
        self.skips = nn.ModuleList(WeightNormConv2d(*sizes) for _ in range(num_blocks + 1))
        self.last_norm = nn.BatchNorm2d(hidden_channels)
        self.last = nn.Conv2d(hidden_channels, out_channels, 1)
        set_to_zero(self.last)

    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        x = 2 * self.norm(x)
        h = self.first(F.relu(torch.cat([x, -x, _checkerboard(x)], dim=1)))
        h = add_features(h, features)
        skipped = self.skips[0](h)
        for block, skip in zip(self.blocks, list(self.skips)[1:], strict=True):
            h = block(h)
            skipped = skipped + skip(h)
        return self.last(F.relu(self.last_norm(skipped)))


def _checkerboard(x: Tensor) -> Tensor:
    """Return a channel that is 1 where row and column add up to an even number."""
    rows = torch.arange(x.shape[-2], device=x.device)[:, None]
    columns = torch.arange(x.shape[-1], device=x.device)
    marks = ((rows + columns) % 2 == 0).to(x.dtype)
    return marks.expand(x.shape[0], 1, *marks.shape)
