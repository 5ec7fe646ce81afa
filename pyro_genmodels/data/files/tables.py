"""Tables with named columns, and sparse matrices of counts."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from pyro_genmodels._checks import check, check_choice, listed, require
from pyro_genmodels.data.base.columns import Column, ColumnKind
from pyro_genmodels.data.files.arrays import SPLIT_WORDS, Contents

_FEW = 10  # distinct texts that are categories in however small a table
# Numbers with a unit or in groups, and what stands for a missing one.
_NUMBER = re.compile(r"[-+]?[€$£¥]?\s*[-+]?\d[\d.,'\s]*[%€$£¥]?|\W*")
_MOST_PARSED = 100  # texts: pandas takes some tenths of a millisecond for a date in words
_DATE = re.compile(r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})\b")


@dataclass(frozen=True)
class TableOptions:
    """How a table is to be read.

    Args:
        label: Name of the column of labels.
        drop: Names of columns to leave out.
        kinds: Kinds of columns by name, or one for all.
        missing: Whether values may be missing.
        num_classes: Number of labels, where they are integers from zero as they stand.
        num_levels: Number of levels of all columns.
    """

    label: str | None = None
    drop: Sequence[str] = ()
    kinds: Mapping[str, str] | str | None = None
    missing: bool = False
    num_classes: int | None = None
    num_levels: int | None = None

    def kind_of(self, name: str) -> str | None:
        """Return the kind that a column was given."""
        return self.kinds if isinstance(self.kinds, str) else (self.kinds or {}).get(name)

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ``ValueError`` unless the options name columns that are there."""
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        check(not twice, "table", "have columns of different names", f"{listed(twice)} twice")
        among = f"of the table's columns ({listed(list(names), most=12)})"
        named = [] if isinstance(self.kinds, str) else list(self.kinds or {})
        given = {"drop": self.drop, "kinds": named, "label": [self.label] if self.label else []}
        for argument, each in given.items():
            unknown = [name for name in each if name not in names]
            check(not unknown, argument, f"be {among}", listed(unknown))
        kinds = [self.kinds] if isinstance(self.kinds, str) else (self.kinds or {}).values()
        for kind in kinds:
            check_choice("kinds", kind, get_args(ColumnKind))


def is_frame(value: Any) -> bool:
    """Whether a value is a table of pandas, or one that can become such."""
    return type(value).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow") and (
        hasattr(value, "to_pandas") or hasattr(value, "dtypes")
    )


def is_sparse(value: Any) -> bool:
    """Whether a value is a sparse matrix of SciPy's."""
    return type(value).__module__.partition(".")[0] == "scipy" and hasattr(value, "tocsr")


