"""Data described on a few lines: shapes, values, classes, splits, and which models suit them."""

from __future__ import annotations

import inspect
import math
import shlex
import shutil
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pyro_genmodels import plotting, training
from pyro_genmodels._checks import listed
from pyro_genmodels.cli.names import model_makers
from pyro_genmodels.cli.plan import takes_none
from pyro_genmodels.data import DataSource
from pyro_genmodels.data.base import Rows, chunks_of

_MOST = 2000  # items that are decoded one by one
_SHOWN = 64  # on the picture
_COLUMNS = 20


class _Values:
    """Range, mean and deviation of each column, or of all elements where there are none."""

    def __init__(self, by_column: bool) -> None:
        self.by_column = by_column
        self.count = self.total = self.squares = torch.zeros((), dtype=torch.float64)
        self.missing = torch.zeros((), dtype=torch.int64)
        self.low, self.high = torch.tensor(math.inf).double(), torch.tensor(-math.inf).double()

    def add(self, x: Tensor) -> None:
        """Take rows ``(n, *event)`` in."""
        rows = x.double() if self.by_column else x.double().reshape(-1, 1)
        seen = ~rows.isnan()
        filled = rows.where(seen, 0.0)
        self.count = self.count + seen.sum(0)
        self.missing = self.missing + (~seen).sum(0)
        self.total = self.total + filled.sum(0)
        self.squares = self.squares + filled.square().sum(0)
        self.low = torch.minimum(self.low, rows.where(seen, math.inf).amin(0))
        self.high = torch.maximum(self.high, rows.where(seen, -math.inf).amax(0))

    def line(self, index: int | None = None) -> str:
        """Describe one column, or all of them."""
        chosen = slice(None) if index is None else index
        count = float(self.count[chosen].sum())
        if count == 0:
            return "all missing"
        low, high = float(self.low[chosen].min()), float(self.high[chosen].max())
        mean = float(self.total[chosen].sum()) / count
        variance = float(self.squares[chosen].sum()) / count - mean**2
        deviation = math.sqrt(max(0.0, variance))
        text = f"{low:.4g} to {high:.4g}, mean {mean:.4g}, deviation {deviation:.4g}"
        missing = int(self.missing[chosen].sum())
        share = 100 * missing / (count + missing)
        return text + (f", {missing:,} missing ({share:.2g} %)" if missing else "")


def print_source(source: DataSource) -> None:
    """Print what a source holds; large data in memory maps are read in parts."""
    train: Any = source.train
    splits = {name: len(part) for name, part in source.splits.items()}  # type: ignore[arg-type]
    by_column = len(source.event_shape) == 1
    values, classes, dtype, looked_at = _Values(by_column), torch.zeros(0).long(), None, 0
    for x, labels in _chunks(train):
        values.add(x)
        dtype, looked_at = x.dtype, looked_at + len(x)
        if source.num_classes is not None:
            known = labels[labels >= 0]
            counts = torch.bincount(known, minlength=source.num_classes)
            classes = classes + counts if len(classes) else counts
    levels = "continuous" if source.num_levels is None else f"{source.num_levels} levels"
    _line("data", source.summary)
    _line("splits", ", ".join(f"{name} {size:,}" for name, size in splits.items()))
    _line("x", f"shape {tuple(source.event_shape)}, {levels}, {str(dtype).rpartition('.')[2]}")
    part = "" if looked_at == splits["train"] else f" (of {looked_at:,} examples of train)"
    if source.columns is None:
        _line("values", values.line() + part)
    if by_column and (source.columns is not None or source.num_levels is None):
        _print_columns(source, values)
    if source.num_classes is not None:
        names = source.classes or [str(label) for label in range(source.num_classes)]
        shown = [f"{name}: {n:,}" for name, n in zip(names, classes.tolist(), strict=True)]
        _line("classes", listed(shown, most=20) + (part or " (of train)"))
    _line("missing", "allowed, as NaN" if source.missing else "none allowed")
    if source.skipped:
        _line("skipped", f"{len(source.skipped):,}: {listed(list(source.skipped), most=5)}")
    _line("fingerprint", training.fingerprint_kind(source))


