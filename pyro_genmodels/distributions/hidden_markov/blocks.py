"""Passes over all blocks of a sequence at once, with the transitions that all frames share.

Of about sqrt(T) blocks of sqrt(T) frames: the product of each block's matrices, then the vectors at
the blocks' ends one after the other, then those inside all blocks. That takes 3 sqrt(T) steps in
the place of T, and matrices of ``(blocks * K, K)`` in the place of many small ones.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import pad

from pyro_genmodels._typing import Bool, Float, Tensor

# Probabilities are divided by their sum at every so many frames. In between they get smaller, but
# in float32 digits are lost below 1e-19 only, the root of its smallest number.
FRAMES_UNSCALED = 4


def least(dtype: torch.dtype) -> float:
    """Return below what a sum of products has lost digits to underflow."""
    return float(torch.finfo(dtype).tiny ** 0.5)


def block_vectors(
    first: Float[Tensor, "N K"],
    transitions: Float[Tensor, "1 1 K K"],
    weights: Float[Tensor, "U N K"],
    *,
    scaled: bool,
) -> tuple[Float[Tensor, "T N K"], Bool[Tensor, " N"]]:
    """Return the vectors of ``v[t + 1] = (v[t] @ transitions) * weights[t]``.

    Arguments and results are those of :func:`.scan_vectors`.
    """
    matrix, (steps, number, states) = transitions[0, 0].contiguous(), weights.shape
    size = max(1, math.isqrt(steps))
    blocks = max(1, -(-steps // size))
    weights = pad(weights, (0, 0, 0, 0, 0, size * blocks - steps), value=1.0)
    # Place in the block first, then the block, then the sequence.
    weights = weights.unflatten(0, (blocks, size)).transpose(0, 1).contiguous().flatten(1, 2)
    products, whole = _block_products(matrix, weights, scaled=scaled)
    rows = weights.new_empty(size + 1, blocks * number, states)
    starts = rows[0].view(blocks, number, 1, states).unbind()
    starts[0].copy_(first.unsqueeze(1))
    for i, block in enumerate(products.view(blocks, number, states, states)[:-1].unbind()):
        torch.bmm(starts[i], block, out=starts[i + 1])
        if scaled:
            starts[i + 1].div_(starts[i + 1].sum(-1, keepdim=True))
    of_row = rows.unbind()
    for j, weight in enumerate(weights.unbind()):
        torch.mm(of_row[j], matrix, out=of_row[j + 1]).mul_(weight)
        if scaled and j % FRAMES_UNSCALED == 0:
            of_row[j + 1].div_(of_row[j + 1].sum(-1, keepdim=True))
    inner = rows[1:].unflatten(1, (blocks, number)).transpose(0, 1).flatten(0, 1)[:steps]
    return torch.cat([first[None], inner]), whole.view(blocks, number).all(0)


def _block_products(
    matrix: Float[Tensor, "K K"], weights: Float[Tensor, "S M K"], *, scaled: bool
) -> tuple[Float[Tensor, "M K K"], Bool[Tensor, " M"]]:
    """Return the product of each block's matrices, and in which no scale underflowed."""
    product = matrix * weights[0].unsqueeze(1)
    other, smallest = torch.empty_like(product), torch.ones_like(product[:, 0, 0])
    flat, other_flat = product.flatten(0, 1), other.flatten(0, 1)
    for j, weight in enumerate(weights[1:].unsqueeze(2).unbind(), 1):
        torch.mm(flat, matrix, out=other_flat)
        product, other, flat, other_flat = other.mul_(weight), product, other_flat, flat
        if scaled and j % FRAMES_UNSCALED == 0:
            largest = product.amax((-2, -1), keepdim=True)
            product.div_(largest)
            smallest = torch.minimum(smallest, largest.flatten())
    return product, smallest >= least(product.dtype)
