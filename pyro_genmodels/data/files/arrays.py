"""Arrays by name: which part of the data each is, and what its layout and values mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_genmodels._checks import check, listed
from pyro_genmodels.data.base.columns import Column
from pyro_genmodels.data.base.rows import to_tensor

UNDERSTOOD = (
    "have arrays whose names say what they are: train, validation (or valid, val), test (or tst), "
    "with train_labels or x_train, y_train and so on; or x, y; or images, labels (leave others out "
    "with `drop`)"
)
SPLIT_WORDS = {
    "train": "train|training|trn|tr",
    "validation": "validation|valid|val|dev",
    "test": "test|testing|tst",
}
_DATA_WORDS = "x|data|images?|imgs?|samples?|features?|inputs?|examples?|arr0|array|values|set"
_LABEL_WORDS = "y|labels?|targets?|class|classes|categories|category"
_NAME_WORDS = {
    "classes": "(class|label|target)names|classes",
    "columns": "(feature|column|var)names|columns",
}
_CHANNELS = (1, 3, 4)
_MOST_LEVELS = 2**16


@dataclass
class Contents:
    """What a file holds, before it is split.

    Attributes:
        x: Arrays ``(n, ...)`` by split.
        labels: Labels by split, as they are in the file.
        classes: Names of the labels in the order of their codes, if the file has them.
        columns: Names and kinds of a table's columns.
        notes: What was converted, in a few words each.
        is_table: Whether the columns have kinds already; levels are then not inferred.
        features: Features that stand beside data and labels, by split.
    """

    x: dict[str, Any]
    labels: dict[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None
    columns: list[Column] | None = None
    notes: list[str] = field(default_factory=list)
    is_table: bool = False
    features: dict[str, Any] = field(default_factory=dict)


def by_name(arrays: Mapping[str, Any], drop: Sequence[str] = ()) -> Contents:
    """Sort arrays by what their names say they are.

    Raises:
        ValueError: If a name is not understood, two mean the same, or there are no training data.
    """
    unknown = [name for name in drop if name not in arrays]
    check(not unknown, "drop", f"name arrays of the file ({listed(list(arrays))})", unknown)
    arrays = {name: array for name, array in arrays.items() if name not in drop}
    found: dict[tuple[str, str], str] = {}
    for name, array in arrays.items():
        meaning = _meaning(name, np.asarray(array).dtype.kind in "USO")
        check(meaning is not None, "path", UNDERSTOOD, f"'{name}' among {listed(list(arrays))}")
        assert meaning is not None  # narrows the type for the checker
        rule = f"have one array for each part; '{found.get(meaning)}' is the same part"
        check(meaning not in found, "path", rule, f"'{name}'")
        found[meaning] = name
    parts = {role: {} for role in ("x", "labels", "names")}  # type: dict[str, dict[str, Any]]
    for (part, role), name in found.items():
        parts[role][part] = arrays[name]
    has_train = "train" in parts["x"] and np.ndim(parts["x"]["train"]) > 0
    rule = "be a file with an array `train` of examples (or `x`, `x_train`, `images` and the like)"
    check(has_train, "path", rule, f"arrays {listed(list(arrays), most=8)}")
    lone = [split for split in parts["labels"] if split not in parts["x"]]
    check(not lone, "path", "have data for all labels", f"labels alone for {listed(lone)}")
    names = {k: [str(n) for n in np.ravel(v)] for k, v in parts["names"].items()}
    columns = [Column(name) for name in names["columns"]] if "columns" in names else None
    return Contents(parts["x"], parts["labels"], names.get("classes"), columns)


def _meaning(name: str, is_text: bool) -> tuple[str, str] | None:
    """Return split and role (``x`` or ``labels``) of an array; or which names it holds."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for kind, words in _NAME_WORDS.items():
        if is_text and re.fullmatch(words, plain):
            return kind, "names"
    for split, words in SPLIT_WORDS.items():
        for role, roles in (("x", f"({_DATA_WORDS})?"), ("labels", f"({_LABEL_WORDS})")):
            if re.fullmatch(f"({words}){roles}|{roles}({words})", plain):
                return split, role
    if re.fullmatch(_DATA_WORDS, plain):
        return "train", "x"
    return ("train", "labels") if re.fullmatch(_LABEL_WORDS, plain) else None


def encoded_labels(
    labels: Mapping[str, Any], classes: Sequence[str] | None, num_classes: int | None
) -> tuple[dict[str, Tensor], int | None, list[str] | None]:
    """Return labels as integers, their number, and their names where they have some.

    Names are numbered in alphabetical order, or in that of ``classes``; integers stay, and number
    one more than the largest unless ``num_classes`` says otherwise.

    Raises:
        ValueError: If they are neither names nor integers from zero.
    """
    if not labels:
        return {}, num_classes, None if classes is None else list(classes)
    arrays = {split: _flat(split, values) for split, values in labels.items()}
    if any(array.dtype.kind in "USO" for array in arrays.values()):
        named = {split: array.astype(str) for split, array in arrays.items()}
        found = sorted(set().union(*(set(np.unique(array)) for array in named.values())))
        classes = [str(name) for name in (found if classes is None else classes)]
        strange = [str(name) for name in found if name not in classes]
        check(not strange, "labels", f"be among {listed(classes)}", listed(strange))
        order = {name: code for code, name in enumerate(classes)}
        codes = {
            split: torch.tensor([order[name] for name in array.tolist()])
            for split, array in named.items()
        }
        return codes, num_classes or len(classes), classes
    codes = {}
    for split, array in arrays.items():
        integers = array.dtype.kind in "biu"
        check(integers, split, "have integer labels, or names of classes", array.dtype)
        codes[split] = to_tensor(array).long()
    if num_classes is None:
        low, high = min(map(torch.min, codes.values())), max(map(torch.max, codes.values()))
        rule = f"be -1, where unknown, or integers from 0 to at most {_MOST_LEVELS - 1}, or names"
        fits = int(low) >= -1 and 0 <= int(high) < _MOST_LEVELS
        check(fits, "labels", rule, f"labels from {int(low)} to {int(high)}")
        num_classes = int(high) + 1 if classes is None else len(classes)
    return codes, num_classes, None if classes is None else list(classes)


