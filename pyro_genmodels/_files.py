"""Files that are either the old one or the whole new one, whenever the process dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, which then takes the place of ``path`` in one step.

    The temporary file lies in the same folder (a rename across file systems is a copy) and is on
    the disk before it is renamed. An exception leaves ``path`` as it was; one of the operating
    system (no such folder, disk full) names ``path``.

    Args:
        path: The file to replace.

    Yields:
        Where to write instead; it keeps the suffix, from which writers tell the format.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "result.json"
        >>> with written_whole(path) as temporary:
        ...     _ = temporary.write_text("{}")
        >>> path.read_text()
        '{}'
    """
    path = Path(path)
    # One name a file: what a killed process left behind is overwritten by the next.
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, os.fspath(temporary), temporary):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def save_whole(contents: object, path: str | os.PathLike[str]) -> None:
    """Write tensors and plain data with ``torch.save``, whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    import torch

    # Opened first: of a folder that is not there torch says so in words of its own.
    with written_whole(path) as temporary, temporary.open("wb"):
        try:
            torch.save(contents, temporary)
        except RuntimeError as error:
            # torch reports a full disk as a stream's position that is not what it should be.
            raise OSError(errno.EIO, "cannot write (is the disk full?)", os.fspath(path)) from error


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders; its rename is journaled
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
