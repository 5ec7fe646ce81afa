"""Anyone's own data in memory: tensors, NumPy arrays, tables, sparse matrices and data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from pyro_genmodels._checks import check
from pyro_genmodels.data.base.columns import Column
from pyro_genmodels.data.base.data_source import SPLITS, DataSource, Items
from pyro_genmodels.data.base.items import Tuples
from pyro_genmodels.data.base.rows import Rows, chunks_of, to_tensor
from pyro_genmodels.data.base.splits import fraction_of, split
from pyro_genmodels.data.files.arrays import (
    Contents,
    array_columns,
    channels_first,
    encoded_labels,
    inferred_levels,
)
from pyro_genmodels.data.files.tables import (
    TableOptions,
    from_frames,
    from_sparse,
    is_frame,
    is_sparse,
)

Given: TypeAlias = "Any"
"""A tensor, an array, a table, a sparse matrix, a list of equal arrays, or a pair of one of these
with labels; or a ``Dataset``."""


class InMemory(DataSource):
    """Data that this process holds: tensors, arrays, tables, sparse matrices, or a ``Dataset``.

    Arrays are ``(n, C, H, W)``, ``(n, H, W, C)`` or ``(n, D)``, of series of vectors ``(n, T, D)``
    and of images ``(n, T, C, H, W)``, or pairs ``(x, labels)``. In the
    place of an array's labels there may be floating-point features ``(n, K)``, such as
    :func:`size_factors`, for a model with that ``context_shape``; so there may beside tables and
    sparse matrices. Labels together with features are ``(x, labels, features)``, or
    ``(table, features)`` of a table with a ``label`` column. Masked elements of an array are
    missing. A data set is anything with a length and items, torch's or another library's, or a
    ``DataLoader`` of one; items are ``x``, ``(x, label)`` or dictionaries, ``x`` a tensor, an array
    or a PIL image. Tables are frames of pandas or polars, matrices SciPy's; what :class:`FromFile`
    says of them holds here. Missing splits are drawn at random from the training data.

    A run folder cannot keep such data: its configuration records their shape and a checksum, and
    a later ``load`` or ``evaluate`` needs the source again. To have it found by itself, save the
    arrays and use :class:`FromFile`.

    Args:
        train: Training data.
        validation: Validation data.
        test: Test data.
        num_levels: The data are integers ``0 .. num_levels - 1``; ``None``: continuous.
        num_classes: Number of labels; ``None`` leaves integer labels of arrays out. Names of
            classes are counted by themselves.
        label: Column of a table that holds labels.
        drop: Columns of a table to leave out.
        kinds: ``"gaussian"``, ``"categorical"`` or ``"count"`` for columns by name, or for all.
        missing: Whether NaN, or an empty cell, stands for a value that was not observed.
        keys: Names of the data and of the labels in items that are dictionaries; usual names are
            found without.
        channels_last: Whether images are ``(n, H, W, C)``; found out by default.
        validation_fraction: Part of the training data to split off if there is no validation.
        test_fraction: Part of the training data to split off if there is no test.
        seed: Seed of the split.

    Raises:
        ValueError: If a part is empty, shapes differ, or values or labels are out of range.
        ImportError: If a table is given and pandas is not installed.

    Example:
        >>> InMemory(torch.rand(100, 3), test=torch.rand(10, 3))
        InMemory(90/10/10 of shape (3,), continuous)
    """

    def __init__(
        self,
        train: Given,
        validation: Given | None = None,
        test: Given | None = None,
        *,
        num_levels: int | None = None,
        num_classes: int | None = None,
        label: str | None = None,
        drop: Sequence[str] = (),
        kinds: Mapping[str, str] | str | None = None,
        missing: bool = False,
        keys: Sequence[str] | None = None,
        channels_last: bool | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        every = zip(SPLITS, (train, validation, test), strict=True)
        given = {k: v for k, v in every if v is not None}
        label = None if label is None else str(label)  # pandas numbers columns without names
        options = TableOptions(label, tuple(drop), kinds, missing, num_classes, num_levels)
        if (contents := _table(given, options)) is not None:
            facts = assembled(contents, options, channels_last)
        else:
            facts = _arrays(given, options, channels_last, keys)
        parts = facts.pop("parts")
        # Recorded instead of the data themselves, which are neither plain nor small.
        prints = {k: _fingerprint(v, parts[k]) for k, v in given.items()}
        self.__dict__.setdefault("_constructor_arguments", {}).update(prints)
        parts = complete(parts, seed, validation=validation_fraction, test=test_fraction)
        super().__init__(**parts, **facts)
        items = parts["train"].dataset if isinstance(parts["train"], Subset) else parts["train"]
        self.notes += items.read.notes if isinstance(items, Tuples) else []


def complete(parts: dict[str, Any], seed: int, **fractions: float) -> dict[str, Any]:
    """Split off the training data what is missing."""
    missing = [name for name in fractions if name not in parts]
    if not missing:
        return parts
    train: Any = parts["train"]
    counts = [fraction_of(len(train), fractions[k], f"{k}_fraction") for k in missing]
    rows = split(len(train), counts, seed)
    return parts | {k: _rows(train, r) for k, r in zip(["train", *missing], rows, strict=True)}


def assembled(
    contents: Contents,
    options: TableOptions,
    channels_last: bool | None = None,
    *,
    series: bool = False,
) -> dict[str, Any]:
    """Return the arguments of a data source, data sets as ``parts``, that contents amount to.

    Raises:
        ValueError: If the data cannot be what the options say.
    """
    x, columns, notes = contents.x, contents.columns, list(contents.notes)
    for part, array in x.items():
        check(array.dtype.kind in "biuf", part, "hold real numbers", f"dtype {array.dtype}")
        check(array.shape[0] > 0, part, "have at least one example", f"shape {array.shape}")
    dtype, levels = None, options.num_levels
    if contents.is_table:
        check(channels_last is None, "channels_last", "be left out for a table", channels_last)
        check(not series, "series", "be left out for a table", series)
    else:
        check(options.label is None, "label", "be left out: arrays have no columns", options.label)
        rank = x["train"].ndim
        rule = "be given for arrays (n, T, D)"
        check(not series or rank == 3, "series", rule, f"shape {x['train'].shape}")
        if rank == 3 and not series:
            notes.append("grey images without a channel")
            x = {part: a[:, None] if a.ndim == 3 else a for part, a in x.items()}
        x, moved = channels_first(x, channels_last)
        notes += moved
        if options.kinds:
            columns = _columns(x["train"], options, columns)
            dtype = torch.float32 if x["train"].dtype.kind in "biu" else None
        elif levels is None:
            levels, inferred = inferred_levels(x)
            notes += inferred
    num_classes, classes = options.num_classes, contents.classes
    codes = _features(contents.labels, num_classes) if contents.is_table else {}
    if not codes:
        codes, num_classes, classes = encoded_labels(contents.labels, classes, num_classes)
    unlabelled = [part for part in x if codes and part not in codes]
    check(not unlabelled, "labels", "be given for all splits or none", f"none for {unlabelled}")
    features = {part: to_tensor(each) for part, each in contents.features.items()}
    for beside in (codes, features):
        for part, given in beside.items():
            _check_labels_fit(part, x[part], given)
    every = [beside for beside in (codes, features) if beside]
    return {
        "parts": {
            part: Rows([array, *(beside[part].numpy() for beside in every)], dtype=dtype)
            for part, array in x.items()
        },
        "num_levels": levels,
        "num_classes": num_classes,
        "classes": classes,
        "columns": columns,
        "missing": options.missing,
        "notes": notes,
    }


def _are_features(beside: Tensor) -> bool:
    """Whether what stands beside data conditions a model on numbers, and not on labels."""
    return beside.is_floating_point() and beside.dim() > 1


def _are_names(beside: Any) -> bool:
    return not isinstance(beside, Tensor) and np.asarray(beside).dtype.kind in "USO"


def _features(beside: Mapping[str, Any], num_classes: int | None) -> dict[str, Tensor]:
    """Return the features that stand beside data, nothing where labels do."""
    if num_classes is not None or any(map(_are_names, beside.values())):
        return {}
    return {k: f for k, each in beside.items() if _are_features(f := to_tensor(each))}


def _beside_labels(rest: Mapping[str, Sequence[Any]], number: int) -> dict[str, Tensor]:
    """Return the features that stand behind labels, in all splits or none."""
    found = {part: to_tensor(each[0]) for part, each in rest.items() if each}
    for part, features in found.items():
        rule = "have floating-point features (n, ...) behind its labels"
        check(_are_features(features), part, rule, f"shape {tuple(features.shape)}")
    known = f"for {', '.join(found)} alone"
    check(len(found) in (0, number), "features", "be given for all splits or none", known)
    return found


def _columns(train: Any, options: TableOptions, named: Sequence[Column] | None) -> list[Column]:
    shape = tuple(train.shape)
    check(len(shape) == 2, "kinds", "be given for vectors (n, D)", f"shape {shape}")
    return array_columns(shape[1], options.kinds or {}, named)


def _check_labels_fit(argument: str, x: Any, labels: Tensor) -> None:
    rule = f"have one label for each of its {x.shape[0]} examples"
    fits = len(labels) == x.shape[0] and (labels.dim() == 1 or _are_features(labels))
    check(fits, argument, rule, f"labels of shape {tuple(labels.shape)}")


def _table(given: Mapping[str, Any], options: TableOptions) -> Contents | None:
    """Return the contents of tables or sparse matrices, ``None`` if that is not what is given."""
    lengths = (1, 2, 3)
    pairs = {k: v if isinstance(v, tuple) and len(v) in lengths else (v,) for k, v in given.items()}
    frames = [is_frame(x) for x, *_ in pairs.values()]
    sparse = [is_sparse(x) for x, *_ in pairs.values()]
    if not any(frames) and not any(sparse):
        return None
    rule = "be tables, or sparse matrices, in all splits"
    check(all(frames) or all(sparse), "train", rule, [type(x).__name__ for x, *_ in pairs.values()])
    read = from_frames if all(frames) else from_sparse
    contents = read({k: x for k, (x, *_) in pairs.items()}, options)
    beside = {k: labels for k, (_, *labels) in pairs.items() if labels}
    first = {k: labels[0] for k, labels in beside.items()}
    if contents.labels and len(_features(first, None)) == len(given):
        contents.features = first
    elif beside:
        check(not contents.labels, "label", "be left out if labels are given", options.label)
        contents.labels = first
        contents.features = _beside_labels({k: rest[1:] for k, rest in beside.items()}, len(given))
    return contents


def _arrays(
    given: Mapping[str, Any],
    options: TableOptions,
    channels_last: bool | None,
    keys: Sequence[str] | None,
) -> dict[str, Any]:
    """Return the arguments of a data source of arrays and data sets."""
    check(options.label is None, "label", "be given for a table", options.label)
    check(not options.drop, "drop", "be given for a table", list(options.drop))
    pairs = {k: _pair(k, v) for k, v in given.items()}
    described: dict[str, Any] = {"num_levels": options.num_levels, "missing": options.missing}
    described |= {"num_classes": options.num_classes, "keys": keys}
    parts: dict[str, Any] = {
        k: Tuples(v, k, **described) for k, v in pairs.items() if not isinstance(v, tuple)
    }
    x = {k: v[0] for k, v in pairs.items() if k not in parts}
    notes: list[str] = []
    if "train" in x:
        x, notes = channels_first(x, channels_last)
    columns = None
    if options.kinds:
        check("train" in x, "kinds", "be given for arrays or a table", "a data set")
        columns = _columns(x["train"], options, None)
        x = {k: to_tensor(v) for k, v in x.items()}
        x = {k: v if v.is_floating_point() else v.float() for k, v in x.items()}
    labels = {k: v[1] for k, v in pairs.items() if k in x and v[1] is not None}
    num_classes, classes = options.num_classes, None
    codes = _features(labels, num_classes)
    if num_classes is not None or any(map(_are_names, labels.values())):
        codes, num_classes, classes = encoded_labels(labels, None, num_classes)
    features = _beside_labels({k: pairs[k][2:] for k in x}, len(given))
    rule = "be given for data with labels and features"
    check(not features or num_classes is not None, "num_classes", rule, num_classes)
    for k, values in x.items():
        beside = [every[k] for every in (codes, features) if k in every]
        for each in beside:
            _check_labels_fit(k, values, each)
        if isinstance(values, np.memmap):
            parts[k] = Rows([values, *(each.numpy() for each in beside)])
        else:
            parts[k] = TensorDataset(values, *(each.to(values.device) for each in beside))
    facts = {"num_levels": options.num_levels, "num_classes": num_classes, "classes": classes}
    return {"parts": parts, "columns": columns, "missing": options.missing, "notes": notes, **facts}


def _pair(argument: str, given: Given) -> Any:
    """Return a data set, or arrays and their labels if there are any."""
    if isinstance(given, Mapping) and "sha256" in given:
        rule = "be given again: a run folder keeps no data that were only in memory"
        check(False, argument, rule, "the record of " + str(dict(given)))
    if isinstance(given, TensorDataset):
        given = tuple(given.tensors)
    if isinstance(given, DataLoader):
        given = given.dataset
    rule = "be given to Streamed: it has no items by their index"
    check(not isinstance(given, IterableDataset), argument, rule, type(given).__name__)
    if _is_dataset(given):
        return given
    labelled = isinstance(given, tuple)
    fits = not labelled or len(given) in (1, 2, 3)
    check(fits, argument, "be x, (x, labels) or (x, labels, features)", type(given))
    x = _tensor(argument, given[0] if labelled else given)
    shape = tuple(x.shape)
    check(len(shape) > 0 and shape[0] > 0, argument, "have at least one example", shape)
    labels, *features = given[1:] if labelled and len(given) > 1 else (None,)
    return x, labels, *features


def _is_dataset(given: Any) -> bool:
    """Whether this is a data set, torch's or one like it; arrays and lists are not."""
    like_one = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    others = (Tensor, np.ndarray, Sequence, Mapping)
    return isinstance(given, Dataset) or (like_one and not isinstance(given, others))