def from_frames(given: Mapping[str, Any], options: TableOptions) -> Contents:
    """Turn tables into arrays.

    Strings, booleans and categories become codes in alphabetical order of their names; numbers
    stay. A column ``split`` that holds names of splits divides the table.

    Raises:
        ValueError: If a column cannot be used as it is; the message names it and the remedy.
    """
    pandas = require("pandas", extra="tables")
    frames = {k: v.to_pandas() if hasattr(v, "to_pandas") else v for k, v in given.items()}
    for split, each in frames.items():
        rule = "be a table with columns (a single one becomes such by to_frame())"
        check(isinstance(each, pandas.DataFrame), split, rule, f"a {type(each).__name__}")
    frames = {k: frame.set_axis(map(str, frame.columns), axis=1) for k, frame in frames.items()}
    names = list(frames["train"].columns)
    options.check_names(names)
    for split, each in frames.items():
        odd = sorted(set(each.columns) ^ set(names))
        check(not odd, split, "have the columns of the training data", listed(odd))
    notes: list[str] = []
    whole = frames["train"] if len(frames) == 1 else pandas.concat(list(frames.values()))
    check(len(whole) > 0, "train", "have at least one example", "a table without rows")
    # Sparse columns, and numbers held as objects, are numbers like others.
    sparse = {k: d.subtype for k, d in whole.dtypes.items() if isinstance(d, pandas.SparseDtype)}
    whole = whole.astype(sparse).infer_objects()
    ends = np.cumsum([len(each) for each in frames.values()])
    rows: dict[str, Any] = {
        split: slice(end - len(each), end)
        for (split, each), end in zip(frames.items(), ends.tolist(), strict=True)
    }
    dropped = list(options.drop)
    if len(frames) == 1 and (own := _own_splits(whole, options)) is not None:
        rows, notes = own, ["splits by the column 'split'"]
        dropped += [name for name in names if name.lower() == "split"]
    if _is_index(whole) and names[0] not in dropped:
        dropped.append(names[0])
        notes.append("first column left out: row numbers without a name")
    kept = [name for name in names if name not in dropped and name != options.label]
    check(len(kept) > 0, "table", "have a column of data", f"columns {listed(names)}")
    _check_complete(whole, kept, options)
    parts = [_column(whole[name], name, options) for name in kept]
    dtype = np.result_type(np.float32, *(values.dtype for _, values in parts))
    x = np.empty((len(whole), len(kept)), dtype)
    for i, (_, values) in enumerate(parts):
        x[:, i] = values
    columns = [column for column, _ in parts]
    contents = Contents({k: x[v] for k, v in rows.items()}, columns=columns, is_table=True)
    if options.label is not None:
        codes, contents.classes = _label(whole[options.label], options)
        contents.labels = {split: codes[each] for split, each in rows.items()}
    contents.notes = [_kinds_in_words(columns), *notes]
    return contents


def from_sparse(
    given: Mapping[str, Any], options: TableOptions, names: Sequence[str] | None = None
) -> Contents:
    """Turn matrices into contents: whole numbers from zero are counts; sparse ones stay sparse.

    Raises:
        ValueError: If values are not numbers, or options name columns that are not there.
    """
    for split, matrix in given.items():
        check(len(matrix.shape) == 2, split, "be a matrix", f"shape {matrix.shape}")
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)  # an index out of range would crash the process
    matrices = {k: v.tocsr() if is_sparse(v) else np.asarray(v) for k, v in given.items()}
    width = matrices["train"].shape[1]
    names = [f"x{i}" for i in range(width)] if names is None else [str(name) for name in names]
    if isinstance(options.kinds, Mapping) or options.drop:
        options.check_names(names)
    kept = [i for i, name in enumerate(names) if name not in set(options.drop)]
    numbers, whole = {}, True
    for split, matrix in matrices.items():
        check(matrix.dtype.kind in "biuf", split, "hold real numbers", f"dtype {matrix.dtype}")
        matrix = matrix if len(kept) == width else matrix[:, kept]
        values: Any = matrix.data if is_sparse(matrix) else matrix
        whole = whole and bool(((values >= 0) & (values == np.floor(values))).all())
        # Whole numbers up to 2 ** 24 are exact in float32.
        single = values.dtype.itemsize <= 4 or bool((np.abs(values) <= 2**24).all() and whole)
        numbers[split] = matrix.astype(np.float32 if single else np.float64)
    default = "count" if whole else "gaussian"
    kinds = [options.kind_of(names[i]) or default for i in kept]
    rule = "be 'gaussian' or 'count' for a matrix of numbers"
    check("categorical" not in kinds, "kinds", rule, "'categorical'")
    columns = [Column(names[i], kind) for i, kind in zip(kept, kinds, strict=True)]  # type: ignore[arg-type]
    return Contents(numbers, columns=columns, notes=[_kinds_in_words(columns)], is_table=True)


def label_codes(series: Any, num_classes: int | None) -> tuple[Any, list[str]]:
    """Return a column of labels as integers, and the names of the classes."""
    return _label(series, TableOptions(num_classes=num_classes))


