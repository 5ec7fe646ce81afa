"""Anyone's own data: tensors, NumPy arrays and data sets, or a file of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from pyro_genmodels._checks import check, check_choice
from pyro_genmodels.data.base.data_source import SPLITS, DataSource, Items
from pyro_genmodels.data.base.items import Tuples
from pyro_genmodels.data.base.splits import fraction_of, split

Given: TypeAlias = "Any"
"""A tensor, an array, a pair of either with labels, a list of equal ones, or a ``Dataset``."""


class InMemory(DataSource):
    """Data that this process holds: tensors, NumPy arrays, or any ``torch`` ``Dataset``.

    Arrays are ``(n, C, H, W)`` or ``(n, D)``, or pairs ``(x, labels)``; items of a data set are
    ``x`` or ``(x, label)``, ``x`` a tensor, an array or a PIL image. What is not given of
    ``validation`` and ``test`` is split off ``train`` at random.

    A run folder cannot keep such data: its configuration records their shape and a checksum, and
    a later ``load`` or ``evaluate`` needs the source again. To have it found by itself, save the
    arrays and use :class:`FromFile`.

    Args:
        train: Training data.
        validation: Validation data.
        test: Test data.
        num_levels: The data are integers ``0 .. num_levels - 1``; ``None``: continuous.
        num_classes: Number of labels; ``None`` leaves labels out.
        validation_fraction: Part of the training data to split off if there is no validation.
        test_fraction: Part of the training data to split off if there is no test.
        seed: Seed of the split.

    Raises:
        ValueError: If a part is empty, shapes differ, or values or labels are out of range.

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
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        every = zip(SPLITS, (train, validation, test), strict=True)
        given = {k: v for k, v in every if v is not None}
        parts = {k: _items(k, v, num_levels, num_classes) for k, v in given.items()}
        # Recorded instead of the data themselves, which are neither plain nor small.
        prints = {k: _fingerprint(v, parts[k]) for k, v in given.items()}
        self.__dict__.setdefault("_constructor_arguments", {}).update(prints)
        parts = _complete(parts, seed, validation=validation_fraction, test=test_fraction)
        super().__init__(**parts, num_levels=num_levels, num_classes=num_classes)


