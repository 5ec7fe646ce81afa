"""What the scores of codes and factors share."""

from __future__ import annotations

from pyro_genmodels._checks import check, check_finite
from pyro_genmodels._typing import Float, Num, Tensor


def rows_of(values: Num[Tensor, "..."], argument: str) -> Num[Tensor, "n D"]:
    """Return values ``(*batch, D)`` as rows: scores are of all examples together."""
    shape = f"shape {tuple(values.shape)}"
    check(values.dim() > 0, argument, "have a dimension of units or factors", shape)
    return values.reshape(-1, values.shape[-1])


def paired_rows(
    codes: Num[Tensor, "..."], factors: Num[Tensor, "..."]
) -> tuple[Num[Tensor, "n D"], Num[Tensor, "n F"]]:
    """Return codes and their factors as rows.

    Raises:
        ValueError: If the codes are not finite, or the factors are those of another batch.
    """
    check_finite("codes", codes)
    rows = rows_of(codes, "codes"), rows_of(factors, "factors")
    number, found = ("x".join(map(str, each.shape[:-1])) for each in (codes, factors))
    check(number == found, "factors", f"be those of {number} codes", found)
    return rows


def lead(scores: Float[Tensor, "D F"]) -> Float[Tensor, " F"]:
    """How far the best unit is ahead of the second, for each factor."""
    check(len(scores) > 1, "codes", "have two units or more", len(scores))
    best = scores.topk(2, dim=0).values
    return best[0] - best[1]
