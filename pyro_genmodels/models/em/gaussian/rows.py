"""Training rows in standard units: what Gaussian components are fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from pyro_genmodels._checks import check, check_finite, listed
from pyro_genmodels._typing import Bool, Float, Int, Tensor

_ROUNDING = 8 * torch.finfo(torch.float64).eps
_CONSTANT = 64 * _ROUNDING  # a spread below it, as a fraction of the largest value, is rounding


class Patterns(NamedTuple):
    """Rows with P patterns of missing elements that have n rows each.

    Attributes:
        rows: Their indices.
        seen: Whether each dimension was observed.
        values: What was observed, one column per row, and 0 elsewhere.
    """

    rows: Int[Tensor, "P n"]
    seen: Bool[Tensor, "P D"]
    values: Float[Tensor, "P D n"]


class Rows:
    """Rows shifted by the data's mean and divided by its standard deviation, in float64.

    Subtracting the mean once keeps second moments accurate for data far from zero, and in units of
    the data's own spread no threshold depends on the user's units. Values are stored with one
    column per row, since all products then run along the longest dimension.

    Args:
        x: Data ``(N, D)``; NaN is a missing element.
        weights: Weight of each row; 1 by default. A weight of 2 is the row twice.
        scale: One standard deviation for each dimension, or one for all of them (spherical
            covariances are not spherical in other units).

    Raises:
        ValueError: If ``x`` or a weight is infinite or negative, there are no rows, or a column is
            constant or never observed; the message names it.
    """

    def __init__(
        self,
        x: Float[Tensor, "N D"],
        weights: Float[Tensor, " N"] | None = None,
        *,
        scale: Literal["per_dimension", "shared"] = "per_dimension",
    ) -> None:
        check_finite("x", x, missing=True)
        self.weights = checked_weights(weights, x)
        values, seen = x.double().mT.contiguous(), ~x.mT.isnan()
        weighted = self.weights * seen
        total = weighted.sum(1, keepdim=True)
        self._check_columns(values, weighted > 0, shared=scale == "shared")
        filled = values.where(seen, 0.0)
        shift = (weighted * filled).sum(1, keepdim=True) / total
        centred = (filled - shift).where(seen, 0.0)
        # What rounding left of the mean: data at 1e6 have a spread of 1e-10 there.
        rest = (weighted * centred).sum(1, keepdim=True) / total
        shift, centred = shift + rest, (centred - rest).where(seen, 0.0)
        squares = (weighted * centred.square()).sum(1, keepdim=True)
        if scale == "shared":
            spread = (squares.sum() / total.sum()).sqrt().expand_as(squares)
        else:
            spread = (squares / total).sqrt()
        self.shift, self.scale = shift[:, 0], spread[:, 0]
        largest = filled.abs().amax(1)
        flat = self.scale <= _CONSTANT * largest
        self._check_varied(flat & flat.all() if scale == "shared" else flat)
        self.values = centred / spread
        self.smallest_variance = (_ROUNDING * largest / self.scale).square()
        complete = bool(seen.all())
        self.seen = None if complete else seen.double()
        self.patterns = [] if complete else self._grouped(seen)
        log_volume = self.scale.log() + 0.5 * math.log(2 * math.pi)
        self.log_volume = log_volume.sum() if complete else log_volume @ seen.double()

    @property
    def num_rows(self) -> int:
        """Number of rows N."""
        return self.values.shape[1]

    @property
    def num_dimensions(self) -> int:
        """Number of dimensions D."""
        return self.values.shape[0]

    @property
    def empty(self) -> float:
        """Sum of responsibilities below which a component has no rows."""
        return 1e-6 * float(self.weights.sum()) / int((self.weights > 0).sum())

    @staticmethod
    def _check_columns(values: Tensor, counted: Tensor, *, shared: bool) -> None:
        low = values.where(counted, torch.inf).amin(1)
        high = values.where(counted, -torch.inf).amax(1)
        rule = "have an observed value in every column"
        check(not bool((low > high).any()), "x", rule, _columns(low > high))
        flat = low == high
        # A spherical covariance takes its variance from all columns together.
        Rows._check_varied(flat & flat.all() if shared else flat)

    @staticmethod
    def _check_varied(flat: Tensor) -> None:
        rule = "vary in every column, since a Gaussian density has no maximum where it does not"
        check(not bool(flat.any()), "x", rule, f"constant {_columns(flat)}")

    def _grouped(self, seen: Tensor) -> list[Patterns]:
        kinds, kind, counts = seen.mT.unique(dim=0, return_inverse=True, return_counts=True)
        first = counts.cumsum(0) - counts
        order = kind.argsort(stable=True)
        patterns = []
        for count in counts.unique().tolist():
            same = (counts == count).nonzero()[:, 0]
            rows = order[first[same, None] + torch.arange(count, device=order.device)]
            patterns.append(Patterns(rows, kinds[same], self.values[:, rows].transpose(0, 1)))
        return patterns


def checked_weights(weights: Tensor | None, x: Tensor) -> Float[Tensor, " N"]:
    """Return the weights of rows in float64, 1 by default.

    Args:
        weights: Weights ``(N,)``, or None.
        x: Data, one row per weight.

    Raises:
        ValueError: If there are no rows, or weights are negative, not finite, all zero, or not one
            per row.
    """
    check(len(x) > 0, "x", "have at least one row", tuple(x.shape))
    if weights is None:
        return torch.ones(len(x), dtype=torch.float64, device=x.device)
    shape = tuple(weights.shape)
    check(shape == (len(x),), "weights", f"have one element for each of {len(x)} rows", shape)
    check_finite("weights", weights)
    check(bool((weights >= 0).all()), "weights", "not be negative", float(weights.min()))
    check(bool((weights > 0).any()), "weights", "not all be zero", float(weights.max()))
    return weights.to(x.device, torch.float64)


def _columns(wrong: Tensor) -> str:
    found: Sequence[int] = wrong.nonzero()[:, 0].tolist()
    return f"column{'s' if len(found) > 1 else ''} {listed([str(each) for each in found])}"
