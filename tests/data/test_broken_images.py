"""Broken and hostile image files: each one line that names it, soon and within little memory."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_genmodels import data

pytest.importorskip("PIL.Image")
from PIL import Image, features

pytestmark = pytest.mark.once

GIGABYTE = 2**30
SIDE = 24


def encoded(kind: str, **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    code = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + code


def png(width: int, height: int, depth: int = 8, colour: int = 2, content: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    content = content or zlib.compress(b"\0" * 10**6)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def bmp(width: int, height: int, bits: int = 24) -> bytes:
    body = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 100, 0, 0, 54) + body + b"\0" * 100


def gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + frame + b"\x02\x02\x4c\x01\x00;"


def tiff(**changes: int) -> bytes:
    tags = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: 16}
    tags |= {int(name[1:]): value for name, value in changes.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    body = b"\7" * 16
    return (
        b"II*\0"
        + struct.pack("<I", 8 + 16)
        + body
        + struct.pack("<H", len(tags))
        + entries
        + b"\0" * 4
    )


def changed(content: bytes, start: int, new: bytes) -> bytes:
    return content[:start] + new + content[start + len(new) :]


class Harmful:
    """What would make a file if it were unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (self.mark, "w"))


def broken_files(mark: str) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents."""
    whole = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "gif": "GIF", "tif": "TIFF", "ppm": "PPM"}
    if features.check("webp"):
        whole["webp"] = "WEBP"
    for suffix, kind in whole.items():
        content = encoded(kind)
        for part in (0.02, 0.3, 0.6, 0.9):
            yield f"truncated_{part}.{suffix}", content[: int(len(content) * part)]
        yield f"magic.{suffix}", changed(content, 0, b"\1\2\3\4")
        yield f"empty.{suffix}", b""
        yield f"zeros.{suffix}", b"\0" * 300
    yield "compressed.tif", encoded("TIFF", compression="tiff_lzw")[:400]
    yield "deflate.tif", encoded("TIFF", compression="tiff_adobe_deflate")[:900]
    for side in (10_000, 30_000, 2**31 - 1):
        yield f"bomb_{side}.png", png(side, side)
    yield "wide.png", png(2**31 - 1, 1)
    yield "tall.png", png(1, 2**31 - 1)
    yield "zero.png", png(0, 5)
    yield "depth.png", png(4, 4, depth=7)
    yield "colour.png", png(4, 4, colour=5)
    yield "noise.png", png(4, 4, content=b"no deflate stream at all")
    yield "short.png", png(400, 400, content=zlib.compress(b"\0" * 50))
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 200_000_000))
    yield "text_bomb.png", changed(png(4, 4), 33, text)[: 33 + len(text)]
    yield "jpeg_bomb.jpg", jpeg_of(65_500)
    yield "bomb.bmp", bmp(60_000, 60_000)
    yield "negative.bmp", bmp(-5, 5)
    yield "bits.bmp", bmp(4, 4, bits=13)
    yield "short.bmp", bmp(400, 400)
    yield "bomb.gif", gif(65_535, 65_535)
    yield "bomb.ppm", b"P6 99999 99999 255\n" + b"\0" * 100
    yield "long.ppm", b"P6 " + b"9" * 10_000 + b" 4 255\n"
    yield "negative.ppm", b"P6 -4 4 255\n" + b"\0" * 48
    yield "maxval.ppm", b"P6 4 4 0\n" + b"\0" * 48
    yield "words.pgm", b"P2 2 2 255\none two three four\n"
    yield "bomb.tif", tiff(t256=60_000, t257=60_000, t278=60_000)
    yield "offset.tif", tiff(t273=2**31)
    yield "count.tif", tiff(t257=4000, t278=4000, t279=2**31)
    yield "bits.tif", tiff(t258=77)
    yield "compression.tif", tiff(t259=9999)
    yield "samples.tif", tiff(t277=60_000)
    yield "loop.tif", b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8)
    yield "float.tif", tiff_of(np.zeros((4, 4), np.float32))
    yield "int.tif", tiff_of(np.zeros((4, 4), np.int32))
    yield "pickle.png", pickle.dumps(Harmful(mark))
    yield "array.jpg", b"\x93NUMPY" + pickle.dumps(Harmful(mark))
    yield "script.gif", b"#!/bin/sh\ntouch " + mark.encode()
    yield "page.png", b"<html><body>404 Not Found</body></html>"
    yield (
        "drawing.jpg",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(" + mark.encode() + b") run",
    )
    yield "archive.png", b"PK\3\4" + b"\0" * 100
    yield "icon.bmp", b"\0\0\1\0" + b"\1" * 100


def jpeg_of(side: int) -> bytes:
    content = encoded("JPEG")
    start = content.index(b"\xff\xc0") + 5
    return changed(content, start, struct.pack(">HH", side, side))


def tiff_of(array: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "TIFF")
    return buffer.getvalue()


def attempt(folder: str, results: Any) -> None:
    """Open each file as all the images there are; note the error, the seconds and the memory."""
    for path in sorted(Path(folder).iterdir()):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        try:
            data.ImageFolder(str(path), cache_limit=0)
            message = None
        except ValueError as error:
            message = str(error)
        used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        results.put((path.name, message, time.monotonic() - start, used))
    results.put(None)


def test_each_broken_file_is_one_line(tmp_path: Path) -> None:
    mark, root = tmp_path / "mark", tmp_path / "files"
    files = dict(broken_files(str(mark)))
    assert len(files) >= 70
    for name, content in files.items():
        folder = root / name
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        for number in range(3):
            Image.new("RGB", (SIDE, SIDE)).save(folder / f"good{number}.png")
    # In a process of its own: a crash would be seen, and its memory is its own.
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=attempt, args=(str(root), results))
    process.start()
    seen = {}
    while (result := results.get(timeout=60)) is not None:
        seen[result[0]] = result[1:]
    process.join()
    assert seen.keys() == files.keys()
    assert [name for name, (message, *_) in seen.items() if message is None] == []
    for name, (message, seconds, used) in seen.items():
        print(f"{name:18} {seconds:6.2f} s {used / 2**20:6.0f} MiB  {message}")
        assert "\n" not in message
        assert name in message
        assert "--data.on_bad skip" in message, message
        assert seconds < 10, name
        assert used < GIGABYTE, name
    assert not mark.exists()


def test_all_are_listed_and_can_be_skipped(tmp_path: Path) -> None:
    files = dict(broken_files(str(tmp_path / "mark")))
    root = tmp_path / "files"
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    for number in range(4):
        Image.new("RGB", (SIDE, SIDE)).save(root / f"good{number}.png")
    with pytest.raises(ValueError, match=f"got {len(files)} in .*and {len(files) - 10} more;") as e:
        data.ImageFolder(str(root), size=4)
    assert "\n" not in str(e.value)
    source = data.ImageFolder(str(root), on_bad="skip")
    assert sorted(source.skipped) == sorted(files)
    assert [len(part) for part in source.splits.values()] == [2, 1, 1]  # type: ignore[arg-type]
    for path in root.glob("good*"):
        path.unlink()
    with pytest.raises(ValueError, match="`root` must hold at least one readable image"):
        data.ImageFolder(str(root), on_bad="skip")
