"""The network of Glow's couplings and priors: convolutions that see the border."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets._batch import over_batch
from pyro_genmodels.nets._first_data import FirstData, set_values, standardizing
from pyro_genmodels.nets.context import ContextEmbedding


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
        marks = 1 if kernel_size > 1 else 0
        shape = (out_channels, in_channels + marks, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape) * std)

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Return ``scale * convolution(x) + bias``, one number for each channel of the result."""
        weight = self.weight * scale[:, None, None, None]
        if self.kernel_size == 1:
            return F.conv2d(x, weight, bias)
        border = self._border(x, weight[:, -1:])
        return F.conv2d(x, weight[:, :-1], bias, padding=self.kernel_size // 2) + border

    def _border(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return what the marks add: one small image for the whole batch."""
        around = (self.kernel_size // 2,) * 4
        marks = F.pad(x.new_zeros(1, 1, *x.shape[-2:]), around, value=1.0)
        return F.conv2d(marks, weight)


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

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return the normalised convolution; the first data in training set its scale and shift."""
        if self.first_data.is_due:
            self._standardize(x)
        # Scale and shift go into the kernel, which is smaller than the image that they would pass.
        scale = torch.exp(self.log_scale_factor * self.log_scale)
        return super().forward(x, scale, self.shift * scale)

    @torch.no_grad()
    def _standardize(self, x: Tensor) -> None:
        shift, log_scale = standardizing(
            super().forward(x, torch.ones_like(self.shift), torch.zeros_like(self.shift)), 1
        )
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

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return the scaled convolution."""
        scale = torch.exp(self.log_scale_factor * self.log_scale)
        return super().forward(x, scale, self.bias * scale)


class GlowNet(Configured, nn.Module):
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
        ValueError: If a size is not positive, both kinds of context are given, or one of them
            without hidden channels.

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
        self.context = ContextEmbedding(
            max(hidden_channels, 1), num_classes=num_classes, context_shape=context_shape
        )
        self.num_classes, self.context_shape = num_classes, self.context.context_shape
        factor = {"log_scale_factor": log_scale_factor}
        self.hidden = nn.ModuleList()
        if hidden_channels:
            self.hidden.append(NormalizedConv2d(in_channels, hidden_channels, 3, **factor))
            self.hidden.append(NormalizedConv2d(hidden_channels, hidden_channels, 1, **factor))
        self.dropout = nn.Dropout(dropout)
        self.last = ZeroConv2d(hidden_channels or in_channels, out_channels, 3, **factor)

    def forward(
        self, x: Float[Tensor, "*batch C H W"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*output K H W"]:
        """Return ``(*batch, out_channels, H, W)``; the batch shapes broadcast."""
        features = self.context(context, size=x.shape[-2:])
        if features is not None and self.context.event_dim != 3:
            features = features[..., None, None]
        return over_batch(self._evaluate, (x, 3), (features, 3))

    def _evaluate(self, h: Tensor, features: Tensor | None) -> Tensor:
        for index, layer in enumerate(self.hidden):
            h = layer(h)
            if index == 0 and features is not None:
                h = h + features
            h = F.relu(h, inplace=True)
        if self.training and self.dropout.p > 0:
            h = self.dropout(h)
        output: Tensor = self.last(h)
        return output
