"""Weights of gated layers, and the products that evaluate them, colour by colour.

A gate is evaluated as in :mod:`pyro_genmodels.nets.gated_pixelcnn.layer_cache`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_genmodels.nets.autoregressive.row_cache import colour_products
from pyro_genmodels.nets.layers.masked_conv import MaskedRowConv2d


def gate_scale(like: Tensor, size: int) -> Tensor:
    """Return the factors of a gate's arguments: 1 for the tanh's half, 1/2 for the sigmoid's."""
    return torch.cat([like.new_ones(size // 2), like.new_full((size - size // 2,), 0.5)])


def branches(
    conv: MaskedRowConv2d,
    gated: Tensor,
    past: Sequence[Sequence[Tensor]],
    targets: Sequence[Sequence[Tensor]],
    *,
    scale: float = 0.5,
) -> list[list[tuple[Tensor, ...]]]:
    """Return for each pixel and colour the arguments of the residual branch's product.

    A branch with a bias is a first layer's, which is added to nothing else.
    """
    products = colour_products(conv, gated, scale=scale)
    return [
        [
            (old if conv.bias is None else bias, seen, weight, new)
            for old, (seen, weight, bias), new in zip(*pixel, strict=True)
        ]
        for pixel in zip(past, [products] * len(past), targets, strict=True)
    ]
