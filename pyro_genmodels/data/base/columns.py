"""The columns of a table: what each is called, and what kind of values it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from pyro_genmodels._checks import check, check_choice

ColumnKind: TypeAlias = Literal["gaussian", "categorical", "count"]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: What the file calls it.
        kind: ``"gaussian"`` for real values, ``"categorical"`` for codes ``0 .. K - 1`` of
            ``categories``, ``"count"`` for whole numbers from zero.
        categories: Names of a categorical column's values, in the order of their codes; none for
            other kinds.

    Raises:
        ValueError: If the kind is unknown, or categories are missing or given to another kind.

    Example:
        >>> Column("colour", "categorical", ("red", "green"))
        Column(name='colour', kind='categorical', categories=('red', 'green'))
    """

    name: str
    kind: ColumnKind = "gaussian"
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless kind and categories go together."""
        check_choice("kind", self.kind, get_args(ColumnKind))
        fits = (len(self.categories) > 0) == (self.kind == "categorical")
        rule = "be given exactly for a categorical column"
        check(fits, "categories", rule, f"{len(self.categories)} for {self.kind} {self.name!r}")


def check_columns(argument: str, x: Tensor, columns: Sequence[Column]) -> None:
    """Raise ``ValueError`` unless each column of rows ``(n, D)`` holds what its kind says.

    Values that are missing, NaN, are left out.
    """
    for values, column in zip(x.unbind(-1), columns, strict=True):
        if column.kind == "gaussian":
            continue
        seen = values[~values.isnan()] if values.is_floating_point() else values
        whole = bool((seen == seen.floor()).all()) if seen.is_floating_point() else True
        low, high = (float(seen.min()), float(seen.max())) if seen.numel() else (0.0, 0.0)
        most = len(column.categories) - 1 if column.kind == "categorical" else torch.inf
        rule = f"hold integers from 0{'' if column.kind == 'count' else f' to {most}'}"
        fits = whole and low >= 0 and high <= most
        check(fits, f"{argument}: {column.name}", rule, f"values from {low:g} to {high:g}")
