"""What tells data apart: values that are in memory, and of files their names, sizes and times."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels.training.batches import in_memory

_PROBES = 64  # items that stand for all of a data set that nothing more is known about


def add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    """Take a tensor's values, type and shape into a digest."""
    array = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
    # As bytes: NumPy has no bfloat16.
    digest.update(array.reshape(-1).view(torch.uint8).numpy())


def add_data(digest: Any, name: str, dataset: Any) -> None:
    """Take what a data set's items depend on into a digest, without reading all of them.

    Tensors count by their values, as do arrays and plain values that a data set keeps in public
    attributes; of files that these name, and of memory-mapped arrays, count name, size and time of
    last change; and then there are the values of 64 items, for all else. A data set can say
    itself what it is by a string, its attribute ``fingerprint``.
    """
    digest.update(f"{name}: {len(dataset)}".encode())
    own = getattr(dataset, "fingerprint", None)
    if isinstance(own, str):
        digest.update(own.encode())
        return
    tensors = in_memory(dataset)
    for tensor in tensors or ():
        add_tensor(digest, name, tensor)
    if tensors is None:
        for fact in _facts(dataset, set()):
            digest.update(fact)
        for index in _places(len(dataset)):
            for part in dataset[index]:
                add_tensor(digest, name, torch.as_tensor(part))


def _places(length: int) -> list[int]:
    return torch.linspace(0, length - 1, min(_PROBES, length)).long().unique().tolist()


def _facts(value: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield what is known of a value, piece by piece."""
    if value is None or isinstance(value, bool | int | float | complex | bytes | range):
        yield repr(value).encode()
    elif isinstance(value, str | Path):
        yield _file(value) or repr(str(value)).encode()
    elif isinstance(value, np.memmap) and value.filename is not None:
        yield _file(value.filename) + f"{value.dtype} {value.shape} {value.offset}".encode()
    elif isinstance(value, Tensor | np.ndarray | np.generic):
        yield from _array(value)
    else:
        yield from _compound(value, seen)


def _array(value: Any) -> Iterator[bytes]:
    array = value.detach().cpu().contiguous() if isinstance(value, Tensor) else np.asarray(value)
    yield f"{array.dtype} {tuple(array.shape)}".encode()
    if isinstance(array, Tensor):
        yield array.reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        # Objects have no bytes of their own, only addresses.
        yield repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()


def _compound(value: Any, seen: set[int]) -> Iterator[bytes]:
    yield type(value).__qualname__.encode()
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        yield from _named_facts(value, seen)
    elif isinstance(value, list | tuple | Set):
        for item in sorted(value, key=str) if isinstance(value, Set) else value:
            yield from _facts(item, seen)
            yield b","
    elif isinstance(value, Dataset):
        # What is private may be a cache, which is another after each item.
        public = {k: v for k, v in vars(value).items() if not k.startswith("_")}
        yield from _named_facts(public, seen)


def _named_facts(values: Mapping[Any, Any], seen: set[int]) -> Iterator[bytes]:
    for key in sorted(values, key=str):
        yield f"{key}:".encode()
        yield from _facts(values[key], seen)


def _file(path: str | os.PathLike[str]) -> bytes:
    """Describe a file, wherever its folder lies; nothing of what is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return b""
    place = "/".join(Path(path).parts[-2:])
    regular = stat.S_ISREG(found.st_mode)
    return f"{place!r} {found.st_size} {found.st_mtime_ns}".encode() if regular else b""
