"""Products of a vector with the first n of many matrices, for all n, in about 2 log2(n) steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pyro_genmodels._typing import Bool, Float, Tensor

Product = Callable[[Tensor, Tensor], Tensor]
_FEW_STATES = 8


def scan_vectors(
    first: Float[Tensor, "N K"],
    transitions: Float[Tensor, "B S K K"],
    weights: Float[Tensor, "U N K"],
    *,
    scaled: bool,
) -> tuple[Float[Tensor, "T N K"], Bool[Tensor, " N"]]:
    """Return the vectors of ``v[t + 1] = (v[t] @ transitions[t]) * weights[t]``.

    Args:
        first: The first vectors.
        transitions: The matrices, positive.
        weights: What the products are multiplied by.
        scaled: Whether the vectors may get factors, which keeps them from underflow.

    Returns:
        The vectors, and which sequences have none that underflowed: all.
    """
    product = _scaled_product if scaled else torch.matmul
    by_sequence, start = weights.transpose(0, 1), first.unsqueeze(1)
    shared = transitions.shape[0] == transitions.shape[1] == 1
    if shared and len(weights) > 1 and first.shape[-1] <= _FEW_STATES:
        vectors = _from_pairs(start, transitions[0, 0], by_sequence, product)
    else:
        vectors = all_products(start, transitions * by_sequence.unsqueeze(-2), product)
    return vectors.transpose(0, 1), torch.ones_like(first[:, 0], dtype=torch.bool)


def _scaled_product(left: Tensor, right: Tensor) -> Tensor:
    product = left @ right
    return product / product.amax((-2, -1), keepdim=True)


def _from_pairs(first: Tensor, matrix: Tensor, weights: Tensor, product: Product) -> Tensor:
    """Return the vectors where all matrices are the same but for the weights.

    Products of pairs are one matrix product of weights with what the sum over the state between is
    of. For few states that takes a tenth of the time of as many small products.
    """
    number, states = weights.shape[1], weights.shape[-1]
    between = (matrix.T.unsqueeze(-1) * matrix.unsqueeze(1)).flatten(1)
    pairs = (weights[:, 0 : number - 1 : 2] @ between).unflatten(-1, (states, states))
    pairs = pairs * weights[:, 1::2].unsqueeze(-2)
    even = all_products(first, pairs, product)
    odd = (even[:, : (number + 1) // 2] @ matrix) * weights[:, ::2]
    return _interleaved(even, odd)


def all_products(
    first: Float[Tensor, "N 1 K"], matrices: Float[Tensor, "N n K K"], product: Product
) -> Float[Tensor, "N m K"]:
    """Return a row vector times the first 0, 1, ..., n matrices, shape ``(N, n + 1, K)``.

    Pairs of matrices are multiplied, the problem of half the length is solved, and the vectors
    between its own are filled in, all of them at once.

    Args:
        first: The row vectors.
        matrices: The matrices, in order.
        product: Product of matrices ``(N, n, I, K)`` and ``(N, n, K, K)``, in any semiring, up to a
            factor.
    """
    number = matrices.shape[1]
    if number == 0:
        return first
    even = first
    if number > 1:
        pairs = product(matrices[:, 0 : number - 1 : 2], matrices[:, 1::2])
        even = all_products(first, pairs, product)
    before = even[:, : (number + 1) // 2].unsqueeze(-2)
    return _interleaved(even, product(before, matrices[:, ::2]).squeeze(-2))


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    number = odd.shape[1]
    both = torch.stack([even[:, :number], odd], 2).flatten(1, 2)
    return both if even.shape[1] == number else torch.cat([both, even[:, -1:]], 1)
