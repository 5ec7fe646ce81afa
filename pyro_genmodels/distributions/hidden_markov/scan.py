"""Products of a vector with the first n of many matrices, for all n, in about 2 log2(n) steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pyro_genmodels._typing import Float, Tensor

Product = Callable[[Tensor, Tensor], Tensor]


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
    if number == 1:
        return torch.cat([first, _times(first, matrices, product)], 1)
    pairs = product(matrices[:, 0 : number - 1 : 2], matrices[:, 1::2])
    even = all_products(first, pairs, product)
    before = even if number % 2 else even[:, :-1]
    odd = _times(before, matrices[:, ::2], product)
    both = torch.stack([before, odd], 2).flatten(1, 2)
    return both if number % 2 else torch.cat([both, even[:, -1:]], 1)


def _times(vectors: Tensor, matrices: Tensor, product: Product) -> Tensor:
    return product(vectors.unsqueeze(-2), matrices).squeeze(-2)
