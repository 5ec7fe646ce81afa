"""Which files of a folder are images, of which class, and of which part of the data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from pyro_genmodels._checks import check, listed, require
from pyro_genmodels.data.base.separators import separator_of
from pyro_genmodels.data.images.decoding import SUFFIXES, UNREADABLE

AUTO = "auto"
_TABLES = ("metadata.csv", "labels.csv")
_FILE_COLUMNS = ("file_name", "file", "filename", "path", "image")
_LABEL_COLUMNS = ("label", "class")
_SPLIT_COLUMNS = ("split",)
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
# What systems leave in folders of images, beside hidden files.
_LEFT_BEHIND = ("__MACOSX", "__pycache__", "@eaDir", "lost+found")


class ListedImage(NamedTuple):
    """A file, the name of its class if it has one, and the part of the data it is listed for."""

    path: str
    label: str | None
    part: str = "train"


def images_by_split(
    root: Path, table: str | None, notes: list[str]
) -> dict[str, list[ListedImage]]:
    """Return the images of each part of the data; of one, ``train``, if the folder has no parts.

    Args:
        root: The folder.
        table: A CSV of files and labels, relative to the folder; ``"auto"`` for one by a usual
            name, if it is there.
        notes: Where to note what such a table holds and is left out.

    Raises:
        ValueError: If the folder holds no images, a table's columns are misspelt, or images lie
            in a way that leaves their classes open.
    """
    check(root.is_dir(), "root", "be a folder", repr(str(root)))
    if table is not None and table != AUTO:
        return _by_part(_in_table(root, root / Path(table).expanduser(), notes), notes)
    folders = _split_folders(root)
    if table == AUTO and root not in folders.values():
        above = [name for name in _TABLES if (root / name).is_file()]
        notes += [f"{name} left out: the parts of the data are folders" for name in above]
    found = {split: _in_folder(folder, table, notes) for split, folder in folders.items()}
    named = {split: sum(each.label is not None for each in found[split]) for split in found}
    mixed = len({count > 0 for count in named.values()}) > 1
    check(not mixed, "root", "have classes in all of its parts, or in none", named)
    return found if len(found) > 1 else _by_part(found["train"], notes)


def class_names(images: dict[str, list[ListedImage]]) -> list[str]:
    """Return the sorted names of all parts' classes, numbers by their size."""
    names = {each.label for part in images.values() for each in part if each.label is not None}
    numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


def _by_part(images: list[ListedImage], notes: list[str]) -> dict[str, list[ListedImage]]:
    parts: dict[str, list[ListedImage]] = {}
    for each in images:
        parts.setdefault(each.part, []).append(each)
    if "train" not in parts:
        notes.append(f"parts of the data left out: all are {listed(list(parts))}, none is train")
        return {"train": images}
    return parts


