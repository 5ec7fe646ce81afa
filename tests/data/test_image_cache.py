"""Decoded images on disk: the same data with and without, written whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_genmodels import data
from pyro_genmodels.data.images import cache, reading
from pyro_genmodels.models import VAE
from pyro_genmodels.training.batches import Batches

pytest.importorskip("PIL.Image")
from PIL import Image

pytestmark = pytest.mark.once


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where decoded images are kept."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(cache.VARIABLE, str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(40):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (5, 4, 3), np.uint8)
        noise[0, 0] = number
        Image.fromarray(noise).save(path)
    return tmp_path / "photos"


def opened(root: Path, **options: Any) -> Any:
    return data.ImageFolder(str(root), **options)


def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the files that are decoded."""
    noted: list[str] = []
    true = reading.decode

    def noting(path: str, how: Any) -> Any:
        noted.append(path)
        return true(path, how)

    monkeypatch.setattr(reading, "decode", noting)
    return noted


def equal(one: Any, two: Any) -> bool:
    return all(
        len(one.splits[name]) == len(two.splits[name])
        and all(
            torch.equal(x, y)
            for i in range(len(one.splits[name]))
            for x, y in zip(one.splits[name][i], two.splits[name][i], strict=True)
        )
        for name in one.splits
    )


def test_the_same_data_with_and_without(place: Path, root: Path) -> None:
    for options in ({}, {"size": 3, "num_bits": 5, "mode": "L"}, {"seed": 4}):
        made, again = opened(root, **options), opened(root, **options)
        assert equal(made, again)
        assert equal(made, opened(root, **options, cache_limit=0))
        assert made.train[0][0].dtype == torch.uint8
        assert made.train[-1][1] == made.train[len(made.train) - 1][1]
    assert len(list(place.glob("*.npy"))) == 2  # a seed changes the split alone


