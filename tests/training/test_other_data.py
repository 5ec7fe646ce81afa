"""A run knows its data: other ones are refused by name, the same ones are found elsewhere."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

pytest.importorskip("lightning.pytorch")

from pyro_genmodels import data, models, training
from pyro_genmodels.training import CheckpointError, DataFingerprint, data_fingerprint
from tests.training.tiny import QUICK, Tiny

SHAPE = (1, 4, 4)


def images(seed: int = 0, number: int = 60) -> Any:
    return np.random.default_rng(seed).integers(0, 4, (number, *SHAPE)).astype(np.uint8)


def write_array(folder: Path, **options: Any) -> data.DataSource:
    np.save(folder / "x.npy", images())
    return data.FromFile(str(folder / "x.npy"), num_levels=4, **options)


def write_pictures(folder: Path, **options: Any) -> data.DataSource:
    pillow = pytest.importorskip("PIL.Image")
    for label in "ab":
        (folder / label).mkdir()
        for number, pixels in enumerate(images()[:20] * 60):
            pillow.fromarray(pixels[0]).save(folder / label / f"{number}.png")
    return data.ImageFolder(str(folder), mode="L", **options)


def again(source: Any, folder: Path) -> data.DataSource:
    """Return the source of the same data in another folder."""
    arguments = source.current_arguments()
    place = Path(arguments[source.path_argument])
    arguments[source.path_argument] = str(folder / place.name if place.suffix else folder)
    return type(source)(**arguments)


WRITERS = {"array": write_array, "pictures": write_pictures}


@pytest.mark.parametrize("writer", WRITERS)
def test_where_data_lie_and_when_they_were_written_does_not_count(
    writer: str, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    source = WRITERS[writer](tmp_path / "old")
    before = DataFingerprint.of(source)
    assert before.kind == "whole content" == training.fingerprint_kind(source)
    moved = again(source, (tmp_path / "old").rename(tmp_path / "new"))
    for path in (tmp_path / "new").rglob("*"):
        os.utime(path, (1, 1))
    assert before.differences(DataFingerprint.of(moved)) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_a_byte_a_row_more_and_another_split_count(writer: str, tmp_path: Path) -> None:
    source = WRITERS[writer](tmp_path)
    before = DataFingerprint.of(source)
    seeded: Any = type(source)(**{**source.current_arguments(), "seed": 1})
    assert "train has other values" in before.differences(DataFingerprint.of(seeded))
    path = next(path for path in sorted(tmp_path.rglob("*")) if path.is_file())
    found, content = path.stat(), bytearray(path.read_bytes())
    if path.suffix == ".npy":
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        pillow = pytest.importorskip("PIL.Image")
        pillow.fromarray(images(1)[0, 0] * 60).save(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    changed = before.differences(DataFingerprint.of(again(source, tmp_path)))
    # The splits of an array share its file.
    assert len(changed) == (3 if path.suffix == ".npy" else 1)
    assert all(each.endswith("has other values") for each in changed)


def test_labels_levels_names_and_counts_differ_by_name() -> None:
    x, y = torch.randint(0, 4, (60, 3)), torch.arange(60) % 3
    options: dict[str, Any] = {"num_levels": 4, "num_classes": 3}
    before = DataFingerprint.of(data.InMemory((x, y), **options))

    def found(given: Any, **changes: Any) -> list[str]:
        source = data.InMemory(given, **(options | changes))
        return before.differences(DataFingerprint.of(source))

    assert found((x.clone(), y.clone())) == []
    assert "train has other values" in found((x, (y + 1) % 3))
    assert found((x, y), num_levels=5) == ["num_levels is 5, not 4"]
    assert "train has 35 examples, not 42" in found((x[:50], y[:50]))
    assert "num_classes is None, not 3" in found(x, num_classes=None)


def write_sounds(folder: Path) -> data.DataSource:
    soundfile = pytest.importorskip("soundfile")
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", np.sin(np.arange(100.0) * number), 8000)
    return data.Audio(str(folder), length=10)


def write_listed(folder: Path) -> data.DataSource:
    pytest.importorskip("pandas")
    write_pictures(folder)
    names = [f"{label}/{number}.png" for label in "ab" for number in range(20)]
    lines = ["file,label", *(f"{name},{name[0]}" for name in [*names, "bad.png"])]
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "bad.png").touch()
    return data.ImageFolder(str(folder), mode="L", on_bad="skip")


LEFT_OUT = {
    "pictures": (write_pictures, "a/bad.png"),
    "listed": (write_listed, "bad.png"),
    "sounds": (write_sounds, "bad.wav"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_files_that_were_left_out_count_by_their_content(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "old").mkdir()
    write, name = LEFT_OUT[kind]
    arguments = write(folder).current_arguments() | {"on_bad": "skip"}
    (folder / name).write_bytes(b"one")

    def found(place: Path) -> DataFingerprint:
        source: Any = data.open_source(place, **arguments)
        assert list(source.skipped) == [name]
        return DataFingerprint.of(source)

    arguments = {k: v for k, v in arguments.items() if k not in ("root", "path")}
    before = found(folder)
    moved = folder.rename(tmp_path / "new")
    monkeypatch.chdir(moved)  # where the names are those of files
    assert before.differences(found(moved)) == []
    (moved / name).write_bytes(b"two")
    assert before.differences(found(moved)) == ["skipped are others"]


def test_files_that_were_left_out_may_be_missing_or_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Any = write_array(tmp_path)
    source.skipped = ["gone.png", "bad.png"]
    (tmp_path / "bad.png").write_bytes(b"one")
    source._place = str(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("bad.png"))
    before = DataFingerprint.of(source)
    source._place = str(tmp_path / "elsewhere")
    assert before.differences(DataFingerprint.of(source)) == []
    source.skipped = ["gone.png"]
    assert before.differences(DataFingerprint.of(source)) == ["skipped are others"]


class Random(Dataset[Any]):
    """Items drawn at random, as augmented ones are."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Any:
        return torch.rand(3) + index


