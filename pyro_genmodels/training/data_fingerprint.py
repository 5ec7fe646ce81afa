"""What tells data apart: values in memory, and files by their content, wherever they lie."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels.data import DataSource
from pyro_genmodels.training.batches import in_memory
from pyro_genmodels.training.random import seeded

_PROBES = 64  # items that stand for all of a data set that nothing more is known about
_BLOCKS, _BLOCK = 64, 2**16
WHOLE_UP_TO = 2**30
"""Bytes of data up to which all of them count."""
_CHUNK = 2**24


class _File(NamedTuple):
    path: str
    size: int
    time: int
    changed: int  # counts in memory alone: nobody can set it back


_Fact: TypeAlias = "Any"
"""Bytes, a file or an array."""


@dataclass(frozen=True)
class DataFingerprint:
    """What tells a source's data from others.

    Attributes:
        kind: How much of the data counts: their ``"whole content"``, up to 1 GB; beyond that
            ``"sizes, times and 64 blocks"`` of each file or tensor.
        digests: One of the data of each split, and one of the files that were left out.
        facts: What the source says of its data.
    """

    kind: str
    digests: dict[str, str]
    facts: dict[str, Any]

    @classmethod
    def of(cls, source: DataSource) -> DataFingerprint:
        """Read a source's data; where a folder lies, and its files' times, do not count."""
        found = _content_of(source)
        whole, root = _is_whole(found), _common_folder(found)
        digests = {name: _digest(facts, root, whole) for name, facts in found.items()}
        facts = {
            "event_shape": list(source.event_shape),
            "num_levels": source.num_levels,
            "num_classes": source.num_classes,
            "missing": source.missing,
            "classes": source.classes,
            "columns": column_facts(source),
            "examples": {name: _length(part) for name, part in source.splits.items()},
        }
        return cls(_kind(whole), digests, facts)

    def differences(self, other: DataFingerprint) -> list[str]:
        """Name what another source has that differs; nothing if its data are the same."""
        before, now = self.facts["examples"], other.facts["examples"]
        found = [
            f"{name} has {now[name]} examples, not {before[name]}"
            if now.get(name) != before.get(name)
            else f"{name} has other values"
            if name in before
            else f"{name} are others"
            for name in self.digests
            if self.digests[name] != other.digests.get(name)
        ]
        kinds = self.facts.keys() & other.facts.keys() - {"examples"}
        return found + [
            f"{name} is {other.facts[name]}, not {self.facts[name]}"
            for name in sorted(kinds)
            if self.facts[name] != other.facts[name]
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as a checkpoint keeps them."""
        return asdict(self)


def fingerprint_kind(source: DataSource) -> str:
    """Return how much of a source's data its fingerprint reads, without reading them."""
    return _kind(_is_whole(_content_of(source, probes=False)))


def column_facts(source: DataSource) -> list[dict[str, Any]] | None:
    """Return a source's columns as plain data."""
    if source.columns is None:
        return None
    return [{**asdict(column), "categories": list(column.categories)} for column in source.columns]


def _kind(whole: bool) -> str:
    return "whole content" if whole else f"sizes, times and {_BLOCKS} blocks"


def _content_of(source: DataSource, *, probes: bool = True) -> dict[str, list[_Fact]]:
    own = getattr(source, "fingerprint", None)
    if isinstance(own, str):
        return {"codes": [own.encode()]}
    found = {name: list(_items(part, probes)) for name, part in source.splits.items()}
    return found | ({"skipped": list(_skipped(source))} if source.skipped else {})


def _skipped(source: DataSource) -> Iterator[_Fact]:
    """Yield names and, where they can be opened, contents of the files that were left out."""
    for name, path in source.skipped_files.items():
        yield f"{Path(name).as_posix()!r},".encode()
        if os.access(path, os.R_OK) and (file := _file(path)):
            yield file


def _items(dataset: Any, probes: bool) -> Iterator[_Fact]:
    """Yield what a data set's items depend on."""
    own, tensors = getattr(dataset, "fingerprint", None), in_memory(dataset)
    if isinstance(own, str):
        yield own.encode()
    elif tensors is not None:
        yield from tensors
    else:
        yield f"{_length(dataset)}".encode()
        has_content = False
        for fact in _facts(dataset, set()):
            has_content = has_content or not isinstance(fact, bytes)
            yield fact
        if probes and not (has_content and _is_ours(dataset)):
            yield from _probes(dataset)


def _probes(dataset: Any) -> Iterator[bytes]:
    """Yield digests of some items: what a data set computes shows in them alone."""
    if _length(dataset) is None:
        return
    with seeded(0):  # items may be drawn at random; training's own random states stay
        for index in _places(len(dataset)):
            yield _digest(_facts(dataset[index], set()), "", whole=True).encode()


def _is_ours(dataset: Any) -> bool:
    """Whether this package's own code, which public attributes settle, makes the items."""
    while isinstance(inner := vars(dataset).get("dataset"), Dataset):
        dataset = inner
    return type(dataset).__module__.startswith("pyro_genmodels.")


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None  # a stream


def _is_whole(found: Mapping[str, Iterable[_Fact]]) -> bool:
    facts = [fact for part in found.values() for fact in part if not isinstance(fact, bytes)]
    files = {fact.path: fact.size for fact in facts if isinstance(fact, _File)}
    arrays = sum(fact.nbytes for fact in facts if not isinstance(fact, _File))
    return sum(files.values()) + arrays <= WHOLE_UP_TO


