"""Rows of arrays that lie on disk or are shared, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from pyro_genmodels._checks import check

_CHUNK_BYTES = 2**24


class Rows(Dataset[tuple[Tensor, ...]]):
    """Some rows of arrays, in any order, converted to tensors when they are read.

    The arrays are not copied: a memory map stays on disk, a sparse matrix stays sparse, and the
    splits of one file share its arrays.

    Args:
        arrays: NumPy arrays or SciPy CSR matrices of equal length, one for each part of an item.
        rows: Indices of the rows; all rows in their order by default.
        dtype: Type that the first part of an item is converted to; its own by default.

    Example:
        >>> rows = Rows([np.arange(10) ** 2, np.arange(10)], rows=[3, 2, 1])
        >>> len(rows), rows[0]
        (3, (tensor(9), tensor(3)))
        >>> rows.gather(torch.tensor([2, 1]))
        (tensor([1, 4]), tensor([1, 2]))
    """

    def __init__(
        self,
        arrays: Sequence[Any],
        rows: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.arrays, self.dtype = tuple(arrays), dtype
        self.rows = None if rows is None else np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.arrays[0].shape[0]) if self.rows is None else len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(part[0] for part in self.gather([range(len(self))[index]]))

    def __getitems__(self, indices: Any) -> list[tuple[Tensor, ...]]:
        """Return several items, as torch's ``DataLoader`` asks for them."""
        return list(zip(*self.gather(indices), strict=True))

    def gather(self, index: Any) -> tuple[Tensor, ...]:
        """Return the items at some indices as one batch."""
        places = np.asarray(index, dtype=np.int64)
        return self._read(places if self.rows is None else self.rows[places])

    def chunks(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield all items in batches of some megabytes, in the order in which they are stored."""
        rows = np.arange(len(self)) if self.rows is None else np.sort(self.rows)
        width = max(int(np.prod(array.shape[1:])) * 8 for array in self.arrays)
        step = max(1, _CHUNK_BYTES // max(width, 1))
        for start in range(0, len(rows), step):
            yield self._read(rows[start : start + step])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All items in memory, copied there at each call."""
        return self.gather(np.arange(len(self)))

    def _read(self, rows: Any) -> tuple[Tensor, ...]:
        first, *rest = (to_tensor(array[rows]) for array in self.arrays)
        return (first if self.dtype is None else first.to(self.dtype), *rest)

    def subset(self, rows: Any) -> Rows:
        """Return some of these rows, of the same arrays."""
        chosen = np.asarray(rows, dtype=np.int64)
        return Rows(self.arrays, chosen if self.rows is None else self.rows[chosen], self.dtype)


def with_size_factors(parts: dict[str, Rows]) -> dict[str, Rows]:
    """Return counts ``(n, D)``, and beside each its size factor: see :func:`data.size_factors`.

    The median total is the training data's.

    Raises:
        ValueError: If an example has no count at all, which has no size.
    """
    totals = {
        name: np.asarray(rows.arrays[0].sum(1), dtype=np.float64).reshape(-1, 1)
        for name, rows in parts.items()
    }
    own = {
        name: totals[name] if rows.rows is None else totals[name][rows.rows]
        for name, rows in parts.items()
    }
    for name, values in own.items():
        empty = int((values <= 0).sum())
        check(empty == 0, name, "have a count in every example", f"none in {empty} examples")
    middle = np.median(own["train"])
    return {
        name: Rows(
            [rows.arrays[0], (totals[name] / middle).astype(np.float32)], rows.rows, rows.dtype
        )
        for name, rows in parts.items()
    }


def to_tensor(array: Any) -> Tensor:
    """Return an array in a dtype and byte order that torch computes in, without a needless copy.

    Example:
        >>> to_tensor(np.ones(2, dtype=">u2"))
        tensor([1, 1])
    """
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array.toarray() if hasattr(array, "toarray") else array)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "u" and size > 1:
        native: Any = np.dtype(np.int64)
    elif kind == "f" and size > 8:  # longdouble
        native = np.dtype(np.float64)
    else:
        native = array.dtype.newbyteorder("=")
    array = np.ascontiguousarray(array, dtype=native).reshape(array.shape)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def chunks_of(dataset: Any) -> Iterator[tuple[Tensor, ...]]:
    """Yield all items of a data set that has them at hand in batches; of any other the first."""
    if isinstance(dataset, Rows):
        yield from dataset.chunks()
    elif isinstance(dataset, TensorDataset):
        width = max(1, max(t[0].numel() for t in dataset.tensors)) * 8
        step = max(1, _CHUNK_BYTES // width)
        yield from zip(*(tensor.split(step) for tensor in dataset.tensors), strict=True)
    else:
        yield dataset[0]
