"""Weights of gated layers, and the products that evaluate them, colour by colour.

A gate is evaluated as in :mod:`pyro_genmodels.nets.gated_pixelcnn.layer_cache`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from pyro_genmodels.nets.autoregressive.row_cache import colour_products, group_views
from pyro_genmodels.nets.layers.masked_conv import MaskedRowConv2d


def gate_scale(like: Tensor, size: int) -> Tensor:
    """Return the factors of a gate's arguments: 1 for the tanh's half, 1/2 for the sigmoid's."""
    return torch.cat([like.new_ones(size // 2), like.new_full((size - size // 2,), 0.5)])


def gate_order(bounds: Sequence[int]) -> Tensor:
    """Return the columns of both halves, colour by colour.

    Example:
        >>> gate_order([0, 1, 3])
        tensor([0, 3, 1, 2, 4, 5])
    """
    halves = torch.arange(2 * bounds[-1]).view(2, -1)
    return torch.cat([halves[:, a:b].flatten() for a, b in itertools.pairwise(bounds)])


def branches(
    conv: MaskedRowConv2d,
    gated: Tensor,
    past: Sequence[Sequence[Tensor]],
    targets: Sequence[Sequence[Tensor]],
    *,
    doubled: bool = True,
) -> list[list[tuple[Tensor, ...]]]:
    """Return for each pixel and colour the arguments of the residual branch's product.

    A branch with a bias is a first layer's, which is added to nothing else.
    """
    products = colour_products(conv, gated, doubled=doubled)
    return [
        [
            (old if bias is None else bias, seen, weight, new)
            for old, (seen, weight, bias), new in zip(*pixel, strict=True)
        ]
        for pixel in zip(past, [products] * len(past), targets, strict=True)
    ]


def skip_products(
    convs: Sequence[MaskedRowConv2d], gated: Tensor, sums: Tensor
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return for each colour the bias, the factors and the target of the sum of all layers' skips.

    Args:
        convs: The layers' 1x1 convolutions, of which the first has a bias.
        gated: Gated features ``(batch, layers, channels)``.
        sums: Where the sum goes.
    """
    per_layer = [colour_products(conv, y) for conv, y in zip(convs, gated.unbind(1), strict=True)]
    targets = group_views(sums, convs[0].num_groups)
    return [
        (
            cast(Tensor, parts[0][2]),
            gated[..., : parts[0][0].shape[1]],
            torch.cat([weight for _, weight, _ in parts]),
            target,
        )
        for parts, target in zip(zip(*per_layer, strict=True), targets, strict=True)
    ]
