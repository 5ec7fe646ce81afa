"""The files of a folder that a source reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pyro_genmodels._checks import check, listed
from pyro_genmodels.data.files.arrays import SPLIT_WORDS


def listed_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files with some suffixes in a folder and its folders, in order of their names.

    Hidden ones, which systems and notebooks leave behind, are not data.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path for path in found if path.is_file() and not is_hidden(path, folder))


def check_no_parts(files: Sequence[Path], folder: Path) -> None:
    """Raise ``ValueError`` for folders of training and test data, which would be mixed.

    Args:
        files: The files.
        folder: Where they were found.
    """
    names = sorted({file.relative_to(folder).parts[0] for file in files if file.parent != folder})
    patterns = "|".join(SPLIT_WORDS.values())
    parts = [name for name in names if re.fullmatch(patterns, name.lower())]
    rule = "hold the data of all parts together, which are split at random: give one of the folders"
    mixed = len(parts) > 1 and len(parts) == len(names)
    check(not mixed, "path", rule, f"{listed(parts)} in {str(folder)!r}")


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder between it and ``folder``, is hidden."""
    parts = path.relative_to(folder).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
