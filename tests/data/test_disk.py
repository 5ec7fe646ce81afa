"""Data sets on disk, on small files written here in the formats that torchvision reads.

torchvision checks the real files' MD5 sums; for CIFAR-10, SVHN and CelebA the tests put the small
files' sums in their place and leave the rest of the reading as it is.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_genmodels import data

datasets = pytest.importorskip("torchvision.datasets")
RANDOM = np.random.default_rng(0)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(">HBB", 0, 8, array.ndim)  # 8: unsigned bytes
    path.write_bytes(header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def write_mnist(root: Path, name: str) -> dict[str, np.ndarray]:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    written = {}
    for part, size in (("train", 30), ("t10k", 10)):
        images = RANDOM.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = RANDOM.integers(0, 10, size, dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
        written |= {part: images, f"{part}_labels": labels}
    return written


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_mnist_formats(tmp_path: Path, name: str) -> None:
    written = write_mnist(tmp_path, name)
    source = getattr(data, name)(str(tmp_path), validation=5)
    assert [len(part) for part in source.splits.values()] == [25, 5, 10]
    assert (source.event_shape, source.num_levels, source.num_classes) == ((1, 28, 28), 256, 10)
    x, labels = source.test.tensors
    assert (x[:, 0].numpy() == written["t10k"]).all()
    assert (labels.numpy() == written["t10k_labels"]).all()
    both = torch.cat([source.train.tensors[0], source.validation.tensors[0]])
    assert both.double().sum() == written["train"].sum(dtype=np.float64)


def test_bits_and_size(tmp_path: Path) -> None:
    written = write_mnist(tmp_path, "MNIST")
    binary = data.MNIST(str(tmp_path), num_bits=1, validation=5)
    assert binary.num_levels == 2
    assert (binary.test.tensors[0][:, 0].numpy() == (written["t10k"] >= 128)).all()
    small = data.MNIST(str(tmp_path), size=14, validation=5)
    assert small.event_shape == (1, 14, 14)
    means = small.test.tensors[0].double().mean(), written["t10k"].mean()
    assert means[0] == pytest.approx(means[1], rel=0.02)


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    sums, test = {}, np.empty(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        test = RANDOM.integers(0, 256, (4, 3072), dtype=np.uint8)
        batch = {"data": test, "labels": RANDOM.integers(0, 10, 4).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
        sums[name] = md5(folder / name)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    cifar = datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[k, v] for k, v in sums.items()][:5])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", sums["test_batch"]]])
    meta = cifar.meta | {"md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(cifar, "meta", meta)
    return test.reshape(4, 3, 32, 32)


def test_cifar10_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = write_cifar(tmp_path, monkeypatch)
    source = data.CIFAR10(str(tmp_path), validation=3)
    assert [len(part) for part in source.splits.values()] == [17, 3, 4]
    assert source.event_shape == (3, 32, 32)
    assert (source.test.tensors[0].numpy() == test).all()


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, monkeypatch)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-10])
    with pytest.raises(ValueError, match="`root` must hold CIFAR10's files"):
        data.CIFAR10(str(tmp_path), validation=3)


def test_svhn_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    splits, written = dict(datasets.SVHN.split_list), {}
    for part, size in (("train", 12), ("test", 4)):
        path = tmp_path / f"{part}_32x32.mat"
        written[part] = RANDOM.integers(0, 256, (32, 32, 3, size), dtype=np.uint8)
        labels = RANDOM.integers(1, 11, (size, 1), dtype=np.uint8)  # 10 stands for 0
        scipy_io.savemat(path, {"X": written[part], "y": labels})
        splits[part] = [splits[part][0], path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", splits)
    source = data.SVHN(str(tmp_path), validation=2)
    assert [len(part) for part in source.splits.values()] == [10, 2, 4]
    expected = written["test"].transpose(3, 2, 0, 1)
    assert (source.test.tensors[0].numpy() == expected).all()
    assert source.train.tensors[1].max() <= 9


def write_celeba(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, 9)]
    for i, name in enumerate(names):
        picture = np.full((218, 178, 3), 20 * i, np.uint8)
        picture[:32] = 255  # above the central 148 pixels, in whole blocks of JPEG
        Image.fromarray(picture).save(folder / "img_align_celeba" / name, quality=100)

    def table(name: str, head: str, row: str) -> None:
        (folder / name).write_text(head + "".join(f"{n} {row}\n" for n in names))

    parts = [0, 0, 0, 0, 1, 1, 2, 2]
    text = "".join(f"{n} {p}\n" for n, p in zip(names, parts, strict=True))
    (folder / "list_eval_partition.txt").write_text(text)
    table("identity_CelebA.txt", "", "1")
    table("list_bbox_celeba.txt", "8\nx y w h\n", "0 0 9 9")
    table("list_landmarks_align_celeba.txt", "8\na b\n", "1 2")
    table("list_attr_celeba.txt", "8\nSmiling Young\n", "1 -1")
    listed = [
        (address, md5(folder / name) if (folder / name).is_file() else checksum, name)
        for address, checksum, name in datasets.CelebA.file_list
    ]
    monkeypatch.setattr(datasets.CelebA, "file_list", listed)


def test_celeba_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_celeba(tmp_path, monkeypatch)
    source = data.CelebA(str(tmp_path))
    assert [len(part) for part in source.splits.values()] == [4, 2, 2]
    assert (source.event_shape, source.num_classes) == ((3, 64, 64), None)
    (x,) = source.train[3]
    assert x.dtype == torch.uint8
    assert (x.int() - 60).abs().max() <= 4  # the crop leaves the white out
    assert data.CelebA(str(tmp_path), size=32, num_bits=5).train[0][0].max() < 32


def write_folder(root: Path, names: list[str], size: tuple[int, int] = (10, 8)) -> None:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size[1], size[0], 3), i, np.uint8)).save(path)


def test_image_folder_without_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{i:02d}.png" for i in range(20)])
    (tmp_path / "notes.txt").write_text("not an image")
    source = data.ImageFolder(str(tmp_path))
    assert [len(part) for part in source.splits.values()] == [16, 2, 2]
    assert (source.event_shape, source.num_classes) == ((3, 8, 10), None)
    seen = sorted(int(x[0].max()) for part in source.splits.values() for x in part)
    assert seen == list(range(20))
    assert data.ImageFolder(str(tmp_path), size=4, mode="L").event_shape == (1, 4, 4)


def test_image_folder_with_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{kind}/{i}.PNG" for i in range(6) for kind in ("cat", "ant")])
    (tmp_path / "empty").mkdir()
    source = data.ImageFolder(str(tmp_path))
    assert source.classes == ["ant", "cat"]
    assert source.num_classes == 2
    for part in source.splits.values():
        for x, label in part:
            assert label == 1 - x.max() % 2


def test_image_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`root` must be a folder"):
        data.ImageFolder(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="`root` must hold images"):
        data.ImageFolder(str(tmp_path))
    write_folder(tmp_path, [f"{i}.png" for i in range(9)])
    write_folder(tmp_path, ["odd.png"], size=(8, 8))
    with pytest.raises(ValueError, match=r"one size \(10 x 8\) if no size is given; got 8 x 8"):
        data.ImageFolder(str(tmp_path))
    data.ImageFolder(str(tmp_path), size=8)
    (tmp_path / "0.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"`root` must hold readable images; got .*0.png"):
        data.ImageFolder(str(tmp_path))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "CIFAR10", "SVHN", "CelebA"])
def test_missing_files_are_one_clear_error(tmp_path: Path, name: str) -> None:
    source: Any = getattr(data, name)
    with pytest.raises(ValueError, match=f"`root` must hold {name}'s files .*download=True") as e:
        source(str(tmp_path))
    assert "\n" not in str(e.value)


def test_a_truncated_idx_file_is_one_clear_error(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="`root` must hold MNIST's files"):
        data.MNIST(str(tmp_path), validation=5)
