"""Starts of components: k-means++ and Lloyd's iteration, with weights and missing elements."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from pyro_genmodels._typing import Float, Int, Tensor
from pyro_genmodels.models.em.gaussian.rows import Rows

_LLOYD_ITERATIONS = 20


def kmeans_plus_plus(
    distances: Callable[[Int[Tensor, " C"]], Float[Tensor, "C N"]],
    weights: Float[Tensor, " N"],
    num_components: int,
    generator: torch.Generator,
) -> Int[Tensor, " K"]:
    """Choose rows far from each other as centres, by greedy k-means++.

    Each next centre is the best of a few rows drawn in proportion to weight and squared distance
    from the centres before.

    Args:
        distances: From indices of rows to their squared distances from all rows.
        weights: Weights of the rows.
        num_components: Number of centres K.
        generator: Random numbers, on the CPU.

    Returns:
        Indices of the rows.

    References:
        Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding.

    Example:
        >>> x = torch.tensor([0.0, 0.1, 5.0, 5.1])
        >>> rows = kmeans_plus_plus(
        ...     lambda rows: (x[rows, None] - x).square(),
        ...     torch.ones(4, dtype=torch.float64),
        ...     2,
        ...     torch.Generator().manual_seed(0),
        ... )
        >>> sorted((x[rows] > 1).tolist())
        [False, True]
    """
    chosen = _draw(weights, 1, generator)
    nearest = distances(chosen)[0]
    num_candidates = 2 + int(math.log(num_components))
    for _ in range(num_components - 1):
        shares = weights * nearest
        # Fewer different rows than centres: any will do.
        shares = shares if bool(shares.sum() > 0) else weights
        candidates = _draw(shares, num_candidates, generator)
        reached = torch.minimum(distances(candidates), nearest)
        best = int((reached @ weights.to(reached)).argmin())
        nearest = reached[best]
        chosen = torch.cat([chosen, candidates[best : best + 1]])
    return chosen


def kmeans(
    rows: Rows, num_components: int, generator: torch.Generator
) -> tuple[Float[Tensor, "K D"], Float[Tensor, " D"]]:
    """Return centres of clusters, and the variance of each dimension within clusters.

    Distances are those of the observed elements, per element.

    Args:
        rows: Data.
        num_components: Number of clusters K.
        generator: Random numbers, on the CPU.
    """
    distances = _Distances(rows)
    chosen = kmeans_plus_plus(distances.between_rows, rows.weights, num_components, generator)
    centres, labels = rows.values[:, chosen].mT, None
    for _ in range(_LLOYD_ITERATIONS):
        reached = distances.to_centres(centres)
        nearest, new = reached.min(0)
        if labels is not None and torch.equal(new, labels):
            break
        labels = new
        centres = _means(rows, labels, centres, nearest)
    return centres, _within(rows, distances.to_centres(centres).argmin(0), centres)


class _Distances:
    """Squared distances of rows, per observed element."""

    def __init__(self, rows: Rows) -> None:
        self._values, self._seen = rows.values, rows.seen
        self._squares = rows.values.square().sum(0)
        self._sizes = None if rows.seen is None else rows.seen.sum(0).clamp_min(1)

    def to_centres(self, centres: Tensor) -> Tensor:
        """Return distances ``(K, N)`` from centres ``(K, D)``."""
        found = torch.addmm(self._squares, centres, self._values, alpha=-2)
        if self._seen is None or self._sizes is None:
            found += centres.square().sum(1, keepdim=True)
        else:
            found = (found + centres.square() @ self._seen) / self._sizes
        return found.clamp_min_(0.0)

    def between_rows(self, rows: Tensor) -> Tensor:
        """Return distances ``(C, N)`` from some rows, missing elements of which are mean ones."""
        return self.to_centres(self._values[:, rows].mT)


def _means(rows: Rows, labels: Tensor, centres: Tensor, nearest: Tensor) -> Tensor:
    """Return the means of clusters; an empty one gets the row farthest from its centre."""
    sums, counts = _sums(rows, rows.values, labels, len(centres))
    empty = (counts == 0).all(1)
    if bool(empty.any()):
        far = (nearest * (rows.weights > 0)).topk(min(int(empty.sum()), len(nearest))).indices
        replaced = empty.nonzero()[: len(far), 0]
        centres = centres.clone()
        centres[replaced] = rows.values[:, far].mT
    return torch.where(counts > 0, sums / counts.clamp_min(1e-300), centres)


def _within(rows: Rows, labels: Tensor, centres: Tensor) -> Tensor:
    """Return the variance of each dimension about the centres of its rows' clusters."""
    offset = rows.values - centres.mT[:, labels]
    weighted = rows.weights if rows.seen is None else rows.weights * rows.seen
    variances = (weighted * offset.square()).sum(1) / weighted.expand_as(offset).sum(1)
    # As many clusters as different rows leave none: then a small part of the data's.
    return torch.maximum(variances, (4 * rows.smallest_variance).clamp_min(1e-6))


def _sums(rows: Rows, values: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return weighted sums ``(K, D)`` of clusters, and weights of what was observed there."""
    members = rows.values.new_zeros(number, rows.num_rows)
    members.scatter_(0, labels[None], rows.weights[None])
    seen = members.sum(1, keepdim=True) if rows.seen is None else members @ rows.seen.mT
    return members @ values.mT, seen.expand(number, rows.num_dimensions)


def _draw(shares: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return indices drawn in proportion to shares."""
    # By inversion, so that a row of weight 2 and the same row twice in succession draw alike.
    cumulative = shares.double().cumsum(0)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64).to(cumulative.device)
    index = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
    return index.clamp_max(len(shares) - 1)
