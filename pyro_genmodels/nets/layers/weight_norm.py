"""Convolution with normalised weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._typing import Float


class WeightNormConv2d(nn.Module):
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
        >>> import torch
        >>> WeightNormConv2d(2, 3, 3)(torch.zeros(5, 2, 7, 9)).shape
        torch.Size([5, 3, 7, 9])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        like = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias)
        self.direction = nn.Parameter(like.weight.detach().clone())
        self.length = nn.Parameter(self.direction.detach().flatten(1).norm(dim=1))
        self.bias = None if like.bias is None else nn.Parameter(like.bias.detach().clone())

    def forward(self, x: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch K H W"]:
        """Return the convolution."""
        return F.conv2d(x, with_length(self.direction, self.length), self.bias, padding="same")


def with_length(kernels: Float[Tensor, "K ..."], length: Float[Tensor, " K"]) -> Tensor:
    """Return the kernels brought to their lengths."""
    # One number for each kernel: the kernels themselves are scaled in a single pass.
    factor = length / kernels.flatten(1).norm(dim=1)
    return kernels * factor.reshape(-1, *(1,) * (kernels.dim() - 1))
