"""Vectors and sequences: histograms, points, corner plots and lines, beside the data."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyro_genmodels.data import Column
from pyro_genmodels.plotting.saving import saved_figure

Array: TypeAlias = NDArray[np.float64]

_MOST_COLUMNS = 6  # of a corner plot
_MOST_LINES = 8
_LONGEST_VECTOR = 32  # above it the elements are a sequence, not variables
_MOST_BARS = 50
_COLOURS = {"data": "0.55", "samples": "C0", "original": "0.55", "reconstruction": "C0"}


def save_vectors(
    samples: Tensor,
    data: Tensor | None,
    num_levels: int | None,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    features: Sequence[Column] | None = None,
) -> None:
    """Save a picture of samples ``(n, D)`` or ``(D,)``, beside data if they are given."""
    parts = {"data": data, "samples": samples}
    rows = {name: _rows(part) for name, part in parts.items() if part is not None}
    size = samples.shape[-1]
    if features is None and (size > _LONGEST_VECTOR or (size > 2 and num_levels is not None)):
        _save_lines([{name: part} for name, part in rows.items()], num_levels, path, title)
        return
    given = features or [Column(f"x[{i}]") for i in range(size)]
    axes = [
        _Axis(i, given[i], {name: part[:, i] for name, part in rows.items()}, num_levels)
        for i in range(min(size, _MOST_COLUMNS))
    ]
    notes = []
    if size > len(axes):
        notes.append(f"the first {len(axes)} of {size} columns")
    outside = ~np.all([axis.shows(axis.values["samples"]) for axis in axes], axis=0)
    if outside.any():
        notes.append(f"{outside.sum()} of {len(outside)} samples lie outside")
    heading = "\n".join(filter(None, [title, ", ".join(notes)])) or None
    if size == 2:
        _save_points(axes[0], axes[1], path, heading)
    else:
        _save_corner(axes, path, heading)


def save_series(
    samples: Tensor,
    data: Tensor | None,
    num_levels: int | None,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> None:
    """Save a picture of series ``(n, T, D)`` or ``(T, D)``: a column of lines for each element."""
    parts = {"data": data, "samples": samples}
    given = {k: x.detach().reshape(-1, *x.shape[-2:]) for k, x in parts.items() if x is not None}
    size = samples.shape[-1]
    shown = range(min(size, _MOST_COLUMNS))
    if len(shown) < size:
        note = f"the first {len(shown)} of {size} elements"
        title = note if title is None else f"{title}\n{note}"
    panels = [{k: _rows(x[..., i]) for k, x in given.items()} for i in shown]
    _save_lines(panels, num_levels, path, title)


def save_pairs(
    x: Tensor,
    reconstructed: Tensor,
    num_levels: int | None,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    features: Sequence[Column] | None = None,
) -> None:
    """Save a picture of vectors and their reconstructions: sequences as lines, others as points.

    Columns with names have different scales, so each has its own axes.
    """
    rows = {"original": _rows(x), "reconstruction": _rows(reconstructed)}
    size = x.shape[-1]
    if features is not None:
        _save_columns(rows, features, num_levels, path, title)
        return
    if size > _LONGEST_VECTOR or (size > 2 and num_levels is not None):
        _save_lines([rows], num_levels, path, title)
        return
    first, second = rows.values()
    with saved_figure(path, title) as figure:
        axes = figure.subplots()
        axes.scatter(first, second, s=4, alpha=0.6)
        seen = first[np.isfinite(first)]
        ends = [seen.min(), seen.max()] if seen.size else [0, 1]
        axes.plot(ends, ends, color="0.55", linewidth=1, label="equal")
        axes.set(xlabel="original", ylabel="reconstruction")
        axes.legend()


def save_point_panels(
    points: Mapping[str, Tensor], path: str | os.PathLike[str], *, title: str | None = None
) -> None:
    """Save points, the first two elements of vectors, in panels with equal axes side by side."""
    size = 2.0 * len(points) + 0.4
    with saved_figure(path, title, (size, 2.5)) as figure:
        grid = figure.subplots(1, len(points), sharex=True, sharey=True, squeeze=False)
        for axes, (name, values) in zip(grid[0], points.items(), strict=True):
            x, y = _rows(values)[:, :2].T
            axes.scatter(x, y, s=float(np.clip(3000 / len(x), 2, 14)), alpha=0.6, linewidths=0)
            axes.set_title(name, fontsize=9)
            axes.set_aspect("equal")
            axes.tick_params(labelsize=7)


class _Axis:
    """One column of vectors: its values by part, its range, and whether they are whole numbers."""

    def __init__(
        self, index: int, column: Column, values: Mapping[str, Array], num_levels: int | None
    ) -> None:
        self.index, self.column, self.values = index, column, values
        every = np.concatenate(list(values.values()))
        every = every[np.isfinite(every)]
        whole_kind = column.kind != "gaussian" or num_levels is not None
        self.whole = whole_kind and bool((every == every.round()).all())
        self.range = self._range(every)

    def _range(self, every: Array) -> tuple[float, float]:
        """Return the range of the data, or of all, and of samples within twice its width of it."""
        if self.column.categories:
            return -0.5, len(self.column.categories) - 0.5
        base = self.values.get("data", every)
        base = base[np.isfinite(base)] if np.isfinite(base).any() else np.zeros(1)
        low, high = np.quantile(base, [0.005, 0.995])
        margin = (high - low) or 1.0
        near = every[(every >= low - margin) & (every <= high + margin)]
        low, high = near.min(initial=low), near.max(initial=high)
        if self.whole:
            return np.floor(low) - 0.5, np.ceil(high) + 0.5
        return low - 0.1 * margin, high + 0.1 * margin

    def shows(self, values: Array) -> NDArray[np.bool_]:
        """Say which values lie within the range."""
        return (values >= self.range[0]) & (values <= self.range[1])

    def spread(self, part: str) -> Array:
        """Return the values, whole numbers moved apart so that equal points are seen."""
        seed = self.index, list(self.values).index(part)
        values, generator = self.values[part], np.random.default_rng(seed)
        return values + generator.uniform(-0.25, 0.25, len(values)) if self.whole else values

    def draw_histogram(self, axes: Any) -> None:
        """Draw the shares of the values, those of the data filled."""
        low, high = self.range
        if self.whole and high - low <= _MOST_BARS:
            levels = np.arange(np.ceil(low), high)
            width = 0.8 / len(self.values)
            for i, (part, values) in enumerate(self.values.items()):
                shares = [np.mean(values[np.isfinite(values)] == level) for level in levels]
                at = levels + (i - (len(self.values) - 1) / 2) * width
                axes.bar(at, shares, width, color=_COLOURS[part], label=part)
            return
        for part, values in self.values.items():
            seen = values[self.shows(values)]
            filled = part == "data" or len(self.values) == 1
            bins = int(min(40, max(8, 2 * len(seen) ** 0.5)))
            axes.hist(
                seen,
                bins=bins,
                range=self.range,
                density=True,
                histtype="stepfilled" if filled else "step",
                color=_COLOURS[part],
                label=part,
                linewidth=1.5,
            )

    def label(self, axis: Any) -> None:
        """Name an axis of matplotlib, and the categories along it."""
        axis.set_label_text(self.column.name, parse_math=False)
        names = self.column.categories
        if names:
            axis.set_ticks(range(len(names)), labels=[name[:12] for name in names])


def _save_points(x: _Axis, y: _Axis, path: str | os.PathLike[str], title: str | None) -> None:
    """Save two columns as points, the parts side by side."""
    parts = list(x.values)
    with saved_figure(path, title, (4.5 * len(parts), 4.3)) as figure:
        for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
            _scatter(axes, x, y, part)
            x.label(axes.xaxis)
            y.label(axes.yaxis)
            axes.set(xlim=x.range, ylim=y.range)
            widths = [high - low for low, high in (x.range, y.range)]
            if max(widths) < 3 * min(widths):
                axes.set_aspect("equal")
            if len(parts) > 1:
                axes.set_title(part, fontsize=10)


def _save_corner(axes: Sequence[_Axis], path: str | os.PathLike[str], title: str | None) -> None:
    """Save the columns' histograms on a diagonal, below it their pairs as points."""
    count = len(axes)
    side = max(1.7 * count, 4.5)
    with saved_figure(path, title, (side + (count == 1), side)) as figure:
        grid = figure.subplots(count, count, sharex="col", squeeze=False)
        for i, j in np.ndindex(count, count):
            cell, x, y = grid[i, j], axes[j], axes[i]
            if j > i:
                cell.axis("off")
                continue
            if i == j:
                x.draw_histogram(cell)
                if count == 1:
                    cell.set_ylabel("share" if x.whole else "density")
                else:
                    cell.set_yticks([])
            else:
                for part in x.values:
                    _scatter(cell, x, y, part)
                cell.set_ylim(y.range)
            cell.set_xlim(x.range)
            cell.tick_params(labelsize=7 if count > 1 else 9, labelbottom=i == count - 1)
            if i == count - 1:
                x.label(cell.xaxis)
            if j == 0 and i > 0:
                y.label(cell.yaxis)
            elif j > 0:
                cell.set_yticks([])
        if len(axes[0].values) > 1:
            grid[0, -1].legend(*grid[0, 0].get_legend_handles_labels(), loc="best")