def _flat(split: str, values: Any) -> Any:
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    known = array.dtype.kind != "O" or all(map(_is_label, array.flat))
    known = known and not np.ma.is_masked(values)
    check(known, split, "have a label for each example", "missing labels, such as None or NaN")
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    rule = "have one label for each example, not a vector"
    check(array.ndim == 1 and len(array) > 0, split, rule, f"labels of shape {array.shape}")
    return array


def _is_label(value: Any) -> bool:
    kinds = (str, bytes, int, float, np.generic)  # pandas' own missing value is none of these
    return isinstance(value, kinds) and value == value


def channels_first(
    arrays: Mapping[str, Any], channels_last: bool | None
) -> tuple[dict[str, Any], list[str]]:
    """Return images ``(n, C, H, W)`` as views, and a note where they were ``(n, H, W, C)``.

    Args:
        arrays: Arrays by split; those that are not of rank 4 stay.
        channels_last: How the channels lie; ``None`` finds out.

    Raises:
        ValueError: If that is not clear, or images of channels last are asked for and are not.
    """
    train = arrays["train"]
    rank = len(train.shape)
    if channels_last:
        check(rank == 4, "channels_last", "be given for (n, H, W, C)", f"shape {train.shape}")
    if rank != 4 or channels_last is False:
        return dict(arrays), []
    if not (_is_channels_last(train.shape[1:]) if channels_last is None else channels_last):
        return dict(arrays), []
    moved = {split: _moved(array) if array.ndim == 4 else array for split, array in arrays.items()}
    height, width, channels = train.shape[1:]
    note = f"images ({height}, {width}, {channels}) taken as {channels} channels (channels_last)"
    return moved, [note]


def _moved(array: Any) -> Any:
    return array.movedim(-1, 1) if isinstance(array, Tensor) else np.moveaxis(array, -1, 1)


def _is_channels_last(shape: Sequence[int]) -> bool:
    """Whether images have their channels last: where both are possible, the square ones do."""
    (first, middle, last) = shape
    as_first = first in _CHANNELS and min(middle, last) > 1
    as_last = last in _CHANNELS and min(first, middle) > 1
    if as_first and as_last and (first == middle) == (middle == last):
        rule = "be given (true or false) where both (C, H, W) and (H, W, C) are possible"
        check(False, "channels_last", rule, f"images of shape {tuple(shape)}")
    return as_last and (not as_first or first == middle)


def inferred_levels(arrays: Mapping[str, Any]) -> tuple[int | None, list[str]]:
    """Return how many levels integers have, ``None`` for floating point, and a note of the rule.

    Two where there are only 0 and 1; else 256 for bytes, and the largest plus one for others.

    Raises:
        ValueError: If integers are negative or beyond 65,535.
    """
    kinds = {array.dtype.kind for array in arrays.values()}
    if not kinds <= set("biu"):
        return None, []
    ranges = [part for array in arrays.values() for part in _ranges(array)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    rule = (
        f"be given for integers that are not from 0 to {_MOST_LEVELS - 1} (or kinds='gaussian', "
        "which takes integers as real values)"
    )
    check(low >= 0 and high < _MOST_LEVELS, "num_levels", rule, f"values from {low} to {high}")
    if high <= 1:
        return 2, ["2 levels inferred from values 0 and 1"]
    if all(array.dtype == np.uint8 for array in arrays.values()):
        return 256, ["256 levels inferred from bytes"]
    return high + 1, [f"{high + 1} levels inferred from the largest value"]


def _ranges(array: Any) -> Iterator[tuple[int, int]]:
    step = max(1, 2**24 // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        if part.size:
            yield int(part.min()), int(part.max())


def array_columns(
    width: int, kinds: Mapping[str, str] | str, named: Sequence[Column] | None
) -> list[Column]:
    """Return columns of given kinds, called ``x0``, ``x1`` and so on where they have no names.

    Raises:
        ValueError: If a kind needs the names of categories, or a name is not a column's.
    """
    names = [f"x{i}" for i in range(width)] if named is None else [each.name for each in named]
    if isinstance(kinds, str):
        kinds = dict.fromkeys(names, kinds)
    unknown = [name for name in kinds if name not in names]
    check(not unknown, "kinds", f"name columns ({listed(names)})", listed(unknown))
    for kind in kinds.values():
        rule = "be 'gaussian' or 'count' in an array, which has no names of categories"
        check(kind in ("gaussian", "count"), "kinds", rule, repr(kind))
    return [Column(name, kinds.get(name, "gaussian")) for name in names]  # type: ignore[arg-type]
