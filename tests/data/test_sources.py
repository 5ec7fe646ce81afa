"""Embedded, sampled and one's own data: splits, checks, what a run folder records."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyro_genmodels import data
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data.base.splits import permutation, split

BYTES = torch.arange(20 * 12, dtype=torch.uint8).reshape(20, 1, 3, 4)
LABELS = torch.arange(20) % 4


class Listed(Dataset[Any]):
    """A data set that is no TensorDataset."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def whole(dataset: Any) -> Tensor:
    return torch.stack([dataset[i][0] for i in range(len(dataset))])


# --- splits


def test_splits_cover_everything_once() -> None:
    parts = split(100, (10, 30), seed=3)
    assert [len(part) for part in parts] == [60, 10, 30]
    assert sorted(i for part in parts for i in part) == list(range(100))
    assert permutation(50, 1) != permutation(50, 2)


def test_the_permutation_is_fixed_for_ever() -> None:
    assert permutation(8, seed=0) == [3, 7, 5, 2, 4, 1, 6, 0]


# --- embedded images


def test_digits() -> None:
    digits = data.Digits()
    sizes = [len(part) for part in digits.splits.values()]
    assert sizes == [1297, 140, 360]
    assert (digits.event_shape, digits.num_levels, digits.num_classes) == ((1, 8, 8), 17, 10)
    x, label = digits.train[0]
    assert (x.dtype, x.shape, label.dtype, label.shape) == (torch.uint8, (1, 8, 8), torch.long, ())
    images = torch.cat([part.tensors[0] for part in digits.splits.values()])
    assert images.max() == 16
    assert images.float().mean() == pytest.approx(4.884, abs=1e-3)  # all of them, once
    again = data.Digits()
    assert torch.equal(again.test.tensors[0], digits.test.tensors[0])
    counts = torch.bincount(digits.test.tensors[1], minlength=10)
    assert counts.min() > 20


def test_photos_are_patches_of_disjoint_regions() -> None:
    from sklearn.datasets import load_sample_images

    photos = data.Photos(32, train=3000, validation=400, test=600)
    images = np.stack(load_sample_images().images)
    covered = {}
    for name, part in photos.splits.items():
        mask = np.zeros(images.shape[:3], dtype=bool)
        for row, (photo, top, left) in enumerate(photos.places[name].tolist()):
            region = (photo, slice(top, top + 32), slice(left, left + 32))
            mask[region] = True
            if row < 50:
                x = part[row][0].permute(1, 2, 0).numpy()
                assert (x == images[region]).all()
        covered[name] = mask
    assert not (covered["train"] & covered["test"]).any()
    assert not (covered["train"] & covered["validation"]).any()
    assert not (covered["validation"] & covered["test"]).any()
    assert covered["train"].mean() > 0.5
    assert covered["test"][0].any()
    assert covered["test"][1].any()
    assert photos.num_levels == 256
    assert photos.num_classes is None