def _in_folder(folder: Path, table: str | None, notes: list[str]) -> list[ListedImage]:
    tables = [folder / name for name in _TABLES if table == AUTO and (folder / name).is_file()]
    used = next((place for place in tables if _column(_read(place), _FILE_COLUMNS)), None)
    for place in tables:
        reason = "it has no column of files" if used is None else f"{used.name} is there"
        if place != used:
            notes.append(f"{place.name} left out: {reason}")
    if used is not None:
        return _in_table(folder, used, notes)
    flat = list(_images(folder, deep=False))
    deep = [(each, list(_images(each))) for each in _folders(folder)]
    classes = [(each.name, found) for each, found in deep if found]
    both = f"{flat[0]!r} beside the folder {classes[0][0]!r}" if flat and classes else ""
    rule = "hold images, or folders of images, but not both: move its images into a folder"
    check(not both, "root", rule, both)
    images = [ListedImage(path, None) for path in flat]
    images += [ListedImage(path, name) for name, found in classes for path in found]
    kinds = ", ".join(SUFFIXES)
    check(bool(images), "root", f"hold images ({kinds})", f"none in {str(folder)!r}")
    return images


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of training, validation and test data; the root alone if none is."""
    parts: dict[str | None, list[str]] = {}
    for folder in _folders(root):
        parts.setdefault(_SPLITS.get(folder.name.lower()), []).append(folder.name)
    others = [name for name in parts.pop(None, []) if any(_images(root / name))]
    if not parts or (others and len(parts) == 1):  # "train" and "test" are also names of things
        return {"train": root}
    named = listed([name for names in parts.values() for name in names])
    beside = [*others, *(Path(path).name for path in _images(root, deep=False))]
    rule = "hold nothing beside its parts of the data (train, val, test)"
    check(not beside, "root", rule, f"{listed(beside)} beside {named}")
    check("train" in parts, "root", "hold a folder train if it has parts of the data", named)
    for names in parts.values():
        check(len(names) == 1, "root", "hold each part of the data once", " and ".join(names))
    return {str(part): root / names[0] for part, names in parts.items()}


def _in_table(folder: Path, table: Path, notes: list[str]) -> list[ListedImage]:
    frame = _read(table)
    files, labels = _column(frame, _FILE_COLUMNS), _column(frame, _LABEL_COLUMNS)
    split = _column(frame, _SPLIT_COLUMNS)
    rule = f"have a column of files ({' or '.join(_FILE_COLUMNS)})"
    check(files is not None, "listing", rule, f"{list(frame)} in {str(table)!r}")
    names = frame[files].tolist()
    check(len(names) > 0, "listing", "name at least one file", repr(str(table)))
    twice = frame[files][frame[files].duplicated()].tolist()
    check(not twice, "listing", "name each file once", listed(twice))
    marks = [None] * len(names) if labels is None else frame[labels].tolist()
    bare = [name for name, mark in zip(names, marks, strict=True) if mark == ""]
    check(not bare, "listing", "have a label for each file", f"none for {listed(bare)}")
    if unused := [str(column) for column in frame if column not in (files, labels, split)]:
        _check_spelling(unused, (labels, _LABEL_COLUMNS), (split, _SPLIT_COLUMNS))
        notes.append(f"columns of {table.name} left out: {listed(unused, most=8)}")
    parts = ["train"] * len(frame)
    if split is not None and (own := _parts_of(frame[split])):
        parts = own
    elif split is not None:
        notes.append(f"column '{split}' of {table.name} left out: it names no part of the data")
    found = map(ListedImage, (os.path.join(folder, name) for name in names), marks, parts)
    return sorted(found, key=lambda each: Path(each.path).parts)


def _check_spelling(unused: list[str], *known: tuple[str | None, tuple[str, ...]]) -> None:
    """Raise ``ValueError`` if the name of an unused column is almost that of one that lacks."""
    wanted = [name for column, names in known if column is None for name in names]
    for column in unused:
        for meant in get_close_matches(column.strip().lower(), wanted, 1, cutoff=0.8):
            rule = f"have a column '{meant}', or none of a similar name"
            check(False, "listing", rule, f"'{column}': rename it")


def _parts_of(column: Any) -> list[str]:
    """Return the part of the data that each row names; nothing if none names one.

    Raises:
        ValueError: If some rows name a part, and others none.
    """
    parts = {word: _SPLITS.get(word.strip().lower()) for word in column.unique()}
    if not any(parts.values()):
        return []
    unknown = [repr(word) for word, part in parts.items() if part is None]
    rule = "be train, val or test in every row"
    check(not unknown, f"listing: {column.name}", rule, listed(unknown))
    return [str(parts[word]) for word in column]


def _read(table: Path) -> Any:
    pandas = require("pandas", extra="tables")
    try:
        with table.open(encoding="utf-8-sig") as file:
            separator = separator_of([file.readline(2**20) for _ in range(5)])
        options = {"sep": separator, "skipinitialspace": True, "keep_default_na": False}
        return pandas.read_csv(table, dtype=str, **options)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = f"{str(table)!r}: {str(error).splitlines()[0]}"
        raise ValueError(f"`listing` must be a readable CSV file; got {reason}.") from error


def _column(frame: Any, names: tuple[str, ...]) -> str | None:
    found = {str(column).strip().lower(): column for column in frame}
    return next((found[name] for name in names if name in found), None)


def _folders(folder: Path) -> list[Path]:
    return [Path(path) for path in _inside(folder) if os.path.isdir(path)]


def _images(folder: Path, *, deep: bool = True) -> Iterator[str]:
    """Yield the files whose suffix is that of a picture, in order of their names."""
    yield from _walked(os.fspath(folder), (), deep)


def _walked(folder: str, above: tuple[str, ...], deep: bool) -> Iterator[str]:
    for path in _inside(folder):
        if os.path.isdir(path):
            place, holder = os.path.realpath(path), os.path.realpath(folder)
            leads_back = place in above or os.path.join(holder, "").startswith(place + os.sep)
            if deep and not leads_back:
                yield from _walked(path, (*above, place), deep)
        elif os.path.splitext(path)[1].lower() in (*SUFFIXES, *UNREADABLE):
            yield path


def _inside(folder: str | Path) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        reason = f"{str(folder)!r}: {error.strerror}"
        raise ValueError(f"`root` must be readable; got {reason}.") from error
    shown = (name for name in names if not name.startswith(".") and name not in _LEFT_BEHIND)
    return [os.path.join(folder, name) for name in shown]
