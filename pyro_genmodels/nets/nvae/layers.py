"""Layers of NVAE's cells: regularised convolutions, batch norm, squeeze-excitation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers.derived_buffers import DerivedBuffers

_BATCH_NORM_MOMENTUM = 0.05
_NORM_OFFSET = 1e-5


class RegularizedConv2d(DerivedBuffers):
    r"""A convolution whose kernel the spectral regulariser sees, as it is applied.

    With normalisation, kernel k is :math:`e^{\lambda_k} v_k / (\|v_k\| + 10^{-5})`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd size of the kernel; at stride 1 the image keeps its size.
        stride: Stride along both axes.
        groups: Groups of channels that do not see each other.
        bias: Add a bias.
        normalized: Give the kernels a learned length.
        mask: Makes the mask of the taps that are used, of the kernel's shape; all by default.

    References:
        Salimans and Kingma (2016), Weight Normalization, eq. 3.
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        normalized: bool = True,
        mask: Callable[[], Tensor] | None = None,
    ) -> None:
        super().__init__()
        like = nn.Conv2d(in_channels, out_channels, kernel_size, groups=groups, bias=bias)
        self.stride, self.padding, self.groups = stride, kernel_size // 2, groups
        self.weight, self.bias = like.weight, like.bias
        self.is_masked = mask is not None
        if mask is not None:
            self.register_derived("mask", mask)
        self.log_length: nn.Parameter | None = None
        if normalized:
            lengths = torch.linalg.vector_norm(self._masked().detach(), dim=(1, 2, 3), keepdim=True)
            self.log_length = nn.Parameter(lengths.clamp_min(_NORM_OFFSET).log())

    def kernel(self) -> Float[Tensor, "out in rows columns"]:
        """Return the kernel as it is applied."""
        masked = self._masked()
        if self.log_length is None:
            return masked
        length = torch.linalg.vector_norm(masked, dim=(1, 2, 3), keepdim=True)
        # One number a kernel: the kernels themselves are scaled in a single pass.
        factor: Tensor = self.log_length.exp() / (length + _NORM_OFFSET)
        return masked * factor

    def _masked(self) -> Tensor:
        return self.weight * self.mask if self.is_masked else self.weight

    def forward(self, x: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch K h w"]:
        """Return the convolution."""
        kernel = self.kernel()
        return F.conv2d(x, kernel, self.bias, self.stride, self.padding, groups=self.groups)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm with NVAE's momentum, that counts no batches."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=_BATCH_NORM_MOMENTUM)

    def forward(self, input: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch C H W"]:
        """Return the normalised, scaled and shifted input."""
        mean, variance = self.running_mean, self.running_var
        momentum = self.momentum or 0.0
        return F.batch_norm(
            input, mean, variance, self.weight, self.bias, self.training, momentum, self.eps
        )


class SqueezeExcitation(nn.Module):
    """Gates channels by what their means over the image say; adds the result to a skip path.

    Args:
        channels: Channels of branch and skip path.

    References:
        Hu et al. (2018), Squeeze-and-excitation networks, section 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(
        self, branch: Float[Tensor, "batch C H W"], skip: Float[Tensor, "batch C H W"]
    ) -> Float[Tensor, "batch C H W"]:
        """Return the skip path plus a tenth of the gated branch."""
        gate = self.gate(branch.mean((2, 3)))[..., None, None]
        return torch.addcmul(skip, branch, gate, value=0.1)


class FactorizedReduce(nn.Module):
    """Halves the image: four 1x1 convolutions, each of one pixel of four.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a quarter of each convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        quarter = out_channels // 4
        sizes = (quarter, quarter, quarter, out_channels - 3 * quarter)
        self.parts = nn.ModuleList(RegularizedConv2d(in_channels, size, 1) for size in sizes)

    def forward(self, x: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch K h w"]:
        """Return the halved image."""
        x = F.silu(x)
        # The pixels first, then 1x1 convolutions. With a stride of 2 the sums are the same, but
        # torch 2.14 on one CPU thread writes outside its memory in the backward pass.
        offsets = ((0, 0), (1, 1), (0, 1), (1, 0))
        shifted = (x[:, :, down::2, right::2] for down, right in offsets)
        return torch.cat([part(y) for part, y in zip(self.parts, shifted, strict=True)], 1)