def _save_columns(
    rows: Mapping[str, Array],
    features: Sequence[Column],
    num_levels: int | None,
    path: str | os.PathLike[str],
    title: str | None,
) -> None:
    """Save a panel for each column: its originals along it, its reconstructions upwards."""
    shown = features[:_MOST_COLUMNS]
    if len(shown) < len(features):
        note = f"the first {len(shown)} of {len(features)} columns"
        title = note if title is None else f"{title}\n{note}"
    across = min(3, len(shown))
    down = math.ceil(len(shown) / across)
    with saved_figure(path, title, (3.2 * across + 0.3, 3.0 * down + 0.5)) as figure:
        for i, cell in enumerate(figure.subplots(down, across, squeeze=False).flat):
            if i >= len(shown):
                cell.axis("off")
                continue
            axis = _Axis(i, shown[i], {part: x[:, i] for part, x in rows.items()}, num_levels)
            cell.scatter(*map(axis.spread, rows), s=8, alpha=0.6, linewidths=0)
            cell.plot(axis.range, axis.range, color="0.55", linewidth=1)
            cell.set_title(axis.column.name, fontsize=10, parse_math=False)
            if axis.column.categories:
                axis.label(cell.xaxis)
                axis.label(cell.yaxis)
            cell.set(xlabel="original", ylabel="reconstruction", xlim=axis.range, ylim=axis.range)
            cell.tick_params(labelsize=7)