def test_images_are_decoded_once(place: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = decodes(monkeypatch)
    opened(root)
    assert len(noted) == 40
    opened(root, seed=3, test_fraction=0.3)
    assert len(noted) == 40
    for change in ({"size": 4}, {"num_bits": 4}, {"mode": "L"}, {"background": "red"}):
        before = len(noted)
        opened(root, **change)
        assert len(noted) == before + 40


def test_a_changed_file_is_seen(place: Path, root: Path) -> None:
    before = opened(root)
    path = root / "a" / "00.png"
    found = path.stat()
    other = np.asarray(Image.open(path)).copy()
    other[1, 1] ^= 255
    Image.fromarray(other).save(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # as a copy by rsync or tar has it
    assert not equal(before, opened(root))
    path.unlink()
    assert sum(map(len, opened(root).splits.values())) == 39


def test_batches_are_gathered(place: Path, root: Path) -> None:
    source = opened(root)
    model = VAE(source.event_shape, num_levels=256, latent_dim=2)
    batches = list(Batches(source.train, model, 8, seed=1))
    plain = list(Batches(opened(root, cache_limit=0).train, model, 8, seed=1))
    for (x, _), (y, _) in zip(batches, plain, strict=True):
        assert torch.equal(x, y)
    items = source.train.__getitems__([3, 0])
    assert [[part.tolist() for part in item] for item in items] == [
        [part.tolist() for part in source.train[i]] for i in (3, 0)
    ]


def test_skipped_files_are_remembered(place: Path, root: Path) -> None:
    (root / "a" / "00.png").write_bytes(b"no image")
    path = root / "b" / "01.png"
    path.write_bytes(path.read_bytes()[:-40])
    first, again = opened(root, on_bad="skip"), opened(root, on_bad="skip")
    assert first.skipped == again.skipped == ["a/00.png", "b/01.png"]
    assert equal(first, again)
    assert equal(first, opened(root, on_bad="skip", cache_limit=0))
    assert len(first.train) == 30
    with pytest.raises(ValueError, match=r"got 2 in .*'a/00.png' \(not an image.*'b/01.png' \("):
        opened(root)


def test_nothing_is_left_of_a_failure(place: Path, root: Path) -> None:
    path = root / "b" / "01.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="hold readable images"):
        opened(root)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("damage", ["shorter", "other header", "no facts", "bad facts"])
def test_a_damaged_entry_is_made_anew(place: Path, root: Path, damage: str) -> None:
    opened(root)
    whole = opened(root, cache_limit=0)
    (path,) = place.glob("*.npy")
    if damage == "shorter":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other header":
        path.write_bytes(b"x" * 500)
    elif damage == "no facts":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("{")
    assert equal(opened(root), whole)


def test_the_limit(place: Path, root: Path) -> None:
    size = 40 * 60 / 1e9
    with pytest.warns(UserWarning, match="decoded in every epoch: .*more than cache_limit"):
        assert opened(root, cache_limit=size / 2).train[0][0].shape == (3, 5, 4)
    assert not list(place.glob("*.npy"))
    opened(root, cache_limit=1.5 * size)
    old = set(place.glob("*.npy"))
    time.sleep(0.02)
    opened(root, cache_limit=1.5 * size, mode="RGB")  # asked for in other words: an entry more
    new = set(place.glob("*.npy"))
    assert len(new) == 1
    assert not new & old
    assert {path.stem for path in place.glob("*.json")} == {path.stem for path in new}


def test_no_room_and_no_right(place: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = opened(root, cache_limit=0)
    place.write_text("a file where a folder should be")
    with pytest.warns(UserWarning, match="decoded in every epoch"):
        assert equal(opened(root), whole)
    place.unlink()
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.warns(UserWarning, match="has no space"):
        assert equal(opened(root), whole)


FULL = """
import resource, sys, warnings
from pyro_genmodels import data
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a disk that is full
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    source = data.ImageFolder(sys.argv[1])
print(len(source.train), [str(w.message) for w in caught if w.category is UserWarning])
"""


def test_a_full_disk(place: Path, root: Path) -> None:
    command = [sys.executable, "-c", FULL, str(root)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert result.stdout.startswith("32 ['images are decoded in every epoch")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["write", "keep"])
def test_a_disk_that_fills_up(
    place: Path, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.NewImages, name, full)
    with pytest.warns(UserWarning, match="No space left"):
        source = opened(root)
    assert equal(source, opened(root, cache_limit=0))
    assert [path.suffix for path in place.iterdir()] == []


def _open(root: str) -> int:
    return sum(int(x.sum()) for x, _ in data.ImageFolder(root).train)  # type: ignore[attr-defined]


def test_processes_at_once(place: Path, root: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        totals = pool.map(_open, [str(root)] * 8, chunksize=1)
    assert len(set(totals)) == 1
    assert sorted(path.suffix for path in place.iterdir()) == [".json", ".npy"]


def test_stale_files_of_killed_processes_go(place: Path, root: Path) -> None:
    place.mkdir()
    for name, age in ((".dead.1.part", 10**6), (".alive.2.part", 10)):
        (place / name).write_bytes(b"x")
        os.utime(place / name, (time.time() - age,) * 2)
    opened(root)
    assert [path.name for path in place.glob(".*.part")] == [".alive.2.part"]


def test_workers_give_what_one_process_gives(
    place: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = opened(root, on_bad="skip", cache_limit=0)
    monkeypatch.setattr(reading, "_WORTH_WORKERS", 1)
    monkeypatch.setattr(reading, "_CHUNK", 3)
    many = opened(root, on_bad="skip")
    assert equal(alone, many)
    (facts,) = (json.loads(path.read_text()) for path in place.glob("*.json"))
    assert facts[1] == {}


def test_a_worker_that_dies_is_one_error(
    place: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_WORTH_WORKERS", 1)
    monkeypatch.setattr(reading, "_num_workers", lambda _: 2)
    monkeypatch.setattr(reading, "decode", lambda *_: os._exit(9))
    with pytest.raises(ValueError, match="where a worker process died"):
        opened(root)
    assert list(place.iterdir()) == []
