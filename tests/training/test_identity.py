"""What tells data apart before they are encoded: any change that matters, and few reads."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

pytest.importorskip("lightning.pytorch")

from pyro_genmodels import data
from pyro_genmodels.training import data_fingerprint
from pyro_genmodels.training.data_fingerprint import add_data

NUMBER = 200
UNSEEN = 1  # 64 items out of 200 are looked at: the first, and none of the next two


def mark(dataset: Any) -> str:
    digest = hashlib.sha256()
    add_data(digest, "train", dataset)
    return digest.hexdigest()


def marks(source: data.DataSource) -> list[str]:
    return [mark(part) for part in source.splits.values()]


def folder_of_images(root: Path) -> data.ImageFolder:
    return data.ImageFolder(str(root), size=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pillow = pytest.importorskip("PIL.Image")
    for index in range(NUMBER):
        picture = pillow.fromarray(np.full((2, 2, 3), index, dtype=np.uint8))
        picture.save(tmp_path / f"{index:03}.png")
    return tmp_path


def test_a_file_that_is_not_looked_at_is_missed_by_none(root: Path) -> None:
    source = folder_of_images(root)
    before = marks(source)
    assert marks(folder_of_images(root)) == before
    files: Any = source.train
    changed = files.dataset.paths[UNSEEN]
    found = changed.stat()
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.full((2, 2, 3), 255, dtype=np.uint8)).save(changed)
    os.utime(changed, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    after = marks(folder_of_images(root))
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_how_images_are_read_matters(root: Path) -> None:
    made = [
        data.ImageFolder(str(root), **options)  # type: ignore[arg-type]
        for options in ({"size": 2}, {"size": 2, "num_bits": 5}, {"size": 3}, {"seed": 1})
    ]
    assert len({mark(source.train) for source in made}) == 4


def test_a_folder_may_be_elsewhere(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = marks(folder_of_images(root))
    moved = tmp_path_factory.mktemp("elsewhere") / root.name
    root.rename(moved)
    assert marks(folder_of_images(moved)) == before


class Counting(Dataset[Any]):
    """Items that depend on public values, and a private cache; counts its reads."""

    def __init__(self, values: Any, **more: Any) -> None:
        self.values = values
        self._reads = 0
        for name, value in more.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        self._reads += 1
        return (torch.as_tensor(self.values[index]),)


def test_data_are_not_all_read() -> None:
    dataset = Counting(range(NUMBER))
    first = mark(dataset)
    assert 0 < dataset._reads <= data_fingerprint._PROBES
    assert mark(dataset) == first


@pytest.mark.parametrize("kind", ["array", "tensor", "list", "labels"])
def test_values_in_memory_count_whole(kind: str) -> None:
    made = {
        "array": lambda v: Counting(v.numpy()),
        "tensor": Counting,
        "list": lambda v: Counting(v.tolist()),
        "labels": lambda v: Counting(range(NUMBER), targets={"all": v.tolist()}),
    }[kind]
    values = torch.zeros(NUMBER)
    other = values.clone()
    other[UNSEEN] = 1
    assert mark(made(values)) == mark(made(values.clone())) != mark(made(other))


def test_a_mapped_array_counts_as_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(NUMBER))

    def mapped() -> str:
        return mark(Counting(np.load(tmp_path / "x.npy", mmap_mode="r")))

    before = mapped()
    assert mapped() == before
    array = np.load(tmp_path / "x.npy", mmap_mode="r+")
    array[UNSEEN] = 1
    array.flush()
    found = (tmp_path / "x.npy").stat()
    os.utime(tmp_path / "x.npy", ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert mapped() != before


def test_what_a_data_set_says_of_itself_is_believed() -> None:
    one, two = (Counting(range(i, i + NUMBER), fingerprint="v1") for i in (0, 1))
    assert mark(one) == mark(two) != mark(Counting(range(NUMBER), fingerprint="v2"))
    assert one._reads == 0


def test_tensors_and_rows_count() -> None:
    x = torch.zeros(NUMBER, 1, 2, 2)
    other = x.clone()
    other[UNSEEN] = 1
    assert mark(TensorDataset(x)) == mark(TensorDataset(x.clone())) != mark(TensorDataset(other))
    base = Counting(range(NUMBER))
    one, two = (mark(Subset(base, list(range(i, 90 + i)))) for i in (0, 1))
    assert one != two


def test_what_refers_to_itself_ends() -> None:
    dataset = Counting(range(NUMBER))
    dataset.again = [dataset]  # type: ignore[attr-defined]
    assert mark(dataset) == mark(dataset)