def _tensor(argument: str, value: Any) -> Any:
    """Turn an array, or a list of equally shaped ones, into a tensor; a memory map stays one."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        shapes = {tuple(np.shape(item)) for item in value}
        check(len(shapes) <= 1, argument, "have examples of one size", sorted(shapes))
        try:
            value = torch.stack([torch.as_tensor(v) for v in value]) if value else torch.empty(0)
        except (TypeError, ValueError, RuntimeError):
            check(False, argument, "hold numbers of one size", f"a list of {value[0]!r:.40}")
    kinds = isinstance(value, Tensor | np.ndarray)
    rule = "be a tensor, an array, a pair of them or a Dataset"
    check(kinds, argument, rule, type(value).__name__)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        floats = np.result_type(value.dtype, np.float32)
        value = np.ma.filled(value.astype(floats), np.nan)
    numeric = isinstance(value, Tensor) or value.dtype.kind in "biuf"
    check(numeric, argument, "hold numbers of one size", f"dtype {value.dtype}")
    dense = not isinstance(value, Tensor) or value.layout is torch.strided
    check(dense, argument, "be dense (SciPy's sparse matrices may be given)", "a sparse tensor")
    # NumPy, which takes the data's checksum, does not have bfloat16.
    value = value.float() if value.dtype is torch.bfloat16 else value
    return value if isinstance(value, np.memmap) else to_tensor(value)


def _fingerprint(given: Given, items: Items) -> dict[str, Any]:
    """Describe data for a run folder: enough to tell whether others are the same."""
    if not isinstance(items, TensorDataset | Rows):
        size = len(items)  # type: ignore[arg-type]
        return {"dataset": type(given).__qualname__, "examples": size, "sha256": None}
    digest = hashlib.sha256()
    for x, *_ in chunks_of(items):
        digest.update(np.ascontiguousarray(x.detach().cpu().numpy()).data)
    shape, dtype = [len(items), *x.shape[1:]], x.detach().cpu().numpy().dtype
    return {"shape": shape, "dtype": str(dtype), "sha256": digest.hexdigest()}


def _rows(dataset: Items, rows: list[int]) -> Items:
    if isinstance(dataset, Rows):
        return dataset.subset(rows)
    if isinstance(dataset, TensorDataset):
        index = torch.tensor(rows)
        return TensorDataset(*(tensor[index.to(tensor.device)] for tensor in dataset.tensors))
    return Subset(dataset, rows)