def _print_columns(source: DataSource, values: _Values) -> None:
    size = source.event_shape.numel()
    for index in range(min(size, _COLUMNS)):
        if source.columns is None:
            _line(f"  x{index}", values.line(index))
            continue
        column = source.columns[index]
        text = f"{column.kind}, {values.line(index)}"
        if column.kind == "categorical":
            text = f"{len(column.categories)} categories: {listed(column.categories, most=8)}"
        _line(f"  {column.name}", text)
    if size > _COLUMNS:
        _line("", f"and {size - _COLUMNS} columns more")


def _chunks(dataset: Any) -> Iterator[tuple[Tensor, Any]]:
    if isinstance(dataset, TensorDataset | Rows):
        for x, *rest in chunks_of(dataset):
            yield x, rest[0] if rest else None
        return
    places = torch.linspace(0, len(dataset) - 1, min(_MOST, len(dataset))).long().unique()
    for part in places.split(_SHOWN):
        items = [dataset[index] for index in part.tolist()]
        columns = list(zip(*items, strict=True))
        beside = [torch.stack([torch.as_tensor(v) for v in column]) for column in columns[1:]]
        yield torch.stack(columns[0]), beside[0] if beside else None


def save_examples(source: DataSource, path: Path) -> None:
    """Draw the first training data."""
    train: Any = source.train
    items = [train[index][0] for index in range(min(_SHOWN, len(train)))]
    options: dict[str, Any] = {"title": source.name, "features": source.columns}
    options["series"] = len(source.event_shape) in (2, 4)
    plotting.save_samples(torch.stack(items), source.num_levels, path, **options)


def print_models(source: DataSource, words: list[str]) -> None:
    """Print which models take the data, why others do not, and how to train one."""
    facts, suited = training.facts_of(source), list[str]()
    unsuited: dict[str, list[str]] = defaultdict(list)
    for name, maker in model_makers().items():
        parameters = inspect.signature(maker).parameters
        required = [k for k, p in parameters.items() if p.default is p.empty and k not in facts]
        if any(parameters[k].kind is not inspect.Parameter.VAR_KEYWORD for k in required):
            continue  # made of parts that only its user knows
        given = {k: v for k, v in facts.items() if k in parameters}
        reason = _reason_against(source, maker, given)
        if reason is None:
            suited.append(name)
        else:
            unsuited[reason].append(name)
    _line("models", ", ".join(suited) or "none")
    for reason, names in unsuited.items():
        _line("not", f"{', '.join(names)}: {reason}")
    if suited:
        first = "VAE" if "VAE" in suited else suited[0]
        data, *options = map(shlex.quote, words)
        command = ["pyro-genmodels train", first.lower(), "--data", data, *options]
        _line("train with", " ".join(command))


def _reason_against(source: DataSource, maker: Any, given: dict[str, Any]) -> str | None:
    levels = inspect.signature(maker).parameters.get("num_levels")
    if source.num_levels is None and levels is not None and not takes_none(levels):
        return "for data with levels"
    try:
        # Shapes alone: weights of a dozen networks would take minutes, and memory.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            training.check_source(source, maker(**given))
    except ValueError as error:
        return str(error).rstrip(".")
    except (NotImplementedError, RuntimeError):
        return None  # something looks at a weight, which does not depend on the data
    return None


def _line(label: str, text: str) -> None:
    width = min(100, shutil.get_terminal_size().columns)
    indent = min(14, width // 4)
    first = f"{label:<{indent - 1}} "
    wrapped = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=" " * indent, break_on_hyphens=False
    )
    print("\n".join(wrapped) or first.rstrip())
