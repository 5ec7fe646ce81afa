"""One image file: what its header says, and its pixels in the depth and colours asked for."""

from __future__ import annotations

import functools
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from pyro_genmodels._checks import require

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".webp", ".tif", ".tiff", ".gif", ".avif"),
)
"""Suffixes of the files that are read, in lower or upper case."""

UNREADABLE = (
    *(".heic", ".heif", ".svg", ".psd", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"),
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"),
)
"""Suffixes of pictures and films that are not: such a file is an error, and never left out."""

# By name: among Pillow's formats is PostScript, which it would have another program run.
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "PPM", "WEBP", "TIFF", "GIF", "AVIF")
_ORIENTATION = 0x0112  # EXIF's tag; from 5 to 8 height and width are exchanged
_ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")


class Header(NamedTuple):
    """What is known of an image before it is decoded.

    Attributes:
        width: Pixels in a row, of the image held upright.
        height: Rows.
        stored_bits: Bits per channel in the file.
        bits: Bits per channel that Pillow reads of them.
        is_grey: Whether it has one channel, beside transparency.
    """

    width: int
    height: int
    stored_bits: int
    bits: int
    is_grey: bool


class Decoding(NamedTuple):
    """How pixels are made of a file.

    Attributes:
        size: Height and width to scale to, after a square is cut from the centre; ``None`` leaves
            images as they are.
        crop: Side of that square; the image's shorter side by default.
        num_bits: Bits kept per channel, the highest ones.
        mode: ``"L"`` for grey or ``"RGB"``.
        background: Colour behind transparent pixels.
    """

    size: int | None
    crop: int | None = None
    num_bits: int = 8
    mode: str = "RGB"
    background: str = "white"


def read_header(path: str) -> Header:
    """Return what the header says of an image.

    Raises:
        ValueError: If it is not an image that can be read; the text is the reason alone.
    """
    with _opened(path) as image:
        orientation = 1
        if image.format != "PNG" or "exif" in image.info:  # a PNG without would be decoded for it
            orientation = _orientation(image)
        # Some versions of Pillow exchange a TIFF's height and width at once.
        tags = getattr(image, "tag_v2", {})
        width, height = (tags.get(256, image.width), tags.get(257, image.height))
        if orientation in (5, 6, 7, 8):
            width, height = height, width
        stored, bits = _depth(image)
        return Header(width, height, stored, bits, image.mode[0] in "1LI")


def decode(path: str, how: Decoding) -> Any:
    """Return the pixels, an array ``(C, H, W)``, ``uint8`` up to 8 bits and ``int32`` above.

    Raises:
        ValueError: If the image is damaged; the text is the reason alone.
    """
    with _opened(path) as image:
        _, bits = _depth(image)
        picture = _upright(image)
        deep = bits > 8
        picture = picture.convert("I") if deep else _opaque(picture, how).convert(how.mode)
        array = np.asarray(_scaled(picture, how))
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if deep and how.mode == "RGB":
        array = array.repeat(3, axis=0)
    array = array >> (bits - how.num_bits)
    return np.ascontiguousarray(array, dtype=np.uint8 if how.num_bits <= 8 else np.int32)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    pillow: Any = require("PIL.Image", extra="train")
    try:
        suffix = os.path.splitext(path)[1].lower()
        _demand(suffix not in UNREADABLE, f"{suffix} files are not read: convert to JPEG or PNG")
        _demand(stat.S_ISREG(os.stat(path).st_mode), "not a regular file")  # a pipe would block
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is an error here, or harmless
            # By its name Pillow would map the file, and confuse the sides of a turned TIFF.
            with open(path, "rb") as file, pillow.open(file, formats=_formats()) as image:
                most, pixels = pillow.MAX_IMAGE_PIXELS, image.width * image.height
                rule = f"{image.width} x {image.height} is more than PIL.Image.MAX_IMAGE_PIXELS"
                _demand(most is None or pixels <= most, rule)
                frames = getattr(image, "is_animated", False) and image.format != "MPO"
                _demand(not frames, "several frames or pages: save each as a file")
                yield image
    except Exception as error:  # damaged files fail in as many ways as there are decoders
        raise ValueError(_reason(error)) from error


def _demand(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


@functools.cache
def _formats() -> list[str]:
    pillow: Any = require("PIL.Image", extra="train")
    pillow.init()
    return [name for name in _FORMATS if name in pillow.OPEN]


def _reason(error: Exception) -> str:
    """Return why an image cannot be read, in one line and without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image of a known format"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _depth(image: Any) -> tuple[int, int]:
    """Return the bits per channel in the file, and those that Pillow reads.

    Raises:
        ValueError: If pixels are not levels.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        _demand("transparency" not in image.info, "16 bits with a transparent level")
        bits = 12 if "I;12" in _raw_modes(image) else 16
        return bits, bits
    kind = {"F": "floating-point", "I": "32-bit or signed"}.get(image.mode)
    reason = f"{kind} pixels have no fixed levels: save 8 or 16 bits, or all images as a .npy array"
    _demand(kind is None, reason)
    # Of more bits Pillow reads 8 in colour; BMP's 16 are those of all channels together.
    named = image.format in ("PNG", "TIFF") and any("16" in mode for mode in _raw_modes(image))
    above = image.format == "PPM" and any(isinstance(t[3], int) and t[3] > 255 for t in image.tile)
    return (16 if named or above else 8), 8


def _raw_modes(image: Any) -> list[str]:
    """Return how the file itself holds its pixels, in Pillow's words."""
    arguments = [tile[3] for tile in image.tile]
    first = [each[0] if isinstance(each, tuple) and each else each for each in arguments]
    return [each for each in first if isinstance(each, str)]


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata say nothing of the pixels
        return 1


def _upright(image: Any) -> Any:
    """Return the image as its camera was held."""
    image.load()
    if _orientation(image) == 1:
        return image
    return require("PIL.ImageOps", extra="train").exif_transpose(image)


def _opaque(image: Any, how: Decoding) -> Any:
    """Return the image on its background: colours below transparent pixels are often arbitrary."""
    if image.mode not in _ALPHA and "transparency" not in image.info:
        return image
    pillow: Any = require("PIL.Image", extra="train")
    behind = pillow.new("RGBA", image.size, how.background)
    return pillow.alpha_composite(behind, image.convert("RGBA"))


def _scaled(picture: Any, how: Decoding) -> Any:
    if how.size is None:
        return picture
    side = how.crop or min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    square = (left, top, left + side, top + side)
    bilinear = require("PIL.Image", extra="train").Resampling.BILINEAR
    return picture.resize((how.size, how.size), bilinear, box=square)