def test_photos_have_sizes_bits_and_a_seed() -> None:
    few = {"train": 20, "validation": 5, "test": 5}
    photos = data.Photos(8, **few)
    coarse = data.Photos(8, num_bits=3, **few)
    assert coarse.num_levels == 8
    assert torch.equal(coarse.train.tensors[0], photos.train.tensors[0] // 32)
    assert torch.equal(data.Photos(8, **few).test.tensors[0], photos.test.tensors[0])
    other = data.Photos(8, seed=1, **few)
    assert not torch.equal(other.test.tensors[0], photos.test.tensors[0])


@pytest.mark.parametrize(
    ("options", "argument"), [({"size": 81}, "size"), ({"num_bits": 9}, "num_bits")]
)
def test_photos_refuse(options: dict[str, int], argument: str) -> None:
    with pytest.raises(ValueError, match=f"`{argument}` must"):
        data.Photos(**options)
    with pytest.raises(ValueError, match="`test` must be at least 1"):
        data.Photos(8, test=0)


# --- sampled


def test_sampled_keeps_its_distribution_and_the_random_state() -> None:
    state = torch.get_rng_state()
    source = data.Sampled(data.Ising(4, 4), train=30, validation=5, test=10, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(part) for part in source.splits.values()] == [30, 5, 10]
    x = source.test.tensors[0]
    assert x.dtype == torch.uint8
    assert source.distribution.log_prob(x).isfinite().all()
    again = data.Sampled(data.Ising(4, 4), train=30, validation=5, test=10, seed=2)
    assert torch.equal(again.train.tensors[0], source.train.tensors[0])
    other = data.Sampled(data.Ising(4, 4), train=30, validation=5, test=10, seed=3)
    assert not torch.equal(other.train.tensors[0], source.train.tensors[0])


def test_sampled_densities_are_continuous() -> None:
    source = data.Sampled(data.EightGaussians(), train=10, validation=2, test=2)
    assert source.num_levels is None
    assert source.train.tensors[0].dtype == torch.float32


def test_sampled_refuses_what_is_not_exact() -> None:
    with pytest.raises(ValueError, match="`distribution` must have no batch shape"):
        data.Sampled(data.Checkerboard().expand([2]))
    with pytest.raises(ValueError, match="`validation` must be at least 1"):
        data.Sampled(data.Checkerboard(), validation=0)


# --- one's own


@pytest.mark.parametrize(
    "given",
    [
        BYTES,
        BYTES.numpy(),
        (BYTES, LABELS),
        list(BYTES),
        TensorDataset(BYTES, LABELS),
        Listed(list(BYTES)),
        Listed(list(zip(BYTES, LABELS.tolist(), strict=True))),
        Listed([(x.numpy(),) for x in BYTES]),
    ],
    ids=["tensor", "array", "pair", "list", "TensorDataset", "bare", "labelled", "arrays"],
)
def test_own_data_in_any_form(given: Any) -> None:
    source = data.InMemory(given, num_levels=256)
    assert [len(part) for part in source.splits.values()] == [14, 2, 4]
    assert all(len(item) == 1 for part in source.splits.values() for item in [part[0]])
    parts = torch.cat([whole(part) for part in source.splits.values()])
    assert torch.equal(torch.unique(parts, dim=0), torch.unique(BYTES, dim=0))
    reference = data.InMemory(BYTES, num_levels=256)
    assert torch.equal(whole(source.test), whole(reference.test))
    assert next(iter(DataLoader(source.train, batch_size=5)))[0].shape == (5, 1, 3, 4)


@pytest.mark.parametrize(
    "given",
    [
        (BYTES, LABELS),
        (BYTES.numpy(), LABELS.numpy().astype(np.uint8)),
        TensorDataset(BYTES, LABELS),
        Listed(list(zip(BYTES, LABELS.tolist(), strict=True))),
    ],
    ids=["tensors", "arrays", "TensorDataset", "Dataset"],
)
def test_own_labels(given: Any) -> None:
    source = data.InMemory(given, num_levels=256, num_classes=4)
    for part in source.splits.values():
        x, label = part[1]
        row = int((x == BYTES).flatten(1).all(1).nonzero())
        assert label == LABELS[row]
        assert label.dtype == torch.long


def test_own_validation_and_test_are_taken_as_they_are() -> None:
    source = data.InMemory(BYTES[:15], BYTES[15:17], BYTES[17:], num_levels=256)
    assert torch.equal(whole(source.train), BYTES[:15])
    assert torch.equal(whole(source.test), BYTES[17:])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">i4", "<i8", "?", "<f4", ">f8"])
def test_own_arrays_of_any_dtype(dtype: str) -> None:
    source = data.InMemory(np.ones((10, 3), dtype), num_levels=2)
    assert whole(source.train).double().eq(1).all()


def test_own_pictures() -> None:
    pictures = [Image.fromarray(np.full((5, 4, 3), i, np.uint8)) for i in range(10)]
    assert data.InMemory(Listed(pictures), num_levels=256).event_shape == (3, 5, 4)