def test_items_drawn_at_random_are_the_same_and_leave_the_state() -> None:
    source = data.InMemory(Random(), Random(), Random())
    torch.manual_seed(0)
    first = DataFingerprint.of(source)
    assert training.fingerprint_kind(source) == first.kind
    drawn = torch.rand(())
    torch.manual_seed(0)
    assert drawn == torch.rand(())
    assert first.differences(DataFingerprint.of(source)) == []


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_fingerprint, "WHOLE_UP_TO", 100)
    monkeypatch.setattr(data_fingerprint, "_BLOCK", 4)


@pytest.mark.usefixtures("small_limit")
def test_of_large_data_sizes_times_and_blocks_count(tmp_path: Path) -> None:
    source = write_pictures(tmp_path)
    before = DataFingerprint.of(source)
    assert before.kind == "sizes, times and 64 blocks" == training.fingerprint_kind(source)
    assert before.differences(DataFingerprint.of(again(source, tmp_path))) == []
    os.utime(next(tmp_path.rglob("*.png")), (1, 1))
    assert before.differences(DataFingerprint.of(again(source, tmp_path))) != []
    x = torch.zeros(1000, 2)
    large = DataFingerprint.of(data.InMemory(x))
    x[0] = 1
    assert large.differences(DataFingerprint.of(data.InMemory(x))) != []


def vae() -> models.VAE:
    return models.VAE(SHAPE, num_levels=4, latent_dim=2, network=models.VAENetwork(hidden=(4,)))


def trained(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    training.fit(vae(), write_array(folder / "data"), run=folder / "run", max_epochs=1, **QUICK)
    return folder / "run"


def test_a_file_with_other_data_is_noticed(tmp_path: Path) -> None:
    run = trained(tmp_path)
    training.load_source(run)
    np.save(tmp_path / "data" / "x.npy", images(1))
    with pytest.raises(ValueError, match=r"must be the data that .* train has other values"):
        training.load_source(run)
    source = training.load_source(run, accept_other_data=True)
    options: dict[str, Any] = {"run": run, "resume": True, "max_epochs": 2, **QUICK}
    with pytest.raises(ValueError, match="train has other values"):
        training.fit(vae(), source, **options)
    training.fit(vae(), source, accept_other_data=True, **options)
    training.load_source(run)  # the run's own from now on


def test_the_best_weights_are_those_of_the_data_that_were_accepted(tmp_path: Path) -> None:
    options: dict[str, Any] = {"run": tmp_path, "resume": True, **QUICK}
    easy, hard = (data.InMemory(scale * torch.randn(99, 3)) for scale in (1, 20))
    training.fit(Tiny(), easy, max_epochs=2, **options)
    rows = training.fit(Tiny(), hard, max_epochs=4, accept_other_data=True, **options)
    assert [math.isfinite(row["validation_nats"]) for row in rows] == [False, False, True, True]
    assert training.trained_epoch(tmp_path) in (3, 4)
    again = training.fit(Tiny(), hard, max_epochs=5, accept_other_data=True, **options)
    of_the_same = [row["validation_nats"] for row in again[2:4]]
    assert of_the_same == [row["validation_nats"] for row in rows[2:]]


def test_other_data_in_memory_are_noticed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"run": tmp_path, "resume": True, **QUICK}
    one, two = (data.InMemory(torch.randn(99, 3) + shift) for shift in (0, 1))
    training.fit(Tiny(), one, max_epochs=1, **options)
    with pytest.raises(ValueError, match="test has other values"):
        training.fit(Tiny(), two, max_epochs=2, **options)
    training.fit(Tiny(), one, max_epochs=2, **options)


def test_data_are_found_from_another_folder_and_at_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    write_array(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    source = data.FromFile("data/x.npy", num_levels=4)
    training.fit(vae(), source, run="run", max_epochs=1, **QUICK)
    monkeypatch.chdir(tmp_path.parent)
    run = (tmp_path / "run").rename(tmp_path / "elsewhere")
    training.load_source(run)
    moved = (tmp_path / "data").rename(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"data/x.npy', which is not there: .*--data PATH"):
        training.load_source(run)
    training.load_source(run, path=str(moved / "x.npy"))


def test_a_run_of_before_has_no_mark_and_is_read(tmp_path: Path) -> None:
    run = trained(tmp_path)
    for path in (run / "checkpoints").iterdir():
        contents = torch.load(path, weights_only=True)
        del contents["pyro_genmodels"]["source"]
        torch.save(contents, path)
    np.save(tmp_path / "data" / "x.npy", images(1))
    training.load_source(run)
    assert training.run_data(run).fingerprint is None


def test_names_are_kept_without_the_data(tmp_path: Path) -> None:
    run = trained(tmp_path)
    path = run / "checkpoints" / "last.ckpt"
    contents = torch.load(path, weights_only=True)
    column = {"name": "colour", "kind": "categorical", "categories": ["red", "green"]}
    contents["pyro_genmodels"]["source"] |= {"classes": ["cat", "dog"], "columns": [column]}
    torch.save(contents, path)
    (tmp_path / "data" / "x.npy").unlink()
    found = training.run_data(run)
    assert found.classes == ["cat", "dog"]
    assert found.columns == [data.Column("colour", "categorical", ("red", "green"))]
