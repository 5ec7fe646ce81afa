"""Items of foreign data sets, made into ``(x,)`` or ``(x, label)`` and checked one by one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels._checks import check, listed, require
from pyro_genmodels.data.base.data_source import check_event, check_labels

_X_KEYS = ("x", "image", "img", "pixel_values", "png", "jpg", "jpeg", "data", "input_ids")
_LABEL_KEYS = ("y", "label", "labels", "target", "cls", "class", "fine_label")


class ItemReader:
    """How the items of a data set become ``(x,)`` or ``(x, label)``.

    Args:
        argument: What the errors call the data set.
        num_levels: As for a data source.
        num_classes: As for a data source; ``None`` leaves labels out.
        keys: Names of the data and of the labels in items that are dictionaries; usual names are
            found without.
        missing: As for a data source.

    Attributes:
        unused: Names of what the first item held beside its data and label.
    """

    def __init__(
        self,
        argument: str,
        *,
        num_levels: int | None,
        num_classes: int | None = None,
        keys: Sequence[str] | None = None,
        missing: bool = False,
    ) -> None:
        rule = "name the data, and after them the labels if there are any"
        check(keys is None or len(keys) in (1, 2), "keys", rule, keys)
        self.argument, self.keys, self.missing = argument, keys, missing
        self.num_levels, self.num_classes = num_levels, num_classes
        self.event_shape: torch.Size | None = None
        self.unused: list[str] = []

    def __call__(self, item: Any) -> tuple[Tensor, ...]:
        """Return one item.

        Args:
            item: ``x``, ``(x, label, ...)`` or a dictionary; ``x`` a tensor, an array, a PIL image
                or the bytes of an image file.

        Raises:
            ValueError: If it does not fit, or has another shape than the first.
        """
        x, label = self._parts(item)
        x = as_event(x)
        # All items are held to the first one seen, so that batches can be stacked.
        self.event_shape = self.event_shape or x.shape
        check_event(self.argument, x, self.event_shape, self.num_levels, missing=self.missing)
        if isinstance(label, bytes):  # a file of a shard, as text
            label = int(label)
        label = None if self.num_classes is None or label is None else torch.as_tensor(label)
        check_labels(self.argument, label, self.num_classes)
        return (x,) if label is None else (x, label.long())

    def _parts(self, item: Any) -> tuple[Any, Any]:
        if not isinstance(item, Mapping):
            x, *rest = item if isinstance(item, tuple | list) else (item,)
            if self.event_shape is None:
                first = 1 if self.num_classes is None else 2
                self.unused = [f"item[{i}]" for i in range(first, len(rest) + 1)]
            return x, rest[0] if rest else None
        if self.keys is None:
            known = (_X_KEYS, _LABEL_KEYS)
            x_keys, label_keys = ([key for key in names if key in item] for names in known)
        else:
            x_keys, label_keys = [self.keys[0]], list(self.keys[1:])
        fits = len(x_keys) == 1 and all(key in item for key in x_keys + label_keys)
        rule = "have items with the data under one usual name, or under one that `keys` gives"
        check(fits, self.argument, rule, f"items with {', '.join(map(str, item))}")
        if self.event_shape is None:
            used = x_keys + (label_keys[:1] if self.num_classes is not None else [])
            # A name such as __key__ is a library's own.
            names = [str(key) for key in item if key not in used]
            self.unused = [name for name in names if not name.startswith("__")]
        return item[x_keys[0]], item[label_keys[0]] if label_keys else None

    @property
    def notes(self) -> list[str]:
        """What is left out of items, for a source's notes."""
        labels = " (labels are used with num_classes)" if self.num_classes is None else ""
        return [f"left out of items: {listed(self.unused)}{labels}"] if self.unused else []


class Tuples(Dataset[tuple[Tensor, ...]]):
    """View of a data set of items by their index, as tuples ``(x,)`` or ``(x, label)``.

    Args:
        dataset: Anything with a length and items, such as a ``Dataset`` of torch or of Hugging
            Face.
        argument: What the errors call it.
        **options: Further arguments of :class:`ItemReader`.
    """

    def __init__(self, dataset: Any, argument: str, **options: Any) -> None:
        sized = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        check(sized, argument, "have a length and items", type(dataset).__name__)
        self.dataset, self.read = dataset, ItemReader(argument, **options)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.read(self.dataset[index])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """Return several items, which a data set may have faster than one after another."""
        gather = getattr(self.dataset, "__getitems__", None)
        found = [self.dataset[i] for i in indices] if gather is None else gather(list(indices))
        return [self.read(item) for item in found]


def as_event(x: Any) -> Tensor:
    """Return a tensor: of a PIL image, or a file of one, ``(C, H, W)``; else of the array."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, bytes):
        x = require("PIL.Image", extra="train").open(io.BytesIO(x))
    array = np.asarray(x)
    # Only PIL images carry a mode; theirs are (H, W) or (H, W, C).
    if hasattr(x, "mode"):
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(array, order="C"))