UNEQUAL = [torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (torch.empty(0, 1, 2, 2), {}, "`train` must have at least one example"),
        (Listed([]), {}, "`examples` must number more|at least one example"),
        (torch.zeros(1, 3), {}, "`examples` must number more than the 2 held out"),
        (torch.zeros(9, 1, 1, 1, 2, 2), {}, r"`train` must be positive sizes .*got .*2, 2"),
        (torch.full((9, 3), math.nan), {}, "`train` must be finite"),
        (torch.zeros(9, 3, dtype=torch.uint8), {}, "`train` must be floating-point without"),
        (BYTES, {"num_levels": 100}, "`train` must hold integers from 0 to 99; got"),
        (BYTES / 255, {"num_levels": 256}, "`train` must hold integers from 0 to 255; got"),
        (torch.full((9, 3), math.nan), {"num_levels": 4}, "`train` must hold integers"),
        (BYTES, {"num_levels": 1}, "`num_levels` must be at least 2"),
        (BYTES, {"num_levels": 256, "num_classes": 3}, "`train` must have labels"),
        ((BYTES, LABELS), {"num_levels": 256, "num_classes": 3}, "labels from 0 to 2; got"),
        ((BYTES, LABELS[:5]), {"num_levels": 256, "num_classes": 4}, "label for each of its 20"),
        ((BYTES, LABELS / 2), {"num_levels": 256, "num_classes": 4}, "integer labels"),
        (UNEQUAL * 5, {}, "`train` must have examples of one size"),
        (np.array(["a", "b"]), {}, "`train` must hold numbers of one size"),
        ("digits", {}, "`train` must be a tensor, an array, a pair of them or a Dataset"),
        (torch.rand(9, 3), {"test_fraction": 1.5}, "`test_fraction` must lie strictly between"),
    ],
)
def test_bad_data_are_one_clear_error(given: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        data.InMemory(given, **options)
    assert "\n" not in str(error.value)


def test_masked_elements_are_missing() -> None:
    x = np.ma.masked_array(np.ones((20, 3)), np.arange(60).reshape(20, 3) % 7 == 0)
    with pytest.raises(ValueError, match="`train` must be finite; got 6 NaN"):
        data.InMemory(x)
    for masked in (x, x.astype(np.uint8)):
        source = data.InMemory(masked, missing=True)
        parts: Any = source.splits.values()
        assert sum(int(part.tensors[0].isnan().sum()) for part in parts) == 9


@pytest.mark.parametrize(
    "labels", [["a", None] * 10, ["a", math.nan] * 10, np.ma.masked_equal([0, 1] * 10, 1)]
)
def test_missing_labels_are_no_class(labels: Any) -> None:
    if isinstance(labels, list):
        labels = np.array(labels, dtype=object)
    with pytest.raises(ValueError, match="`train` must have a label for each example"):
        data.InMemory((torch.rand(20, 3), labels), num_classes=2)


def test_other_kinds_of_tensors_and_lists() -> None:
    assert data.InMemory(torch.rand(20, 3, dtype=torch.bfloat16)).train[0][0].dtype == torch.float32
    with pytest.raises(ValueError, match="`train` must be dense"):
        data.InMemory(torch.eye(9).to_sparse())
    with pytest.raises(ValueError, match="`train` must hold numbers"):
        data.InMemory(["ab", "cd"])


def test_the_parts_must_agree() -> None:
    x = torch.rand(9, 3)
    with pytest.raises(ValueError, match="`test` must have features beside its data"):
        data.InMemory((x, torch.rand(9, 2)), test=x)
    with pytest.raises(ValueError, match=r"`test` must have trailing shape \(3,\); got"):
        data.InMemory(torch.rand(9, 3), test=torch.rand(9, 4))
    with pytest.raises(ValueError, match="`validation` must hold integers from 0 to 1"):
        data.InMemory(torch.ones(9, 3), validation=torch.full((2, 3), 2.0), num_levels=2)


def test_a_data_sets_items_are_held_to_the_first() -> None:
    items = [torch.zeros(1, 2, 2)] * 9 + [torch.zeros(1, 3, 3)]
    source = data.InMemory(Listed(items), num_levels=2)
    with pytest.raises(ValueError, match="must have trailing shape"):
        [item for part in source.splits.values() for item in part]


def test_a_configuration_has_a_fingerprint_instead_of_arrays() -> None:
    source = data.InMemory(torch.ones(10, 3), num_levels=2, seed=4)
    described = configuration(source)
    assert described["class"] == "data.InMemory"
    arguments: Any = described["arguments"]
    assert arguments["seed"] == 4
    assert arguments["train"]["shape"] == [10, 3]
    other: Any = configuration(data.InMemory(torch.zeros(10, 3), num_levels=2))["arguments"]
    assert other["train"]["sha256"] != arguments["train"]["sha256"]
    with pytest.raises(ValueError, match="`train` must be given again: a run folder keeps"):
        build(described)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"own{suffix}"
    if suffix == ".npy":
        np.save(path, BYTES.numpy())
    elif suffix == ".npz":
        np.savez(path, train=BYTES.numpy(), train_labels=LABELS.numpy())
    else:
        torch.save({"train": BYTES, "train_labels": LABELS}, path)
    classes = None if suffix == ".npy" else 4
    source = data.FromFile(str(path), num_levels=256, num_classes=classes)
    assert source.name == path.name
    assert torch.equal(whole(source.test), whole(data.InMemory(BYTES, num_levels=256).test))
    again = build(configuration(source))
    assert torch.equal(whole(again.train), whole(source.train))
    assert len(source.train[0]) == (1 if classes is None else 2)


def test_files_with_their_own_parts(tmp_path: Path) -> None:
    parts = {"train": BYTES[:10], "validation": BYTES[10:12], "test": BYTES[12:]}
    torch.save(parts, tmp_path / "own.pt")
    source = data.FromFile(str(tmp_path / "own.pt"), num_levels=256)
    assert all(torch.equal(whole(source.splits[k]), v) for k, v in parts.items())


def _truncated(path: Path) -> None:
    np.savez(path, train=BYTES.numpy())
    path.write_bytes(path.read_bytes()[:100])


def _pickled(path: Path) -> None:
    torch.save(Listed([1]), path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("missing.npz", lambda path: None, "`path` must be a file; got '"),
        ("words.txt", lambda path: path.write_text("x"), "suffix` must be one of '.npy'"),
        ("cut.npz", _truncated, "`path` must be a readable .npz file"),
        ("foreign.pt", lambda path: path.write_text("x"), "`path` must be a readable .pt file"),
        ("objects.pt", _pickled, "`path` must be a readable .pt file"),
        ("other.npz", lambda path: np.savez(path, x=1), "`path` must be a file with an array `tr"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as error:
        data.FromFile(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_sources_are_described_and_rebuilt() -> None:
    source = data.Sampled(data.BarsAndStripes(3), train=5, validation=1, test=2)
    again = build(configuration(source))
    assert torch.equal(whole(again.test), whole(source.test))
    assert repr(source) == "Sampled BarsAndStripes(5/1/2 of shape (1, 3, 3), 2 levels)"
    assert configuration(data.Digits()) == {"class": "data.Digits", "arguments": {}}


def test_a_source_writes_samples(tmp_path: Path) -> None:
    source = data.InMemory(torch.rand(20, 3))
    x = torch.rand(4, 3)
    for suffix in source.sample_suffixes:
        source.write(x, tmp_path / f"samples{suffix}")
    assert torch.equal(torch.load(tmp_path / "samples.pt", weights_only=True), x)
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "samples.npy")), x)
    with pytest.raises(ValueError, match="suffix"):
        source.write(x, tmp_path / "samples.wav")
    with pytest.raises(ValueError, match="`x` must"):
        source.write(x[0], tmp_path / "samples.pt")
    with pytest.raises(OSError, match="nowhere"):
        source.write(x, tmp_path / "nowhere" / "samples.npy")


def test_own_data_are_named_as_their_file_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "holiday"
    folder.mkdir()
    for number in range(10):
        Image.new("L", (2, 2), number).save(folder / f"{number}.png")
    monkeypatch.chdir(folder)
    assert data.ImageFolder(".").name == "holiday"
    assert repr(data.ImageFolder(str(folder))).startswith("holiday(8/1/1")
    (folder / "names.txt").write_text("ada\nemmy\nmary\n")
    assert data.Text("names.txt", unit="line").name == "names.txt"
    assert data.Digits().name == "Digits"
