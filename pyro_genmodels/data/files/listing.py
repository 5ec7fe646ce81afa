"""The files of a folder that a source reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def listed_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files with some suffixes in a folder and its folders, in order of their names.

    Hidden ones, which systems and notebooks leave behind, are not data.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path for path in found if path.is_file() and not is_hidden(path, folder))


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder between it and ``folder``, is hidden."""
    parts = path.relative_to(folder).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