def _scatter(axes: Any, x: _Axis, y: _Axis, part: str) -> None:
    points = x.spread(part), y.spread(part)
    size = float(np.clip(3000 / len(points[0]), 2, 14))
    axes.scatter(*points, s=size, alpha=0.6, color=_COLOURS[part], linewidths=0)


def _save_lines(
    panels: Sequence[Mapping[str, Array]],
    num_levels: int | None,
    path: str | os.PathLike[str],
    title: str | None,
) -> None:
    """Save sequences as lines, one below the other; a panel for each mapping of parts."""
    number = min(_MOST_LINES, *(len(rows) for panel in panels for rows in panel.values()))
    limits = [_limits(panel, number, num_levels) for panel in panels]
    length = next(iter(panels[0].values())).shape[1]
    style = "steps-mid" if length <= 2 * _LONGEST_VECTOR else "default"
    with saved_figure(path, title, (4.2 * len(panels) + 0.6, 0.65 * number + 1.2)) as figure:
        grid = figure.subplots(number, len(panels), sharex=True, sharey="col", squeeze=False)
        for (i, j), axes in np.ndenumerate(grid):
            for part, rows in panels[j].items():
                axes.plot(rows[i], color=_COLOURS[part], linewidth=0.8, drawstyle=style, label=part)
            axes.set(ylim=limits[j], xlim=(0, max(1, length - 1)))
            axes.tick_params(labelsize=7)
            if num_levels is not None:
                axes.yaxis.get_major_locator().set_params(integer=True, nbins=3)
            if i == 0 and len(panels) + len(panels[j]) > 2:
                axes.set_title(" and ".join(panels[j]), fontsize=10)
            if i == number - 1:
                axes.set_xlabel("element", fontsize=9)
        if len(panels[0]) > 1:
            grid[0, 0].legend(fontsize=7, loc="upper right")


def _limits(panel: Mapping[str, Array], number: int, num_levels: int | None) -> tuple[float, float]:
    """Return the range of a panel's values, or of the levels, with a margin."""
    every = np.concatenate([rows[:number].ravel() for rows in panel.values()])
    every = every[np.isfinite(every)]
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    if num_levels is not None:
        low, high = 0.0, num_levels - 1.0
    margin = 0.05 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def _rows(x: Tensor) -> Array:
    values: Array = x.detach().cpu().reshape(-1, x.shape[-1]).double().numpy()
    return values
