"""Larger images, read from the user's disk one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels._checks import check, check_choice, check_positive, require
from pyro_genmodels.data.base.data_source import DataSource, Items
from pyro_genmodels.data.base.items import Tuples, as_event
from pyro_genmodels.data.base.pixels import check_bits, with_bits
from pyro_genmodels.data.base.splits import fraction_of, split
from pyro_genmodels.data.datasets.vision import open_torchvision

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")


class ImageFiles(Dataset[tuple[Tensor, ...]]):
    """Image files as bytes ``(C, H, W)``, decoded on access.

    Args:
        paths: The files.
        labels: One a file, if any.
        size: Height and width to scale to, after a square is cut from the centre; ``None``
            leaves images as they are.
        crop: Side of that square; the image's shorter side by default.
        num_bits: Bits kept a channel.
        mode: PIL's ``"L"`` or ``"RGB"``.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int] | None = None,
        *,
        size: int | None = None,
        crop: int | None = None,
        num_bits: int = 8,
        mode: str = "RGB",
    ) -> None:
        self.paths, self.labels = paths, labels
        self.size, self.crop, self.num_bits, self.mode = size, crop, num_bits, mode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x = with_bits(as_event(self._decoded(self.paths[index])), self.num_bits)
        return (x,) if self.labels is None else (x, torch.tensor(self.labels[index]))

    def _decoded(self, path: Path) -> Any:
        with _opened(path) as image:
            picture = image.convert(self.mode)
        if self.size is None:
            return picture
        side = self.crop or min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        square = (left, top, left + side, top + side)
        bilinear = require("PIL.Image", extra="train").Resampling.BILINEAR
        return picture.resize((self.size, self.size), bilinear, box=square)


class ImageFolder(DataSource):
    """Anyone's image files: ``root/*.png`` without labels, ``root/<class>/*.png`` with.

    The files, in order of their names, are split at random. A square is cut from the centre of
    each and scaled to ``size``; without ``size`` all must have the same size already.

    Args:
        root: The folder.
        size: Height and width to scale to.
        num_bits: Bits kept a channel, from 1 to 8.
        mode: ``"RGB"`` for colour, ``"L"`` for grey.
        validation_fraction: Part of the images for validation.
        test_fraction: Part of the images for test.
        seed: Seed of the split.

    Raises:
        ValueError: If there are no images, or some differ in size.
        ImportError: If Pillow is not installed.
    """

    path_argument: ClassVar[str | None] = "root"

    def __init__(
        self,
        root: str,
        *,
        size: int | None = None,
        num_bits: int = 8,
        mode: str = "RGB",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        check_bits(num_bits)
        check_choice("mode", mode, ("RGB", "L"))
        check(size is None or size >= 1, "size", "be positive", size)
        paths, labels, names = _listed(Path(root).expanduser())
        if size is None:
            _check_one_size(paths)
        held_out = (
            fraction_of(len(paths), validation_fraction, "validation_fraction"),
            fraction_of(len(paths), test_fraction, "test_fraction"),
        )
        classes = len(names) or None
        parts: list[Items] = []
        for rows in split(len(paths), held_out, seed):
            chosen = [labels[row] for row in rows] if labels else None
            files = [paths[row] for row in rows]
            images = ImageFiles(files, chosen, size=size, num_bits=num_bits, mode=mode)
            parts.append(Tuples(images, "root", num_levels=2**num_bits, num_classes=classes))
        super().__init__(*parts, num_levels=2**num_bits, num_classes=classes, classes=names or None)


def _listed(root: Path) -> tuple[list[Path], list[int], list[str]]:
    """Return the image files, their labels (none if they lie flat) and the names of classes."""
    check(root.is_dir(), "root", "be a folder", repr(str(root)))
    flat = _images(root)
    folders = {f.name: _images(f) for f in sorted(root.iterdir()) if f.is_dir()}
    classes = [] if flat else [name for name, found in folders.items() if found]
    paths = flat or [path for name in classes for path in folders[name]]
    rule = "hold images, or folders of images"
    check(bool(paths), "root", rule, f"none of {', '.join(SUFFIXES)} in {str(root)!r}")
    labels = [label for label, name in enumerate(classes) for _ in folders[name]]
    return paths, labels, classes


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with require("PIL.Image", extra="train").open(path) as image:
            yield image
    except OSError as error:
        raise ValueError(f"`root` must hold readable images; got {str(path)!r}.") from error


def _check_one_size(paths: Sequence[Path]) -> None:
    first = None
    for path in paths:
        with _opened(path) as image:  # reads the header alone
            found = image.size
        first = first or found
        rule = f"hold images of one size ({first[0]} x {first[1]}) if no size is given"
        check(found == first, "root", rule, f"{found[0]} x {found[1]} in {str(path)!r}")


class CelebA(DataSource):
    """Celebrity faces, the official split: 162,770 / 19,867 / 19,962.

    From the aligned 178 x 218 pictures the central square of ``crop`` pixels is cut and scaled
    to ``size``, as is the custom.

    Args:
        root: Folder above torchvision's ``celeba``.
        download: Whether to fetch what is missing.
        size: Height and width to scale to.
        crop: Side of the central square, at most 178.
        num_bits: Bits kept a channel, from 1 to 8.

    Raises:
        ValueError: If the files are not there or damaged, or an argument is out of range.
        ImportError: If torchvision is not installed.

    References:
        Liu et al. (2015), Deep Learning Face Attributes in the Wild.
    """

    path_argument: ClassVar[str | None] = "root"

    def __init__(
        self,
        root: str,
        *,
        download: bool = False,
        size: int = 64,
        crop: int = 148,
        num_bits: int = 8,
    ) -> None:
        check_bits(num_bits)
        check_positive(size=size)
        check(1 <= crop <= 178, "crop", "lie between 1 and 178", crop)
        parts: list[Items] = []
        for part in ("train", "valid", "test"):
            faces = open_torchvision("CelebA", root, download=download, split=part)
            folder = Path(root).expanduser() / faces.base_folder / "img_align_celeba"
            paths = [folder / name for name in faces.filename]
            images = ImageFiles(paths, size=size, crop=crop, num_bits=num_bits)
            parts.append(Tuples(images, "root", num_levels=2**num_bits))
        super().__init__(*parts, num_levels=2**num_bits)
