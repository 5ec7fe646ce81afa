"""Convolution with normalised weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Float


class WeightNormConv2d(Configured, nn.Module):
    r"""Convolution whose kernels have a learned length: :math:`w_k = g_k\, v_k / \|v_k\|`.

    Not by torch's parametrization, whose modules cannot be pickled.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd size of the kernel; the image keeps its size.
        bias: Add a bias.

    References:
        Salimans and Kingma (2016), Weight Normalization, eq. 2. https://arxiv.org/abs/1602.07868

    Example:
        >>> WeightNormConv2d(2, 3, 3)(torch.zeros(5, 2, 7, 9)).shape
        torch.Size([5, 3, 7, 9])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        like = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias)
        self.direction = nn.Parameter(like.weight.detach().clone())
        self.length = nn.Parameter(_norm(self.direction.detach()))
        self.bias = None if like.bias is None else nn.Parameter(like.bias.detach().clone())

    def forward(self, x: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch K H W"]:
        """Return the convolution."""
        # One number for each kernel: the kernels themselves are scaled in a single pass.
        factor = self.length / _norm(self.direction)
        return F.conv2d(x, self.direction * factor, self.bias, padding="same")


def _norm(kernels: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(kernels, dim=(1, 2, 3), keepdim=True)
    return norm
