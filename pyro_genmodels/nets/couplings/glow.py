"""The network of Glow's couplings and priors: convolutions that see the border."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.nets.layers.context import ConditionalNet, add_features
from pyro_genmodels.nets.layers.data_dependent_init import (
    FirstData,
    is_frozen,
    set_values,
    standardizing,
)
from pyro_genmodels.nets.layers.mlp import make_dropout


class EdgeConv2d(nn.Module):
    """Convolution whose zero padding is marked by one more input channel, 1 outside the image.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the result.
        kernel_size: Odd size of the kernel; a kernel of 1 has no border to mark.
        std: Deviation of the initial weights.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, std: float = 0.05
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape) * std)
        # The marks' kernel is apart, since a part of a kernel would be copied at each call.
        marked = (out_channels, 1, kernel_size, kernel_size)
        self.edge = nn.Parameter(torch.randn(marked) * std) if kernel_size > 1 else None

    def _convolve(self, x: Tensor, weight: Tensor, edge: Tensor | None, bias: Tensor) -> Tensor:
        if edge is None:
            return F.conv2d(x, weight, bias)
        padding = self.kernel_size // 2
        marks = F.pad(x.new_zeros(1, 1, *x.shape[-2:]), (padding,) * 4, value=1.0)
        if x.shape[1] < len(weight):  # one more of few channels is cheaper than a sum of many
            marked = torch.cat([F.pad(x, (padding,) * 4), marks.expand(len(x), -1, -1, -1)], dim=1)
            return F.conv2d(_channels_last(marked), torch.cat([weight, edge], dim=1), bias)
        return F.conv2d(x, weight, padding=padding) + F.conv2d(marks, edge, bias)


def _channels_last(x: Tensor) -> Tensor:
    """Put a pixel's channels side by side in memory, where convolutions on a CPU are faster."""
    # Not by `contiguous(memory_format=...)`, which vmap does not know.
    if x.device.type != "cpu":
        return x
    if x.dtype == torch.float64:
        return x.contiguous()  # torch's double convolution is no faster, and not under vmap(grad)
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


class NormalizedConv2d(EdgeConv2d):
    """Convolution whose result is scaled and shifted, at first to mean 0 and deviation 1 on data.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the result.
        kernel_size: Odd size of the kernel.
        log_scale_factor: The log-scale learns this much faster.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, log_scale_factor: float
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.log_scale_factor = log_scale_factor
        self.first_data = FirstData()
        self.shift = nn.Parameter(torch.zeros(out_channels))
        self.log_scale = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised convolution; the first data in training set its scale and shift."""
        if self.first_data.is_due and not is_frozen(self):
            self._standardize(x)
        scale = torch.exp(self.log_scale_factor * self.log_scale)
        # Scales go into the kernels, which are smaller than the image that they would pass.
        of_kernel = scale[:, None, None, None]
        edge = None if self.edge is None else self.edge * of_kernel
        return self._convolve(x, self.weight * of_kernel, edge, self.shift * scale)

    @torch.no_grad()
    def _standardize(self, x: Tensor) -> None:
        result = self._convolve(x, self.weight, self.edge, torch.zeros_like(self.shift))
        shift, log_scale = standardizing(result, 1)
        set_values(self.shift, shift)
        set_values(self.log_scale, log_scale / self.log_scale_factor)
        self.first_data.done()


class ZeroConv2d(EdgeConv2d):
    """Convolution that starts at zero, with a learned scale of each channel.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the result.
        kernel_size: Odd size of the kernel.
        log_scale_factor: The log-scale learns this much faster.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, log_scale_factor: float
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, std=0.0)
        self.log_scale_factor = log_scale_factor
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.log_scale = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled convolution."""
        scale = torch.exp(self.log_scale_factor * self.log_scale)
        return self._convolve(x, self.weight, self.edge, self.bias) * scale[:, None, None]


class GlowNet(ConditionalNet):
    """Three convolutions, 3x3, 1x1 and 3x3, as in Glow's couplings; the last starts at zero.

    The first two are normalised by the first data they see in training. Border pixels are told
    apart by a mark on the padding. A context is added to the first convolution's result.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden_channels: Channels in between; none of the first two convolutions if 0, which is
            the network of Glow's split priors.
        dropout: Probability of dropping a hidden unit in training; not in the paper.
        log_scale_factor: Log-scales learn this much faster.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or maps ``(C, H, W)``; a map of another size
            is resampled by averaging.

    Raises:
        ValueError: If a size is not positive, or there is a context without hidden channels.

    Shape:
        ``(*batch, in_channels, H, W)`` to ``(*batch, out_channels, H, W)``.

    References:
        Kingma and Dhariwal (2018), Glow, section 3.3 and its code.
        https://arxiv.org/abs/1807.03039

    Example:
        >>> GlowNet(6, 12, hidden_channels=16)(torch.zeros(2, 5, 6, 7, 9)).shape
        torch.Size([2, 5, 12, 7, 9])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int = 512,
        dropout: float = 0.0,
        log_scale_factor: float = 3.0,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels)
        check(hidden_channels >= 0, "hidden_channels", "not be negative", hidden_channels)
        conditional = num_classes is not None or context_shape is not None
        rule = "be positive in a conditional network"
        check(hidden_channels > 0 or not conditional, "hidden_channels", rule, hidden_channels)
        self._take_context(max(hidden_channels, 1), num_classes, context_shape)
        factor = {"log_scale_factor": log_scale_factor}
        self.hidden = nn.ModuleList()
        if hidden_channels:
            self.hidden.append(NormalizedConv2d(in_channels, hidden_channels, 3, **factor))
            self.hidden.append(NormalizedConv2d(hidden_channels, hidden_channels, 1, **factor))
        self.dropout = make_dropout(dropout)
        self.last = ZeroConv2d(hidden_channels or in_channels, out_channels, 3, **factor)

    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        if not len(self.hidden):
            return cast(Tensor, self.last(x))
        first, second = self.hidden
        h = F.relu(add_features(first(x), features), inplace=True)
        h = F.relu(second(h), inplace=True)
        return cast(Tensor, self.last(self.dropout(h)))
