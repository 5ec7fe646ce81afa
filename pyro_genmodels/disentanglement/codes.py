"""What the scores of codes and factors share."""

from __future__ import annotations

from pyro_genmodels._checks import check, check_finite
from pyro_genmodels._typing import Float, Num, Tensor


def check_same(codes: Num[Tensor, "n D"], factors: Num[Tensor, "m F"]) -> None:
    """Raise ``ValueError`` unless there are as many codes as factors, and finite ones."""
    check_finite("codes", codes)
    check(len(codes) == len(factors), "factors", f"be those of {len(codes)} codes", len(factors))


def lead(scores: Float[Tensor, "D F"]) -> Float[Tensor, " F"]:
    """How far the best unit is ahead of the second, for each factor."""
    check(len(scores) > 1, "codes", "have two units or more", len(scores))
    best = scores.topk(2, dim=0).values
    return best[0] - best[1]
