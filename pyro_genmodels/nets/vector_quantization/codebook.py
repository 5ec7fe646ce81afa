"""The arithmetic of codebooks: nearest codes, sums per code, k-means, and where codes are short."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_genmodels._typing import Float, Int

# Scores held at a time. Smaller pieces are no faster, and on a busy CPU their threads wait for each
# other at every piece.
_SCORES = {"cpu": 2**23}
_SCORES_ON_ACCELERATORS = 2**26
_SEEDING_ROUNDS = 64
_TOWARDS = 0.1  # how far from its new neighbour a restarted code is put, towards the data


@torch.no_grad()
def nearest(vectors: Float[Tensor, "n D"], codebook: Float[Tensor, "K D"]) -> Int[Tensor, " n"]:
    r"""Return the index of the code nearest to each vector, the first of equals.

    As :math:`\arg\max_k\; x \cdot e_k - |e_k|^2 / 2`, some rows at a time: memory does not grow
    with ``n`` times ``K``.
    """
    # Centred: for data far from the origin the squares would swallow the differences.
    center = codebook.mean(0)
    codebook = codebook - center
    bias = codebook.square().sum(1) / -2
    rows = max(1, _SCORES.get(vectors.device.type, _SCORES_ON_ACCELERATORS) // len(codebook))
    codes = torch.empty(len(vectors), dtype=torch.long, device=vectors.device)
    scores = vectors.new_empty(min(rows, len(vectors)), len(codebook))
    with torch.autocast(vectors.device.type, enabled=False):
        for start in range(0, len(vectors), rows):
            chunk = vectors[start : start + rows] - center
            torch.addmm(bias, chunk, codebook.T, out=scores[: len(chunk)])
            torch.argmax(scores[: len(chunk)], 1, out=codes[start : start + rows])
    return codes


def totals(
    vectors: Float[Tensor, "n D"], codes: Int[Tensor, " n"], num_codes: int
) -> tuple[Float[Tensor, " K"], Float[Tensor, "K D"]]:
    """Return how many vectors each code was chosen for, and their sum."""
    counts = torch.bincount(codes, minlength=num_codes).to(vectors.dtype)
    sums = vectors.new_zeros(num_codes, vectors.shape[-1]).index_add_(0, codes, vectors)
    return counts, sums


class Split(NamedTuple):
    """Codes to move (``rows``), the codes whose cells they divide, and where they go."""

    rows: Tensor
    parents: Tensor
    vectors: Tensor


def split(
    vectors: Float[Tensor, "n D"],
    codes: Int[Tensor, " n"],
    codebook: Float[Tensor, "K D"],
    unused: Tensor,
) -> Split:
    """Choose where unused codes are of most use: beside the codes of badly coded vectors.

    Vectors are drawn in proportion to their squared error, without replacement. A code goes not
    onto the vector but a little from the vector's code towards it, so that it takes over about
    half of that cell. In many dimensions a code put onto a data point would die again at once: a
    mean is nearer to nearly every vector than another data point is.

    Args:
        vectors: Vectors just quantised.
        codes: Their codes.
        codebook: The codes.
        unused: ``(K,)``, the codes to move.
    """
    errors = (vectors - codebook[codes]).square().sum(1)
    drawn = _drawn(errors, min(int(unused.sum()), len(errors)))
    # Without an error there is nothing to gain: as many codes as there are different vectors.
    drawn = drawn[errors[drawn] > 0]
    parents = codes[drawn]
    moved = torch.lerp(codebook[parents], vectors[drawn], _TOWARDS)
    return Split(unused.nonzero().squeeze(1)[: len(drawn)], parents, moved)


@torch.no_grad()
def kmeans(
    vectors: Float[Tensor, "n D"], num_codes: int, *, iterations: int = 10
) -> Float[Tensor, "K D"]:
    """Return ``num_codes`` cluster centres, by Lloyd's algorithm with empty cells refilled.

    There must be at least ``num_codes`` vectors.
    """
    centers = _seeds(vectors, num_codes)
    for _ in range(iterations):
        codes = nearest(vectors, centers)
        counts, sums = totals(vectors, codes, num_codes)
        empty = counts == 0
        centers = torch.where(empty[:, None], centers, sums / counts.clamp_min(1)[:, None])
        moved = split(vectors, codes, centers, empty)
        centers[moved.rows] = moved.vectors
    return centers


def _seeds(vectors: Tensor, num_codes: int) -> Tensor:
    """Draw vectors far from each other: k-means++, several at a time if there are many.

    Arthur and Vassilvitskii (2007); Bahmani et al. (2012), Scalable k-means++.
    """
    errors = vectors.new_ones(len(vectors))
    found: list[Tensor] = []
    for share in torch.arange(num_codes).tensor_split(min(num_codes, _SEEDING_ROUNDS)):
        fresh = _drawn(errors, len(share))
        found.append(fresh)
        distances = torch.cdist(vectors, vectors[fresh]).min(1).values.square()
        errors = distances if len(found) == 1 else torch.minimum(errors, distances)
        errors[torch.cat(found)] = -1.0  # never twice
    return vectors[torch.cat(found)]


def _drawn(weights: Tensor, count: int) -> Tensor:
    """Draw indices in proportion to weights, without replacement."""
    # The largest of weight / Exponential(1): Efraimidis and Spirakis (2006).
    return (weights / torch.empty_like(weights).exponential_()).topk(count).indices
