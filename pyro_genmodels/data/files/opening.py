"""What a path may name, and which source of data reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_genmodels._checks import check
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.files.audio import AUDIO_SUFFIXES, UNREADABLE_AUDIO, Audio
from pyro_genmodels.data.files.from_file import FromFile
from pyro_genmodels.data.files.text import TEXT_SUFFIXES, Text
from pyro_genmodels.data.images.decoding import SUFFIXES, UNREADABLE
from pyro_genmodels.data.images.image_folder import ImageFolder


@dataclass(frozen=True)
class Accepted:
    """One row of the table of accepted inputs.

    Args:
        what: What it is, for a reader.
        suffixes: Suffixes of such files; of a folder, those of the files in it.
        source: The class that reads it.
        is_folder: Whether the path is a folder.
        extra: Extra of this package that it needs.
    """

    what: str
    suffixes: tuple[str, ...]
    source: type[DataSource]
    is_folder: bool = False
    extra: str | None = None


ACCEPTED: tuple[Accepted, ...] = (
    Accepted("array", (".npy",), FromFile),
    Accepted("arrays by name", (".npz", ".pt"), FromFile),
    Accepted("table", (".csv", ".tsv", ".parquet"), FromFile, extra="tables"),
    Accepted("sparse matrix of counts", (".mtx",), FromFile, extra="tables"),
    Accepted("single cells", (".h5ad",), FromFile, extra="single-cell"),
    Accepted("sound", AUDIO_SUFFIXES, Audio, extra="audio"),
    Accepted("text", TEXT_SUFFIXES, Text),
    # A folder of pictures that cannot be read is for it to refuse, with what can be done.
    Accepted(
        "folder of images", (*SUFFIXES, *UNREADABLE), ImageFolder, is_folder=True, extra="train"
    ),
    Accepted(
        "folder of sounds",
        (*AUDIO_SUFFIXES, *UNREADABLE_AUDIO),
        Audio,
        is_folder=True,
        extra="audio",
    ),
    Accepted("folder of texts", TEXT_SUFFIXES, Text, is_folder=True),
)
"""What :func:`open_source` accepts; of a folder, the row that fits most of the files in it."""


def source_class(path: str | Path) -> type[DataSource]:
    """Return the class of sources that reads a file or folder.

    Raises:
        ValueError: If there is nothing at the path, or nothing reads it.
    """
    place = Path(path).expanduser()
    check(place.exists(), "path", "be a file or a folder", repr(str(path)))
    rows = [row for row in ACCEPTED if row.is_folder == place.is_dir()]
    suffixes = _suffixes_in(place) if place.is_dir() else Counter([place.suffix.lower()])
    files = {row: sum(suffixes[suffix] for suffix in row.suffixes) for row in rows}
    most = max(rows, key=files.__getitem__)
    if files[most]:
        return most.source
    known = ", ".join(suffix for row in rows for suffix in row.suffixes)
    rule = f"hold files of a known kind ({known})" if place.is_dir() else f"end in one of {known}"
    check(False, "path", rule, repr(str(path)))
    raise AssertionError


def open_source(path: str | Path, **options: Any) -> DataSource:
    """Return the source that reads a file or folder of one's own.

    Args:
        path: The file or folder.
        **options: Further arguments of that source.

    Raises:
        ValueError: If there is nothing at the path, nothing reads it, or its data are refused.
    """
    cls: Any = source_class(path)
    return cls(**{cls.path_argument: str(path)}, **options)


def _suffixes_in(folder: Path) -> Counter[str]:
    """Count the files in a folder and its folders by their suffixes, hidden ones left out."""
    return Counter(
        path.suffix.lower()
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
