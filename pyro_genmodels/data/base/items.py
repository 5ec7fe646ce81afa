"""Items of foreign data sets, made into ``(x,)`` or ``(x, label)`` and checked one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels._checks import check
from pyro_genmodels.data.base.data_source import check_event, check_labels


class Tuples(Dataset[tuple[Tensor, ...]]):
    """View of a data set whose items are ``x`` or ``(x, label, ...)``.

    Args:
        dataset: Its ``x`` are tensors, arrays or PIL images.
        argument: What the errors call it.
        num_levels: As for a data source.
        num_classes: As for a data source; ``None`` leaves labels out.
    """

    def __init__(
        self,
        dataset: Any,
        argument: str,
        *,
        num_levels: int | None,
        num_classes: int | None = None,
    ) -> None:
        check(hasattr(dataset, "__len__"), argument, "have a length", type(dataset).__name__)
        self.dataset, self.argument = dataset, argument
        self.num_levels, self.num_classes = num_levels, num_classes
        self.event_shape: torch.Size | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        item = self.dataset[index]
        x, *rest = item if isinstance(item, tuple | list) else (item,)
        x = as_event(x)
        # All items are held to the first one seen, so that batches can be stacked.
        self.event_shape = self.event_shape or x.shape
        check_event(self.argument, x, self.event_shape, self.num_levels)
        label = torch.as_tensor(rest[0]) if rest and self.num_classes is not None else None
        check_labels(self.argument, label, self.num_classes)
        return (x,) if label is None else (x, label.long())


def as_event(x: Any) -> Tensor:
    """Return a tensor: of a PIL image ``(C, H, W)`` bytes, of anything else as it is."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    # Only PIL images carry a mode; theirs are (H, W) or (H, W, C).
    if hasattr(x, "mode"):
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(array, order="C"))
