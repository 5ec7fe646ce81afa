"""What every source of data offers: three data sets of one shape, and what their values are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import (
    check,
    check_choice,
    check_event_shape,
    check_finite,
    check_levels,
    check_trailing,
    listed,
)
from pyro_genmodels._configuration import Configured
from pyro_genmodels._files import save_whole, written_whole
from pyro_genmodels.data.base.columns import Column, check_columns, frame_of
from pyro_genmodels.data.base.rows import chunks_of

Items: TypeAlias = "Dataset[tuple[Tensor, ...]]"
SPLITS = ("train", "validation", "test")


class DataSource(Configured, Abstract):
    """Training, validation and test data with one description.

    Items are tuples ``(x,)``, ``(x, label)``, ``(x, features)`` or ``(x, label, features)``. Where
    the data are in memory the data sets are ``torch.utils.data.TensorDataset``, where they are
    mapped or shared ``Rows``; both are checked whole when the source is made, and ``.tensors`` has
    all of them at once. Other data sets are checked by their first item.

    Args:
        train: Data to fit.
        validation: Data to choose by.
        test: Data to report on.
        num_levels: The data are the integers ``0 .. num_levels - 1``, in any dtype; ``None`` for
            continuous data.
        num_classes: Number of labels; ``None`` if items are ``(x,)``. A label is -1 where it is not
            known, for models that take such ones, such as mixtures.
        classes: Names of the labels, in their order.
        columns: The elements of a vector by name and kind; none if they have no names.
        missing: Whether NaN stands for an element that was not observed; if not, it is an error.
        notes: What was inferred or converted, in a few words each.

    Attributes:
        event_shape: Sizes of one ``x``: ``(C, H, W)`` or ``(D,)``; of a series of vectors
            ``(T, D)``, of images ``(T, C, H, W)``.
        context_shape: Sizes of an item's features, floating-point numbers that a model may be
            conditioned on; ``None`` if items have none.

    Raises:
        ValueError: If a data set is empty, shapes differ, or values or labels are out of range.
    """

    path_argument: ClassVar[str | None] = None
    _place: str | None = None  # of a user's file or folder
    """Name of the constructor's argument that says where the data lie, if it has one."""

    sample_suffixes: ClassVar[tuple[str, ...]] = (".pt", ".npy")
    """Suffixes of the files that :meth:`write` writes: a tensor, an array, and the data's own."""

    skipped: Collection[str] = ()
    """Names, in the data's folder, of the files that were left out because they cannot be read."""

    def __init__(
        self,
        train: Items,
        validation: Items,
        test: Items,
        *,
        num_levels: int | None,
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
        columns: Sequence[Column] | None = None,
        missing: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        check(num_levels is None or num_levels >= 2, "num_levels", "be at least 2", num_levels)
        check(num_classes is None or num_classes >= 1, "num_classes", "be positive", num_classes)
        self.train, self.validation, self.test = train, validation, test
        self.num_levels, self.num_classes = num_levels, num_classes
        self.classes = None if classes is None else list(classes)
        self.columns = None if columns is None else list(columns)
        self.missing, self.notes = missing, list(notes)
        for split, dataset in self.splits.items():
            size = len(dataset)  # type: ignore[arg-type]
            check(size > 0, split, "have at least one example", f"{size} examples")
        first = train[0]
        self.event_shape = check_event_shape(first[0].shape, ranks=(1, 2, 3, 4), argument="train")
        beside = first[1:] if num_classes is None else first[2:]
        self.context_shape = torch.Size(beside[0].shape) if beside else None
        _check_names("classes", self.classes, num_classes)
        names = None if columns is None else [column.name for column in columns]
        _check_names("columns", names, self.event_shape.numel())
        for split, dataset in self.splits.items():
            self._check_items(split, dataset)

    @property
    def name(self) -> str:
        """Short name, for titles and tables: of the class, or of the user's file or folder."""
        if self._place is None:
            return type(self).__name__
        return os.path.basename(os.path.abspath(os.path.expanduser(self._place)))

    @property
    def splits(self) -> dict[str, Items]:
        """The three data sets by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def skipped_files(self) -> dict[str, Path]:
        """The files that were left out, by their names in the data's folder."""
        folder = Path(self._place or "").expanduser()
        return {str(name): folder / name for name in self.skipped}

    def write(self, x: Tensor, path: str | Path) -> None:
        """Write data, such as a model's samples, to a file whose suffix says in what form.

        A source whose data have a form of their own, as text has, adds it: see
        :attr:`sample_suffixes`.

        Args:
            x: Data ``(n, *event_shape)``.
            path: Where to; the file is replaced if there is one.

        Raises:
            ValueError: If the data are of another shape, or the suffix is not one of those.
            OSError: If the file cannot be written.
        """
        place = Path(path)
        check_choice("path's suffix", place.suffix, self.sample_suffixes)
        check_trailing("x", x, self.event_shape)
        check(x.dim() == len(self.event_shape) + 1, "x", "be (n, *event_shape)", tuple(x.shape))
        self._write(x.detach().cpu(), place)

    def _write(self, x: Tensor, path: Path) -> None:
        """Write to a file of one of the suffixes."""
        if path.suffix == ".pt":
            return save_whole(x, path)
        with written_whole(path) as temporary:
            return np.save(temporary, x.numpy())

    def _check_items(self, split: str, dataset: Any) -> None:
        counts = self.columns is not None and all(c.kind == "count" for c in self.columns)
        options = {"missing": self.missing, "integers": counts}
        for x, *rest in chunks_of(dataset):
            check_event(split, x, self.event_shape, self.num_levels, **options)
            if self.columns is not None:
                check_columns(split, x, self.columns)
            parts = [torch.as_tensor(part) for part in rest]
            if self.num_classes is not None or self.context_shape is None:
                check_labels(split, parts.pop(0) if parts else None, self.num_classes)
            if self.context_shape is not None:
                rule = "have features beside its data, as the training data have"
                check(len(parts) > 0, split, rule, "none")
                check_trailing(f"{split}: features", parts[0], self.context_shape)
                check_finite(f"{split}: features", parts[0])

    def to_frame(self, x: Tensor) -> Any:
        """Return vectors, such as samples of a model, as a table with this source's columns.

        Values of categorical columns become their names, counts and levels become integers, and
        NaN stays a missing value. Columns without a name are called ``x0``, ``x1`` and so on.

        Args:
            x: Vectors ``(n, D)``.

        Returns:
            A pandas ``DataFrame`` of ``n`` rows; its ``to_csv`` writes a file.

        Raises:
            ValueError: If the data are not vectors, or ``x`` has another shape.
            ImportError: If pandas is not installed.
        """
        vectors = len(self.event_shape) == 1
        check(vectors, "x", "be vectors to become a table", f"events of {tuple(self.event_shape)}")
        check_trailing("x", x, self.event_shape)
        check(x.dim() == 2, "x", "be (n, D)", f"shape {tuple(x.shape)}")
        names = [f"x{i}" for i in range(x.shape[1])]
        columns = self.columns or [Column(name) for name in names]
        return frame_of(x, columns, whole=self.num_levels is not None)

    @property
    def summary(self) -> str:
        """What the data are, and what was inferred or converted, on one line."""
        return "; ".join([repr(self), *self.notes])

    def __repr__(self) -> str:
        """Name, sizes and shape on one line."""
        sizes = "/".join(str(len(part)) for part in self.splits.values())  # type: ignore[arg-type]
        kinds = {column.kind for column in self.columns or ()} or {"gaussian"}
        values = "continuous" if kinds == {"gaussian"} else "mixed columns"
        values = "counts" if kinds == {"count"} else values
        levels = values if self.num_levels is None else f"{self.num_levels} levels"
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        return f"{self.name}({sizes} of shape {tuple(self.event_shape)}, {levels}{classes})"


def _check_names(argument: str, names: Sequence[str] | None, size: int | None) -> None:
    if names is not None:
        check(len(names) == size, argument, f"be {size}, one for each", len(names))
        twice = [name for name, count in Counter(names).items() if count > 1]
        check(not twice, argument, "have different names", f"{listed(twice)} more than once")


def check_event(
    split: str,
    x: Tensor,
    event_shape: torch.Size,
    num_levels: int | None,
    *,
    missing: bool = False,
    integers: bool = False,
) -> None:
    """Raise ``ValueError`` unless ``x`` has the shape and the values that were declared."""
    check_trailing(split, x, event_shape)
    if num_levels is None:
        fits = integers or x.is_floating_point()
        check(fits, split, "be floating-point without num_levels", x.dtype)
        check_finite(split, x, missing=missing)
    else:
        check_levels(split, x, num_levels, missing=missing)


def check_labels(split: str, labels: Tensor | None, num_classes: int | None) -> None:
    """Raise ``ValueError`` unless there are labels exactly if there are classes, all in range."""
    given = "labels" if labels is not None else "no labels"
    rule = "have labels exactly if num_classes is given"
    check((labels is None) == (num_classes is None), split, rule, given)
    if labels is not None and num_classes is not None:
        check(not labels.is_floating_point(), split, "have integer labels", labels.dtype)
        low, high = int(labels.min()), int(labels.max())
        rule = f"have -1, where unknown, or labels from 0 to {num_classes - 1}"
        check(low >= -1 and high < num_classes, split, rule, f"labels from {low} to {high}")
