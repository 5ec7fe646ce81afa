"""The columns of a table: what each is called, and what kind of values it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch

from pyro_genmodels._checks import check, check_choice, require
from pyro_genmodels._typing import Float, Num, Tensor

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
    most = torch.tensor([_largest(column) for column in columns], dtype=torch.float64)
    discrete = torch.tensor([column.kind != "gaussian" for column in columns])
    if not bool(discrete.any()):
        return
    rows = x.reshape(-1, len(columns))
    fits = (rows.isnan() | ((rows == rows.floor()) & (rows >= 0) & (rows <= most))) | ~discrete
    if bool(fits.all()):
        return
    worst = int((~fits).any(0).nonzero()[0])
    column, values = columns[worst], rows[:, worst][~rows[:, worst].isnan()]
    rule = "hold integers from 0" + (f" to {most[worst]:.0f}" if column.categories else "")
    found = f"values from {values.min().item():g} to {values.max().item():g}"
    check(False, f"{argument}: {column.name}", rule, found)


def _largest(column: Column) -> float:
    return len(column.categories) - 1 if column.kind == "categorical" else torch.inf


def frame_of(x: Tensor, columns: Sequence[Column], *, whole: bool = False) -> Any:
    """Return rows ``(n, D)`` as a pandas frame, categories by name and counts as integers.

    Args:
        x: The rows; NaN is a missing value.
        columns: What each column is.
        whole: Whether all values are integers, whatever the columns' kinds.
    """
    pandas = require("pandas", extra="tables")
    frame = {}
    for values, column in zip(x.detach().cpu().unbind(-1), columns, strict=True):
        series = pandas.Series(values.numpy())
        if column.kind == "categorical":
            codes = series.round().clip(0, len(column.categories) - 1).fillna(-1).astype("int64")
            series = pandas.Categorical.from_codes(codes, categories=list(column.categories))
        elif whole or column.kind == "count":
            series = series.round().astype("Int64" if series.isna().any() else "int64")
        frame[column.name] = series
    return pandas.DataFrame(frame)


def size_factors(x: Num[Tensor, "n *event"]) -> Float[Tensor, "n 1"]:
    """Return the total count of each example over the median of the totals.

    As a context they tell a likelihood with ``size_factors=True`` how much was counted of each
    example, such as the depth to which a cell was sequenced.

    Args:
        x: Counts, one example a row.

    Raises:
        ValueError: If an example has no count at all, which has no size.

    Example:
        >>> size_factors(torch.tensor([[1.0, 3.0], [4.0, 4.0], [0.0, 2.0]]))
        tensor([[1.0000],
                [2.0000],
                [0.5000]])
    """
    totals = x.flatten(1).sum(1, keepdim=True, dtype=torch.float64)
    empty = (totals <= 0).flatten().nonzero().flatten().tolist()
    check(not empty, "x", "have a count in every example", f"none in example {empty[:1]}")
    return (totals / totals.median()).to(torch.get_default_dtype())
