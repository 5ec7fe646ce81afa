"""Convolutions with a 1x1 kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of maps ``(N, C, H, W)`` with a kernel ``(O, C, 1, 1)``.

    On the processor, for the narrow layers of autoregressive networks, ``conv2d`` takes up to twice
    as long as the matrix products that it is. Their gradient holds a kernel for each image, so that
    a kernel for more features than the map has places is left to ``conv2d``.
    """
    if x.device.type != "cpu" or weight.shape[1] > x.shape[2] * x.shape[3]:
        return F.conv2d(x, weight, bias)
    kernels, flat = weight.flatten(1).expand(len(x), -1, -1), x.flatten(2)
    if bias is None:
        product = torch.bmm(kernels, flat)
    else:
        product = torch.baddbmm(bias[:, None], kernels, flat)
    return product.unflatten(2, x.shape[2:])
