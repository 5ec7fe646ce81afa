"""Anyone's image files: a folder of them, with or without classes and parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pyro_genmodels._checks import check, check_choice, require
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.pixels import check_bits
from pyro_genmodels.data.base.splits import fraction_of, split
from pyro_genmodels.data.images.image_files import DecodedImages, ImageFiles
from pyro_genmodels.data.images.listing import class_names, images_by_split
from pyro_genmodels.data.images.reading import Images, Wanted, read_images


class ImageFolder(DataSource):
    """Anyone's image files: ``root/*.png`` without labels, ``root/<class>/**/*.png`` with.

    Folders ``root/train``, ``root/val`` and ``root/test`` are the parts of the data, each with
    classes or none. What is missing of validation and test is split off at random, in the order
    of the names. Hidden files and folders are ignored.

    Images are turned upright by their EXIF orientation and put on a background where they are
    transparent. With ``size``, a square is cut from the centre of each and scaled; without, all
    must have the same size already. All are decoded when the source is made, so that a damaged
    file is found then, and kept on disk, in the folder that the environment variable
    ``PYRO_GENMODELS_CACHE`` names (by default ``~/.cache/pyro_genmodels``).

    Args:
        root: The folder.
        size: Height and width to scale to.
        num_bits: Bits kept per channel, from 1 to 16, the highest ones; by default all that the
            files have, 8 or 16.
        mode: ``"RGB"`` for colour, ``"L"`` for grey, ``"auto"`` for grey if all files are.
        background: Colour behind transparent pixels, by name or as ``"#rrggbb"``.
        listing: CSV file in the folder with columns ``file`` and ``label``; ``"auto"`` for
            ``metadata.csv`` or ``labels.csv`` if there is one.
        on_bad: ``"error"`` if files cannot be read, or ``"skip"`` to go on without them.
        cache_limit: Gigabytes that decoded images may take on disk, those of other folders
            included; 0 to keep none.
        validation_fraction: Part of the training images for validation, if it has no folder.
        test_fraction: Part of the training images for test, if it has no folder.
        seed: Seed of the split.

    Attributes:
        skipped: Names of the files that were left out because they cannot be read.

    Raises:
        ValueError: If there are no images, some cannot be read, or they differ in size or depth.
        ImportError: If Pillow is not installed, or pandas for a listing.
    """

    path_argument: ClassVar[str | None] = "root"

    def __init__(
        self,
        root: str,
        *,
        size: int | None = None,
        num_bits: int | None = None,
        mode: str = "auto",
        background: str = "white",
        listing: str | None = "auto",
        on_bad: str = "error",
        cache_limit: float = 2.0,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        if num_bits is not None:
            check_bits(num_bits, most=16)
        check_choice("mode", mode, ("auto", "RGB", "L"))
        check_choice("on_bad", on_bad, ("error", "skip"))
        check(size is None or size >= 1, "size", "be positive", size)
        check(cache_limit >= 0, "cache_limit", "be zero or positive", cache_limit)
        _check_colour(background)
        self._place, folder = root, Path(root).expanduser()
        notes: list[str] = []
        found = images_by_split(folder, listing, notes)
        names = class_names(found)
        files = [each for part in found.values() for each in part]
        paths = [each.path for each in files]
        wanted = Wanted(size, num_bits, mode, background)
        images = read_images(
            folder, paths, wanted, skip_bad=on_bad == "skip", cache_limit=cache_limit
        )
        self.skipped = [os.path.relpath(paths[number], folder) for number in images.bad]
        fractions = {"validation": validation_fraction, "test": test_fraction}
        good = _good_rows({name: len(part) for name, part in found.items()}, images.bad)
        labels = [names.index(each.label) for each in files if each.label is not None]
        parts: dict[str, Any] = {
            name: _dataset(paths, labels, images, rows)
            for name, rows in _complete(good, fractions, seed).items()
        }
        super().__init__(
            **parts,
            num_levels=2**images.how.num_bits,
            num_classes=len(names) or None,
            classes=names or None,
            notes=notes,
        )


def _check_colour(background: str) -> None:
    try:
        require("PIL.ImageColor", extra="train").getrgb(background)
    except ValueError:
        check(False, "background", "be a colour's name or #rrggbb", repr(background))


def _good_rows(sizes: dict[str, int], bad: dict[int, str]) -> dict[str, list[int]]:
    """Return the numbers of each part's files, which lie one part after another."""
    rows, start = {}, 0
    for name, size in sizes.items():
        rows[name] = [number for number in range(start, start + size) if number not in bad]
        start += size
    return rows


def _complete(
    rows: dict[str, list[int]], fractions: dict[str, float], seed: int
) -> dict[str, list[int]]:
    """Split off the training data what is missing."""
    missing = [name for name in fractions if name not in rows]
    train = rows["train"]
    counts = [fraction_of(len(train), fractions[name], f"{name}_fraction") for name in missing]
    drawn = split(len(train), counts, seed) if missing else [range(len(train))]
    parts = zip(["train", *missing], drawn, strict=True)
    return rows | {name: [train[number] for number in numbers] for name, numbers in parts}


def _dataset(
    paths: Sequence[str], labels: Sequence[int], images: Images, rows: Sequence[int]
) -> DecodedImages:
    marks = [labels[row] for row in rows] if labels else None
    files = ImageFiles([paths[row] for row in rows], marks, images.how)
    return DecodedImages(files, images.pixels, rows)