def _own_splits(frame: Any, options: TableOptions) -> dict[str, Any] | None:
    """Return the rows of each split if a column ``split`` names them."""
    names = [name for name in frame.columns if name.lower() == "split"]
    if len(names) != 1 or names[0] in {*options.drop, options.label}:
        return None
    words = frame[names[0]].astype(str).str.lower()
    found = {s: words.str.fullmatch(pattern) for s, pattern in SPLIT_WORDS.items()}
    if not bool(sum(found.values()).all()) or not bool(found["train"].any()):
        return None
    return {split: mask.to_numpy() for split, mask in found.items() if mask.any()}


def _is_index(frame: Any) -> bool:
    """Whether the first column is what pandas and R write of row numbers, in any order."""
    if frame.shape[1] == 0 or not str(frame.columns[0]).startswith("Unnamed: 0"):
        return False
    return frame.iloc[:, 0].dtype.kind in "iu" and bool(frame.iloc[:, 0].is_unique)


def _check_complete(frame: Any, names: Sequence[str], options: TableOptions) -> None:
    counts = dict(zip(names, frame[list(names)].isna().sum().tolist(), strict=True))
    empty = [name for name, count in counts.items() if count == len(frame)]
    rule = f"have values in every column ({_leave_out(*empty)})"
    check(not empty, "table", rule, f"none in {listed(empty)}")
    if options.missing:
        return
    found = [f"{count} of {len(frame)} in '{name}'" for name, count in counts.items() if count]
    rule = "have no missing values unless missing=True (--data.missing true)"
    check(not found, "table", rule, listed(found))


def _leave_out(*names: str) -> str:
    return f"leave it out: drop={list(names)}, --data.drop '[{', '.join(names)}]'"


def _column(series: Any, name: str, options: TableOptions) -> tuple[Column, Any]:
    """Return a column's description and its values, codes for categories."""
    kind = options.kind_of(name)
    argument = f"table: {name}"
    numeric = _is_numeric(series)
    if kind == "categorical" or (kind is None and not numeric):
        if kind is None:
            _check_categories(series, argument, name)
        categories, codes = _categories(series)
        return Column(name, "categorical", tuple(categories)), codes
    if not numeric:
        rule = f"hold numbers to be {kind} ({_leave_out(name)})"
        try:
            series = require("pandas", extra="tables").to_numeric(series)
        except (ValueError, TypeError):
            check(False, argument, rule, _example(series))
    values = _numbers(series)
    infinite = int(np.isinf(values).sum()) if values.dtype.kind == "f" else 0
    rule = f"be finite ({_leave_out(name)})"
    check(infinite == 0, argument, rule, f"{infinite} infinite values")
    if kind == "count":
        seen = values[~np.isnan(values)]
        whole = bool(((seen >= 0) & (seen == np.floor(seen))).all())
        found = f"values from {seen.min():g} to {seen.max():g}"
        check(whole, argument, "hold whole numbers from 0 to be counts", found)
    return Column(name, kind or "gaussian"), values  # type: ignore[arg-type]


def _is_numeric(series: Any) -> bool:
    """Whether a column holds numbers, not truth values."""
    return getattr(series.dtype, "kind", "O") in "iuf" and hasattr(series.dtype, "itemsize")


def _numbers(series: Any) -> Any:
    """Return numbers as an array, missing ones as NaN."""
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    return series.to_numpy(dtype=np.float64, na_value=np.nan)  # pandas' own nullable types