def _common_folder(found: Mapping[str, Iterable[_Fact]]) -> str:
    """Return the folder from which the names of files count; a single file has none."""
    facts = {fact.path for part in found.values() for fact in part if isinstance(fact, _File)}
    return os.path.commonpath(facts) if facts else ""


def _digest(facts: Iterable[_Fact], root: str, whole: bool) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for fact in facts:
        if isinstance(fact, bytes):
            digest.update(fact)
        elif isinstance(fact, _File):
            name = Path(os.path.relpath(fact.path, root)).as_posix()
            digest.update(f"{name!r} {fact.size} ".encode())
            digest.update(_file_digest(fact, whole))
        else:
            _add_array(digest, fact, whole)
    return digest.hexdigest()


@cache
def _file_digest(file: _File, whole: bool) -> bytes:
    """Digest a file: a run asks for it when it begins, and again when it ends."""
    digest = hashlib.blake2b(digest_size=16)
    with open(file.path, "rb", buffering=0) as opened:
        if whole:
            while block := opened.read(_CHUNK):
                digest.update(block)
        else:
            digest.update(f"{file.time}".encode())
            for start in _block_starts(file.size):
                opened.seek(start)
                digest.update(opened.read(_BLOCK))
    return digest.digest()


def _add_array(digest: Any, array: Any, whole: bool) -> None:
    if not isinstance(array, Tensor) and array.dtype.hasobject:
        # Objects have no bytes of their own, only addresses.
        digest.update(repr(array.tolist()).encode())
        return
    digest.update(f"{array.dtype} {tuple(array.shape)}".encode())
    rows = array if array.ndim else array[None]
    if not whole:
        rows = rows[_places(len(rows), _BLOCKS)]
    # In parts: only these are copied, from a device or into one piece.
    step = max(1, _CHUNK * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), step):
        digest.update(_bytes(rows[start : start + step]))


def _bytes(array: Any) -> Any:
    if isinstance(array, Tensor):
        return array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _block_starts(size: int) -> list[int]:
    return [index * max(0, size - _BLOCK) // (_BLOCKS - 1) for index in range(_BLOCKS)]


def add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    """Take a tensor's values, type and shape into a digest."""
    array = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
    # As bytes: NumPy has no bfloat16.
    digest.update(array.reshape(-1).view(torch.uint8).numpy())


def add_data(digest: Any, name: str, dataset: Any) -> None:
    """Take a data set into a digest as codes of before 2026-12 did, without reading all of it.

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
            digest.update(fact if isinstance(fact, bytes) else _as_before(fact))
        for index in _places(len(dataset)):
            for part in dataset[index]:
                add_tensor(digest, name, torch.as_tensor(part))


def _as_before(fact: Any) -> bytes:
    """Describe a file by place, size and time, an array by its values."""
    if isinstance(fact, _File):
        place = "/".join(Path(fact.path).parts[-2:])
        return f"{place!r} {fact.size} {fact.time}".encode()
    array = fact.detach().cpu().contiguous() if isinstance(fact, Tensor) else np.asarray(fact)
    header = f"{array.dtype} {tuple(array.shape)}".encode()
    if isinstance(array, Tensor):
        return header + array.reshape(-1).view(torch.uint8).numpy().tobytes()
    content = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
    return header + content


def _places(length: int, most: int = _PROBES) -> list[int]:
    return torch.linspace(0, length - 1, min(most, length)).long().unique().tolist()


def _facts(value: Any, seen: set[int]) -> Iterator[_Fact]:
    """Yield what is known of a value, piece by piece."""
    if value is None or isinstance(value, bool | int | float | complex | bytes | range):
        yield repr(value).encode()
    elif isinstance(value, str | Path):
        yield _file(value) or _text(value)
    elif isinstance(value, np.memmap) and (file := _file(value.filename or "")):
        yield file
        yield f"{value.dtype} {value.shape} {value.offset}".encode()
    elif isinstance(value, Tensor | np.ndarray | np.generic):
        yield value if isinstance(value, Tensor) else np.asarray(value)
    else:
        yield from _compound(value, seen)


def _compound(value: Any, seen: set[int]) -> Iterator[_Fact]:
    yield type(value).__qualname__.encode()
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        yield from _named_facts(value, seen)
    elif isinstance(value, list | tuple) and all(type(item) is int for item in value):
        yield "".join(f"{item}," for item in value).encode()  # rows, labels: there may be many
    elif isinstance(value, list | tuple | Set):
        for item in sorted(value, key=str) if isinstance(value, Set) else value:
            yield from _facts(item, seen)
            yield b","
    elif isinstance(value, Dataset):
        # What is private may be a cache, which is another after each item.
        public = {k: v for k, v in vars(value).items() if not k.startswith("_")}
        yield from _named_facts(public, seen)


def _named_facts(values: Mapping[Any, Any], seen: set[int]) -> Iterator[_Fact]:
    for key in sorted(values, key=str):
        yield f"{key}:".encode()
        yield from _facts(values[key], seen)


def _text(value: str | Path) -> bytes:
    """Return a text, and nothing of a folder's place."""
    is_place = isinstance(value, Path) or os.path.isabs(value)
    return b"folder" if is_place and os.path.isdir(value) else repr(str(value)).encode()


def _file(path: str | os.PathLike[str]) -> _File | None:
    """Return a file's place, size and time of last change; nothing of what is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    regular = stat.S_ISREG(found.st_mode)
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return _File(os.path.abspath(path), found.st_size, *times) if regular else None