class FromFile(DataSource):
    """Arrays in a file, which a run folder and the command line can name.

    Args:
        path: ``.npy`` (one array), ``.npz`` or ``.pt`` (arrays by name, no pickled objects).
            Names are ``train``, ``validation``, ``test`` with ``train_labels`` and so on beside
            them; only ``train`` is needed.
        num_levels: The data are integers ``0 .. num_levels - 1``; ``None``: continuous.
        num_classes: Number of labels; ``None`` leaves labels out.
        validation_fraction: Part of the training data to split off if there is no validation.
        test_fraction: Part of the training data to split off if there is no test.
        seed: Seed of the split.

    Raises:
        ValueError: If the file is missing, of another kind or damaged, or its data are refused
            as by :class:`InMemory`.
    """

    path_argument: ClassVar[str | None] = "path"

    def __init__(
        self,
        path: str,
        *,
        num_levels: int | None = None,
        num_classes: int | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        arrays = _read(Path(path).expanduser())
        check("train" in arrays, "path", "be a file with an array `train`", sorted(arrays))
        given = {k: _labelled(arrays, k) for k in SPLITS if k in arrays}
        parts = {k: _items(k, v, num_levels, num_classes) for k, v in given.items()}
        parts = _complete(parts, seed, validation=validation_fraction, test=test_fraction)
        super().__init__(**parts, num_levels=num_levels, num_classes=num_classes)
        self.path = path

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(self.path).name


def _complete(parts: dict[str, Any], seed: int, **fractions: float) -> dict[str, Any]:
    """Split off the training data what is missing."""
    missing = [name for name in fractions if name not in parts]
    if not missing:
        return parts
    train: Any = parts["train"]
    counts = [fraction_of(len(train), fractions[k], f"{k}_fraction") for k in missing]
    rows = split(len(train), counts, seed)
    return parts | {k: _rows(train, r) for k, r in zip(["train", *missing], rows, strict=True)}


def _rows(dataset: Items, rows: list[int]) -> Items:
    if isinstance(dataset, TensorDataset):
        return TensorDataset(*(tensor[rows] for tensor in dataset.tensors))
    return Subset(dataset, rows)


def _items(argument: str, given: Given, num_levels: int | None, num_classes: int | None) -> Any:
    if isinstance(given, Mapping) and "sha256" in given:
        rule = "be given again: a run folder keeps no data that were only in memory"
        check(False, argument, rule, "the record of " + str(dict(given)))
    if isinstance(given, TensorDataset):
        given = tuple(given.tensors)
    if isinstance(given, Dataset):
        return Tuples(given, argument, num_levels=num_levels, num_classes=num_classes)
    labelled = isinstance(given, tuple)
    check(not labelled or len(given) in (1, 2), argument, "be x or (x, labels)", type(given))
    x = _tensor(argument, given[0] if labelled else given)
    check(x.dim() > 0 and len(x) > 0, argument, "have at least one example", tuple(x.shape))
    if num_classes is None or not labelled or len(given) == 1:
        return TensorDataset(x)
    labels = _tensor(argument, given[1])
    rule = f"have one label for each of its {len(x)} examples"
    check(labels.shape == (len(x),), argument, rule, f"labels of shape {tuple(labels.shape)}")
    check(not labels.is_floating_point(), argument, "have integer labels", labels.dtype)
    return TensorDataset(x, labels.long())


def _tensor(argument: str, value: Any) -> Tensor:
    """Turn an array, or a list of equally shaped ones, into a tensor."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        shapes = {tuple(np.shape(item)) for item in value}
        check(len(shapes) <= 1, argument, "have examples of one size", sorted(shapes))
        value = torch.stack([torch.as_tensor(v) for v in value]) if value else torch.empty(0)
    kinds = isinstance(value, Tensor | np.ndarray)
    rule = "be a tensor, an array, a pair of them or a Dataset"
    check(kinds, argument, rule, type(value).__name__)
    numeric = isinstance(value, Tensor) or value.dtype.kind in "biuf"
    check(numeric, argument, "hold numbers of one size", f"dtype {value.dtype}")
    return value if isinstance(value, Tensor) else _from_numpy(value)


def _from_numpy(array: Any) -> Tensor:
    """Copy an array in a dtype and byte order that torch computes in."""
    unsigned = array.dtype.kind == "u" and array.dtype.itemsize > 1
    dtype = np.dtype(np.int64) if unsigned else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))


def _fingerprint(given: Given, items: Items) -> dict[str, Any]:
    """Describe data for a run folder: enough to tell whether others are the same."""
    if not isinstance(items, TensorDataset):
        size = len(items)  # type: ignore[arg-type]
        return {"dataset": type(given).__qualname__, "examples": size, "sha256": None}
    array = items.tensors[0].detach().cpu().numpy()
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}


def _read(path: Path) -> dict[str, Any]:
    check(path.is_file(), "path", "be a file", repr(str(path)))
    check_choice("path's suffix", path.suffix, (".npy", ".npz", ".pt"))
    try:
        if path.suffix == ".pt":
            found = torch.load(path, map_location="cpu", weights_only=True)
            return found if isinstance(found, dict) else {"train": found}
        stored = np.load(path, allow_pickle=False)
        return dict(stored) if path.suffix == ".npz" else {"train": stored}
    except Exception as error:  # each format fails in many ways of its own
        reason = f"{str(path)!r}: {str(error).splitlines()[0] if str(error) else error!r}"
        raise ValueError(f"`path` must be a readable {path.suffix} file; got {reason}") from error


def _labelled(arrays: Mapping[str, Any], name: str) -> Any:
    labels = arrays.get(f"{name}_labels")
    return arrays[name] if labels is None else (arrays[name], labels)