def _check_categories(series: Any, argument: str, name: str) -> None:
    """Raise ``ValueError`` for what is no category: dates, free text, numbers with two parts."""
    forced = f"or take every text for a category: kinds={{'{name}': 'categorical'}}"
    rule = f"hold numbers or categories ({_leave_out(name)}; {forced})"
    kind = getattr(series.dtype, "kind", "O")
    check(kind not in "mMc", argument, rule, f"dtype {series.dtype}")
    if kind == "b":
        return
    seen = series.dropna()
    try:
        distinct = seen.unique()
    except TypeError:
        distinct = None
    plain = distinct is not None and all(isinstance(v, _PLAIN) for v in distinct)
    check(plain, argument, rule, f"values such as {_example(series)}")
    assert distinct is not None  # narrows the type for the checker
    texts = [str(value) for value in distinct]
    check(not _are_dates(texts), argument, rule, f"dates, {_example(seen)}")
    if not hasattr(series.dtype, "categories"):
        odd = [text for text in texts if not is_number(text)]
        numbers = (
            bool(odd) and all(map(_NUMBER.fullmatch, texts)) and re.search(r"\d", "".join(texts))
        )
        check(
            not numbers, argument, rule, f"numbers written as text, such as {listed(odd, most=3)}"
        )
    many = len(texts) > max(_FEW, len(seen) // 2)
    found = f"{len(texts)} distinct texts in {len(seen)} rows such as {_example(seen)}"
    check(not many, argument, rule, found)


def _are_dates(texts: Sequence[str]) -> bool:
    """Whether texts are dates, in digits or with the names of months, or times."""
    if not texts or all(map(_DATE.match, texts)):
        return bool(texts)
    texts = texts[:_MOST_PARSED]
    if not all(re.search(r"\d", text) and re.search(r"[a-zA-Z]|:\d\d", text) for text in texts):
        return False  # pandas takes version numbers for dates, and "now"
    pandas = require("pandas", extra="tables")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of time zones that it does not know
        found = pandas.to_datetime(pandas.Series(texts), errors="coerce", format="mixed", utc=True)
    return bool(found.notna().all())


def is_number(text: str) -> bool:
    """Whether a text is a number as Python, and pandas, reads it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


_PLAIN = (str, bool, np.bool_, int, float, np.integer, np.floating)


def _example(series: Any) -> str:
    seen = series.dropna()
    text = repr(seen.iloc[0]) if len(seen) else "nothing"
    return text if len(text) <= 40 else text[:37] + "..."


def _categories(series: Any) -> tuple[list[str], Any]:
    """Return names in order, and codes as floats, NaN where a value is missing."""
    pandas = require("pandas", extra="tables")
    if getattr(series.dtype, "kind", "O") == "b":
        names = ["False", "True"]
    elif hasattr(series.dtype, "categories"):
        found = series.dtype.categories
        names = sorted(map(str, found))
        names = [str(name) for name in sorted(found)] if found.dtype.kind in "iuf" else names
    else:
        names = []
    if _is_numeric(series):
        values = _numbers(series)
        numbers = np.unique(values[~np.isnan(values)] if values.dtype.kind == "f" else values)
        names = [_number_name(value) for value in numbers]
        codes = np.searchsorted(numbers, values).astype(np.float32)
        codes[codes >= len(numbers)] = np.nan  # NaN is sorted to the end
        return names, codes
    texts = series.astype(object).where(series.isna(), series.astype(str))
    names = names or sorted(set(texts.dropna()))
    codes = pandas.Categorical(texts, categories=names).codes.astype(np.float32)
    codes[codes < 0] = np.nan
    return names, codes


def _number_name(value: Any) -> str:
    return str(int(value)) if value == np.floor(value) else repr(float(value))


def _label(series: Any, options: TableOptions) -> tuple[Any, list[str]]:
    argument = f"label: {series.name}"
    lacking = int(series.isna().sum())
    check(lacking == 0, argument, "have a label in every row", f"{lacking} missing labels")
    if _is_numeric(series):
        values = _numbers(series)
        whole = bool((values == np.floor(values)).all())
        found = f"values from {values.min():g} to {values.max():g}"
        check(whole, argument, "hold integers or names of classes", found)
        if options.num_classes is not None:
            return values.astype(np.int64), [str(i) for i in range(options.num_classes)]
    names, codes = _categories(series)
    many = len(names) > max(_FEW, len(series) // 2)
    rule = "hold integers or names of classes, not one for almost every row"
    check(not many, argument, rule, f"{len(names)} in {len(series)} rows")
    return codes.astype(np.int64), names


def _kinds_in_words(columns: Sequence[Column]) -> str:
    counts = [(k, sum(c.kind == k for c in columns)) for k in get_args(ColumnKind)]
    words = ", ".join(f"{count} {kind}" for kind, count in counts if count)
    return f"columns: {words}"
