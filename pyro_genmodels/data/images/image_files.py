"""Data sets of image files: decoded on access, or before and mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels.data.images.decoding import Decoding, decode


class ImageFiles(Dataset[tuple[Tensor, ...]]):
    """Image files as levels ``(C, H, W)``, decoded on access.

    Args:
        paths: The files.
        labels: One per file, if any.
        how: Size, depth and colours.
    """

    def __init__(
        self, paths: Sequence[str | Path], labels: Sequence[int] | None, how: Decoding
    ) -> None:
        self.paths, self.labels, self.how = [Path(path) for path in paths], labels, how

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        path = os.fspath(self.paths[index])
        try:
            x = torch.from_numpy(decode(path, self.how))
        except ValueError as error:
            raise ValueError(f"`root` must hold readable images; got {path!r}: {error}.") from error
        return (x,) if self.labels is None else (x, torch.tensor(self.labels[index]))


class DecodedImages(Dataset[tuple[Tensor, ...]]):
    """Image files, decoded on access only where their pixels are not at hand.

    Args:
        dataset: The files. They alone tell the data apart from others.
        pixels: Images ``(n, C, H, W)``, those of the files among them; they may be mapped.
        rows: Where in ``pixels`` each file's image is.
    """

    def __init__(self, dataset: ImageFiles, pixels: Tensor | None, rows: Sequence[int]) -> None:
        self.dataset = dataset
        self._pixels, self._rows = pixels, torch.tensor(rows)
        labels = dataset.labels
        self._labels = None if labels is None else torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if self._pixels is None:
            return self.dataset[index]
        return tuple(part[0] for part in self._gather(torch.tensor([range(len(self))[index]])))

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """Return several items, as torch's ``DataLoader`` asks for them."""
        if self._pixels is None:
            return [self[index] for index in indices]
        return list(zip(*self._gather(torch.as_tensor(indices)), strict=True))

    @property
    def gather(self) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """Function that returns the items at some indices as one batch.

        Raises:
            AttributeError: If images are decoded on access, which loader processes do faster.
        """
        if self._pixels is None:
            raise AttributeError("gather")
        return self._gather

    def _gather(self, index: Tensor) -> tuple[Tensor, ...]:
        assert self._pixels is not None  # narrows the type for the checker
        x = self._pixels[self._rows[index]]
        return (x,) if self._labels is None else (x, self._labels[index])
