"""Folders of images as cameras, microscopes and systems leave them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_genmodels import data

pytest.importorskip("PIL.Image")
from PIL import Image

pytestmark = pytest.mark.once

Write = Callable[[Path], None]
UNCACHED: dict[str, Any] = {"cache_limit": 0}


def grey(level: int, size: tuple[int, int] = (6, 4), mode: str = "L") -> Image.Image:
    return Image.new("RGB", size, (level,) * 3).convert(mode)


def write_images(root: Path, names: list[str], **options: Any) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey(number, **options).save(path)


def images_of(source: data.DataSource) -> torch.Tensor:
    """All images, in the order of their first level."""
    parts: list[Any] = list(source.splits.values())
    images = torch.stack([part[i][0] for part in parts for i in range(len(part))])
    return images[images.flatten(1)[:, 0].argsort()]


def opened(folder: Path, **options: Any) -> torch.Tensor:
    return images_of(data.ImageFolder(str(folder), **(UNCACHED | options)))


def saved_thrice(folder: Path, picture: Image.Image, suffix: str = ".png", **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(3):
        picture.save(folder / f"{number}{suffix}", **options)
    return folder


# --- depth


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_keep_their_levels(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 255, 256], [4095, 40000, 65535]], np.uint16)
    saved_thrice(tmp_path, Image.fromarray(levels), suffix)
    for options in ({}, {"num_bits": 16}, {"num_bits": 16, "mode": "RGB"}):
        source = data.ImageFolder(str(tmp_path), **options)
        assert source.num_levels == 65536
        x = source.train[0][0]
        assert x.dtype == torch.int32
        assert all(torch.equal(channel, torch.tensor(levels.astype(np.int32))) for channel in x)
    for bits in (1, 8, 12):
        (x, *_) = opened(tmp_path, num_bits=bits)
        assert x.dtype == (torch.uint8 if bits <= 8 else torch.int32)
        assert torch.equal(x[0].int(), torch.tensor((levels >> (16 - bits)).astype(np.int32)))


def test_big_endian_tiff(tmp_path: Path) -> None:
    tif = b"MM\x00*" + (8).to_bytes(4, "big")
    entries = [(256, 3, 2), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 110)]
    entries += [(277, 3, 1), (278, 3, 1), (279, 4, 4)]
    ifd = len(entries).to_bytes(2, "big")
    for tag, kind, value in entries:
        number = value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big")
        ifd += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big") + number
    body = (tif + ifd + b"\0" * 4).ljust(110, b"\0")[: 8 + 2 + 12 * 9 + 4]
    start = len(body)
    body = body.replace((110).to_bytes(4, "big"), start.to_bytes(4, "big"))
    for number in range(3):
        (tmp_path / f"{number}.tif").write_bytes(body + b"\x01\x02\xff\xff")
    assert opened(tmp_path)[0].tolist() == [[[258, 65535]]]


def test_scaled_sixteen_bits(tmp_path: Path) -> None:
    levels = np.full((8, 8), 1000, np.uint16)
    levels[4:] = 60000
    saved_thrice(tmp_path, Image.fromarray(levels))
    x = opened(tmp_path, size=4)[0]
    assert x.min() >= 900
    assert 59000 < x.max() <= 61000


REFUSED: dict[str, tuple[Write, str]] = {
    "float": (lambda p: Image.fromarray(np.eye(4, dtype=np.float32)).save(p / "0.tif"), "floating"),
    "int32": (lambda p: Image.fromarray(np.eye(4, dtype=np.int32)).save(p / "0.tif"), "32-bit"),
    "stack": (
        lambda p: grey(1).save(p / "0.tif", save_all=True, append_images=[grey(2)]),
        "several frames",
    ),
    "film": (
        lambda p: grey(1).save(p / "0.gif", save_all=True, append_images=[grey(2)]),
        "several frames",
    ),
    "heic": (lambda p: (p / "0.HEIC").write_bytes(b"x"), r"\.heic .*convert to JPEG or PNG"),
    "video": (lambda p: (p / "0.mp4").write_bytes(b"x"), r"\.mp4 files are not read"),
    "pipe": (lambda p: os.mkfifo(p / "0.png"), "not a regular file"),
    "dead link": (lambda p: (p / "0.png").symlink_to(p / "gone.png"), "No such file"),
    "link to itself": (lambda p: (p / "0.png").symlink_to(p / "0.png"), "symbolic links"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    write, reason = REFUSED[kind]
    write_images(tmp_path, [f"{i}.png" for i in range(1, 5)])
    write(tmp_path)
    with pytest.raises(ValueError, match=rf"got 1 in .*'0\.\w+' \(.*{reason}.*--data.on_bad skip"):
        data.ImageFolder(str(tmp_path))
    source = data.ImageFolder(str(tmp_path), on_bad="skip")
    assert len(source.skipped) == 1
    assert source.skipped[0].startswith("0.")
    assert sum(len(part) for part in source.splits.values()) == 4  # type: ignore[arg-type,misc]


def test_colour_of_sixteen_bits_is_cut_only_if_asked_for(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )  # fmt: skip

    row = b"\0" + struct.pack(">6H", 258, 515, 65535, 0, 255, 256)
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    parts += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    with pytest.raises(ValueError, match=r"`num_bits` must be given for colour .*num_bits=8"):
        data.ImageFolder(str(tmp_path))
    with pytest.raises(ValueError, match=r"`num_bits` must be at most 8.*'.*0.png'"):
        data.ImageFolder(str(tmp_path), num_bits=16)
    assert opened(tmp_path, num_bits=8)[0].tolist() == [[[1, 0]], [[2, 0]], [[255, 1]]]


def test_files_that_differ_in_depth(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i}.png" for i in range(3)])
    Image.fromarray(np.full((4, 6), 2**15, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"8 in '.*\.png' and 16 in '.*deep.png': num_bits=8"):
        data.ImageFolder(str(tmp_path))
    assert opened(tmp_path, num_bits=8)[:, 0, 0, 0].tolist() == [0, 1, 2, 128]
    with pytest.raises(ValueError, match="`num_bits` must lie between 1 and 16; got 17"):
        data.ImageFolder(str(tmp_path), num_bits=17)
    with pytest.raises(ValueError, match="`num_bits` must be at most 8"):
        data.ImageFolder(str(tmp_path), num_bits=9)


# --- colours


def test_grey_if_all_are(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i}.png" for i in range(3)])
    assert opened(tmp_path).shape == (3, 1, 4, 6)
    assert opened(tmp_path, mode="RGB").shape == (3, 3, 4, 6)
    grey(9, mode="RGB").save(tmp_path / "colour.png")
    assert opened(tmp_path).shape == (4, 3, 4, 6)
    assert opened(tmp_path, mode="L")[:, 0, 0, 0].tolist() == [0, 1, 2, 9]


def test_other_modes(tmp_path: Path) -> None:
    bilevel = Image.fromarray(np.eye(4, dtype=bool))
    assert (
        opened(saved_thrice(tmp_path / "bits", bilevel))[0, 0].tolist()
        == (np.eye(4) * 255).astype(int).tolist()
    )
    colours = Image.new("RGB", (4, 4), (200, 30, 60))
    palette = saved_thrice(tmp_path / "palette", colours.quantize(4))
    assert opened(palette)[0, :, 0, 0].tolist() == [200, 30, 60]
    assert opened(saved_thrice(tmp_path / "gif", colours.quantize(4), ".gif"))[0, 0, 0, 0] == 200
    assert opened(palette, mode="L")[0, 0, 0, 0] == colours.convert("L").getpixel((0, 0))
    cmyk = saved_thrice(tmp_path / "cmyk", colours.convert("CMYK"), ".tif")
    assert opened(cmyk)[0, :, 0, 0].tolist() == [200, 30, 60]


def with_alpha(mode: str) -> Image.Image:
    """Left half opaque, right half transparent with a colour that must not be seen."""
    picture = Image.new("RGBA", (4, 2), (10, 10, 10, 255))
    picture.paste((77, 77, 77, 0), (2, 0, 4, 2))
    return picture.convert(mode)


def palette_with_transparency() -> Image.Image:
    picture = Image.new("P", (4, 2), 0)
    picture.putpalette([10, 10, 10, 77, 77, 77])
    picture.paste(1, (2, 0, 4, 2))
    picture.info["transparency"] = 1
    return picture


def keyed(mode: str) -> Image.Image:
    picture = with_alpha("RGBA").convert("RGB").convert(mode)
    picture.paste(77 if mode == "L" else (77, 77, 77), (2, 0, 4, 2))
    picture.info["transparency"] = 77 if mode == "L" else (77, 77, 77)
    return picture


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "key L", "key RGB"])
def test_hidden_colours_do_not_appear(tmp_path: Path, kind: str) -> None:
    made = {
        "palette": palette_with_transparency,
        "key L": lambda: keyed("L"),
        "key RGB": lambda: keyed("RGB"),
    }.get(kind, lambda: with_alpha(kind))
    picture = made()
    saved_thrice(tmp_path, picture, transparency=picture.info.get("transparency"))
    for mode in ("RGB", "L"):
        for background, level in (("white", 255), ("black", 0), ("#202020", 32)):
            x = opened(tmp_path, mode=mode, background=background)[0]
            assert x[:, 0].tolist() == [[10, 10, level, level]] * len(x)
    with pytest.raises(ValueError, match="`background` must be a colour"):
        data.ImageFolder(str(tmp_path), background="no such colour")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    array = np.zeros((16, 24), np.uint8)
    array[:8, :8] = 250  # a bright corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    saved_thrice(tmp_path, Image.fromarray(array), suffix, exif=exif, **options)
    # By EXIF's definition: where the stored array's first row and column are to be seen.
    upright = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.T,
        6: array.T[:, ::-1],
        7: array.T[::-1, ::-1],
        8: array.T[::-1],
    }[orientation]
    x = opened(tmp_path)[0, 0].int()
    assert x.shape == upright.shape
    assert (x - torch.tensor(upright.astype(np.int32))).abs().max() <= (
        60 if suffix == ".jpg" else 0
    )


# --- which files


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{kind}/{i}.png" for kind in ("ant", "cat") for i in range(4)])
    hidden = [".ipynb_checkpoints/a.png", "__MACOSX/cat/b.png", "cat/.hidden/c.png", "cat/.d.png"]
    write_images(tmp_path, hidden)
    for name in ("cat/._0.png", ".DS_Store", "Thumbs.db", "._cat", "cat/desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    source = data.ImageFolder(str(tmp_path))
    assert source.classes == ["ant", "cat"]
    assert sum(len(part) for part in source.splits.values()) == 8  # type: ignore[arg-type,misc]


def test_files_beside_classes_are_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, [f"cat/{i}.png" for i in range(4)])
    write_images(tmp_path, ["stray.png"])
    with pytest.raises(ValueError, match=r"not both: .*got '.*stray.png' beside the folder 'cat'"):
        data.ImageFolder(str(tmp_path))


def test_classes_are_folders_and_files_lie_anywhere_below(tmp_path: Path) -> None:
    names = ["b/x/0.png", "b/1.PNG", "ä ö/y/z/2.Png", "ä ö/3.png", "b/x.png/4.png"]
    write_images(tmp_path, names)
    source = data.ImageFolder(str(tmp_path))
    assert source.classes == ["b", "ä ö"]
    labels = {int(x.max()): int(y) for part in source.splits.values() for x, y in part}
    assert labels == {0: 0, 1: 0, 2: 1, 3: 1, 4: 0}


def test_links_may_lead_back(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{kind}/{i}.png" for kind in ("a", "b") for i in range(3)])
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    source = data.ImageFolder(str(tmp_path), cache_limit=0)
    assert source.classes == ["a", "b"]


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "tst")])
@pytest.mark.parametrize("kinds", [("",), ("ant/", "cat/")])
def test_parts_are_folders(tmp_path: Path, names: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    for first, name in enumerate(names):
        for label, kind in enumerate(kinds):
            for i in range(first + 2):
                path = tmp_path / name / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                grey(10 * first + label).save(path)
    if len(kinds) > 1:  # a class that one part has not
        grey(12).save(tmp_path / names[1] / "ant" / "new.png")
        (tmp_path / names[1] / "bee").mkdir()
        (tmp_path / names[1] / "ant" / "new.png").rename(tmp_path / names[1] / "bee" / "new.png")
    source = data.ImageFolder(str(tmp_path))
    extra = len(kinds) > 1
    sizes = [len(part) for part in source.splits.values()]  # type: ignore[arg-type]
    assert sizes == [2 * len(kinds), 3 * len(kinds) + extra, 4 * len(kinds)]
    assert source.classes == (["ant", "bee", "cat"] if extra else None)
    for number, part in enumerate(source.splits.values()):
        for x, *label in part:
            assert x.max() // 10 == number
            assert label == ([] if not extra else [{0: 0, 1: 2, 2: 1}[int(x.max()) % 10]])


def test_missing_parts_are_split_off(tmp_path: Path) -> None:
    write_images(tmp_path, [f"train/{i}.png" for i in range(20)])
    assert [len(p) for p in data.ImageFolder(str(tmp_path)).splits.values()] == [16, 2, 2]  # type: ignore[arg-type]
    write_images(tmp_path, [f"valid/{i}.png" for i in range(5)])
    assert [len(p) for p in data.ImageFolder(str(tmp_path)).splits.values()] == [18, 5, 2]  # type: ignore[arg-type]


WRONG_PARTS = {
    "no train": (["val/a.png", "test/b.png"], "hold a folder train"),
    "twice": (["train/a.png", "val/b.png", "valid/c.png"], "once; got val and valid"),
    "another": (["train/a.png", "test/b.png", "new/c.png"], "nothing beside .*got new beside"),
    "a file": (["train/a.png", "test/b.png", "c.png"], r"nothing beside .*got c\.png beside"),
    "mixed": (["train/x/a.png", "test/b.png"], "classes in all of its parts, or in none"),
}


@pytest.mark.parametrize("kind", WRONG_PARTS)
def test_wrong_parts(tmp_path: Path, kind: str) -> None:
    names, message = WRONG_PARTS[kind]
    write_images(tmp_path, names)
    with pytest.raises(ValueError, match=f"`root` must .*{message}"):
        data.ImageFolder(str(tmp_path))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{kind}/{i}.png" for kind in ("bus", "train") for i in range(4)])
    assert data.ImageFolder(str(tmp_path)).classes == ["bus", "train"]


def test_sizes_are_listed(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i}.png" for i in range(5)])
    grey(0, (8, 8)).save(tmp_path / "odd.png")
    with pytest.raises(ValueError, match=r"\(6 x 4\).*got 8 x 8 in '.*odd.png': .*--data.size 4"):
        data.ImageFolder(str(tmp_path))
    assert opened(tmp_path, size=4).shape == (6, 1, 4, 4)


# --- lists of files


@pytest.mark.parametrize("column", ["file", "file_name"])
@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv", "mine.csv"])
def test_a_table_of_labels(tmp_path: Path, column: str, name: str) -> None:
    pytest.importorskip("pandas")
    write_images(tmp_path, [f"deep/{i}.png" for i in range(12)])
    rows = "".join(f"deep/{i}.png,{i % 11}\n" for i in range(12))
    (tmp_path / name).write_text(f"{column},label\n{rows}")
    options = {"listing": name} if name == "mine.csv" else {}
    source = data.ImageFolder(str(tmp_path), **options)
    assert source.classes == [str(i) for i in range(11)]
    assert all(y == x.max() % 11 for part in source.splits.values() for x, y in part)
    assert data.ImageFolder(str(tmp_path), listing=None).classes == ["deep"]


@pytest.mark.parametrize("separator", [",", ", ", ";", "\t"])
def test_a_table_as_people_write_it(tmp_path: Path, separator: str) -> None:
    pytest.importorskip("pandas")
    write_images(tmp_path, [f"{i}.png" for i in range(12)])
    rows = [[f"{i}.png", "ab"[i % 2], ["Train", "Train", "val", "test"][i % 4]] for i in range(12)]
    lines = [["File", "Label", "Split"], *rows]
    text = "".join(separator.join(line) + "\n" for line in lines)
    (tmp_path / "labels.csv").write_text("\ufeff" + text, encoding="utf-8")
    source = data.ImageFolder(str(tmp_path))
    assert source.classes == ["a", "b"]
    assert [len(part) for part in source.splits.values()] == [6, 3, 3]  # type: ignore[arg-type]
    assert all(y == x.max() % 2 for part in source.splits.values() for x, y in part)


def test_a_table_without_labels_lists_files(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    write_images(tmp_path, [f"{i}.png" for i in range(8)])
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.png,a\n2.png,b\n5.png,c\n")
    assert opened(tmp_path)[:, 0, 0, 0].tolist() == [1, 2, 5]


UNUSED = {
    "age, text": ("file,label,age,text", "1,2", "columns of labels.csv left out: age, text"),
    "label": ("file,category,words", "1", "columns of labels.csv left out: category, words"),
    "folds": ("file,label,split", "3", "column 'split' of labels.csv left out: it names no part"),
    "test": ("file,label,split", "test", "parts of the data left out: all are test, none is train"),
}


@pytest.mark.parametrize("kind", UNUSED)
def test_what_a_table_holds_in_vain_is_noted(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pandas")
    header, rest, note = UNUSED[kind]
    write_images(tmp_path, [f"{i}.png" for i in range(8)])
    lines = [header, *(f"{i}.png,{i % 2},{rest}" for i in range(8))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    source = data.ImageFolder(str(tmp_path))
    assert note in source.summary
    assert (source.num_classes is None) == (kind == "label")


@pytest.mark.parametrize("place", ["deep", "train"])
def test_a_table_that_is_not_used_is_noted(tmp_path: Path, place: str) -> None:
    pytest.importorskip("pandas")
    write_images(tmp_path, [f"{place}/{i}.png" for i in range(8)])
    if place == "train":
        write_images(tmp_path, ["val/0.png"])
    for name in ("labels.csv", "metadata.csv"):
        (tmp_path / name).write_text("name,label\n0.png,1\n")
    summary = data.ImageFolder(str(tmp_path)).summary
    reason = "the parts of the data are folders" if place == "train" else "it has no column of"
    assert f"labels.csv left out: {reason}" in summary
    assert f"metadata.csv left out: {reason}" in summary
    assert "left out" not in data.ImageFolder(str(tmp_path), listing=None).summary


@pytest.mark.parametrize("column", ["labels", "Lable", "clas", "spilt", "splits"])
def test_a_column_that_is_misspelt_is_named(tmp_path: Path, column: str) -> None:
    pytest.importorskip("pandas")
    write_images(tmp_path, [f"{i}.png" for i in range(8)])
    rows = "".join(f"{i}.png,train\n" for i in range(8))
    (tmp_path / "labels.csv").write_text(f"file,{column}\n{rows}")
    with pytest.raises(ValueError, match=f"must have a column '.*', or none .*; got '{column}'"):
        data.ImageFolder(str(tmp_path))
    # Beside the one that was meant it is a column like others.
    both = "".join(f"{i}.png,train,train,1\n" for i in range(8))
    (tmp_path / "labels.csv").write_text(f"file,{column},split,label\n{both}")
    assert f"columns of labels.csv left out: {column}" in data.ImageFolder(str(tmp_path)).summary


WRONG_TABLES = {
    "file,split\n0.png,train\n1.png,later\n": "be train, val or test in every row; got 'later'",
    "name,label\n0.png,1\n": "have a column of files",
    "file,label\n": "name at least one file",
    "file,label\n0.png,1\n0.png,2\n": r"name each file once; got 0\.png",
    "file,label\n0.png,\n": r"have a label for each file; got none for 0\.png",
    "": "be a readable CSV file",
    "file,label\n0.png,1,2,3\n1.png,1\n1,2,3,4,5,6\n": "be a readable CSV file",
}


@pytest.mark.parametrize("text", WRONG_TABLES)
def test_wrong_tables(tmp_path: Path, text: str) -> None:
    pytest.importorskip("pandas")
    write_images(tmp_path, [f"{i}.png" for i in range(4)])
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(ValueError, match=f"`listing.*` must {WRONG_TABLES[text]}") as error:
        data.ImageFolder(str(tmp_path), listing="mine.csv")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"`listing` must be a readable CSV file; got .*gone.csv"):
        data.ImageFolder(str(tmp_path), listing="gone.csv")


def test_a_table_of_files_that_are_not_there(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    write_images(tmp_path, [f"{i}.png" for i in range(4)])
    (tmp_path / "labels.csv").write_text("file\n0.png\n1.png\n3.png\ngone.png\n")
    with pytest.raises(ValueError, match=r"'gone.png' \(No such file or directory\)"):
        data.ImageFolder(str(tmp_path))
    assert opened(tmp_path, on_bad="skip")[:, 0, 0, 0].tolist() == [0, 1, 3]
