"""Decoded images on disk: arrays that are mapped into memory, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_genmodels._files import written_whole

VARIABLE = "PYRO_GENMODELS_CACHE"
"""Environment variable that says where decoded images are kept."""

_GIGABYTE = 10**9
_STALE = 24 * 3600  # seconds after which a killed process does not come back to its file


def cache_folder() -> Path:
    """Return the folder of decoded images: ``VARIABLE``, or one of the user's caches."""
    own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(os.path.join("~", ".cache"))
    return Path(os.environ.get(VARIABLE) or os.path.join(own, "pyro_genmodels"))


def key_of(paths: Sequence[str], how: Any) -> str:
    """Return the name of what these files are decoded to: any change of either is another."""
    digest = hashlib.sha256(json.dumps(["1", how]).encode())
    for path in paths:
        with contextlib.suppress(OSError):  # a file that cannot be read counts by its name
            found = os.stat(path)
            times = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
            digest.update(times.encode())
        digest.update(os.fsencode(os.path.abspath(path)) + b"\\0")
    return digest.hexdigest()[:40]


def opened(key: str) -> tuple[Tensor, Any] | None:
    """Return decoded images ``(n, C, H, W)`` and what was noted with them; ``None``: not there."""
    path = cache_folder() / f"{key}.npy"
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        # Copy on write: torch takes no array that it may not write to.
        images = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        os.utime(path)  # the oldest goes first when there is no room
    except (OSError, ValueError):
        return None
    return images, facts


class NewImages:
    """Decoded images on their way into the cache.

    Rows are written by :meth:`write`, by any number of processes at once; :meth:`keep` makes them
    an entry of the cache. A context that ends without it leaves nothing behind.

    Args:
        key: Name of the entry.
        shape: ``(n, C, H, W)``.
        dtype: NumPy's.
        limit: Space in gigabytes that all entries may take.

    Raises:
        OSError: If there is not enough space, or it cannot be written to.
    """

    def __init__(self, key: str, shape: Sequence[int], dtype: Any, limit: float) -> None:
        dtype, folder = np.dtype(dtype), cache_folder()
        self.path = folder / f"{key}.npy"
        # A name of its own: two processes may decode the same images.
        self.temporary = folder / f".{key}.{os.getpid()}.part"
        self.row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
        size = shape[0] * self.row_bytes
        if size > limit * _GIGABYTE:
            raise OSError(f"{size / _GIGABYTE:.1f} GB are more than cache_limit={limit:g}")
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, limit * _GIGABYTE - size)
        if shutil.disk_usage(folder).free < 1.1 * size:
            raise OSError(f"{folder} has no space for {size / _GIGABYTE:.1f} GB")
        header = {"descr": dtype.str, "fortran_order": False, "shape": tuple(shape)}
        try:
            with self.temporary.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                self.start = file.tell()
                file.truncate(self.start + size)
        except OSError:
            self.__exit__()
            raise

    def write(self, number: int, row: Any) -> None:
        """Write a row, an array of the entry's dtype.

        Raises:
            OSError: If the disk is full. Writing to mapped memory would kill the process.
        """
        with self.temporary.open("r+b") as file:
            file.seek(self.start + number * self.row_bytes)
            file.write(row.tobytes())

    def keep(self, facts: Any) -> None:
        """Make the rows an entry, with what is to be noted.

        Raises:
            OSError: If the disk is full.
        """
        with written_whole(self.path.with_suffix(".json")) as file:
            file.write_text(json.dumps(facts))
        os.replace(self.temporary, self.path)

    def __enter__(self) -> NewImages:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self.temporary.unlink()


def _make_room(folder: Path, room: float) -> None:
    """Delete the entries used longest ago, until the others take no more than ``room`` bytes."""
    for path in folder.glob(".*.part"):
        if time.time() - path.stat().st_mtime > _STALE:
            path.unlink()
    entries = sorted(folder.glob("*.npy"), key=lambda path: path.stat().st_mtime)
    sizes = [path.stat().st_size for path in entries]
    while entries and sum(sizes) > room:
        path = entries.pop(0)
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # whoever has it mapped keeps it
        del sizes[0]
