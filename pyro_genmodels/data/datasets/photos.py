"""Patches of the two photographs that come with scikit-learn: real colour without a download."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pyro_genmodels._checks import check, require
from pyro_genmodels._typing import Int, Num
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.pixels import check_bits, with_bits
from pyro_genmodels.data.base.splits import split

_CELL_HEIGHT, _CELL_WIDTH = 106, 80
_HELD_OUT_CELLS = (8, 12)  # validation, test; of 64


class Photos(DataSource):
    """Colour patches of scikit-learn's photographs ``china.jpg`` and ``flower.jpg``.

    The photographs, 427 x 640 pixels each, are cut into 64 cells of 106 x 80 pixels, at random
    but fixed 44 for training, 8 for validation and 12 for test. Patches lie inside one cell, so
    that no pixel of a test patch occurs in training; within a split they may overlap.

    Args:
        size: Height and width of a patch, at most 80.
        num_bits: Bits kept a channel, from 1 to 8.
        train: Number of training patches.
        validation: Number of validation patches.
        test: Number of test patches.
        seed: Seed of the patches' places.

    Attributes:
        places: Photograph, top row and left column of each patch, by split.

    Raises:
        ValueError: If a size or number is out of range.
        ImportError: If scikit-learn is not installed.

    Example:
        >>> Photos(16, train=100, validation=10, test=20)
        Photos(100/10/20 of shape (3, 16, 16), 256 levels)
    """

    places: dict[str, Int[Tensor, "n 3"]]

    def __init__(
        self,
        size: int = 32,
        *,
        num_bits: int = 8,
        train: int = 20_000,
        validation: int = 1_000,
        test: int = 2_000,
        seed: int = 0,
    ) -> None:
        check(1 <= size <= _CELL_WIDTH, "size", f"lie between 1 and {_CELL_WIDTH}", size)
        check_bits(num_bits)
        photos, stream = with_bits(_photos(), num_bits), random.Random(seed)
        cells = split(64, _HELD_OUT_CELLS, seed=0)
        self.places = {}
        counts = {"train": train, "validation": validation, "test": test}
        for (name, count), part in zip(counts.items(), cells, strict=True):
            check(count >= 1, name, "be at least 1", count)
            self.places[name] = _places(stream, count, part, size)
        parts = [TensorDataset(_patches(photos, p, size)) for p in self.places.values()]
        super().__init__(*parts, num_levels=2**num_bits)


def _photos() -> Num[Tensor, "2 3 h w"]:
    images = require("sklearn.datasets", extra="train").load_sample_images().images
    return torch.stack([torch.from_numpy(image.copy()) for image in images]).permute(0, 3, 1, 2)


def _places(
    stream: random.Random, count: int, cells: list[int], size: int
) -> Int[Tensor, "{count} 3"]:
    places = []
    for _ in range(count):
        photo, cell = divmod(cells[int(stream.random() * len(cells))], 32)
        top = cell // 8 * _CELL_HEIGHT + int(stream.random() * (_CELL_HEIGHT - size + 1))
        left = cell % 8 * _CELL_WIDTH + int(stream.random() * (_CELL_WIDTH - size + 1))
        places.append((photo, top, left))
    return torch.tensor(places)


def _patches(photos: Tensor, places: Tensor, size: int) -> Num[Tensor, "n 3 size size"]:
    photo, top, left = places[:, :, None, None].unbind(1)
    offset = torch.arange(size)
    patches = photos.permute(0, 2, 3, 1)[photo, top + offset[:, None], left + offset]
    return patches.permute(0, 3, 1, 2).contiguous()
