"""All images of a source, verified when it is made, and decoded once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor
from tqdm.auto import tqdm

from pyro_genmodels._checks import check, listed
from pyro_genmodels.data.images.cache import NewImages, key_of, opened
from pyro_genmodels.data.images.decoding import Decoding, Header, decode, read_header

AUTO = "auto"
_CHUNK = 16  # files that a worker is given at a time
_WORTH_WORKERS = 64  # files; fewer are decoded before workers have started
_MOST_WORKERS = 8
_SHOWN_AFTER = 5.0  # seconds of waiting, where nobody may be looking
_MOST_NAMED = 10  # files in one message
_MOST_ODD = 64  # files of an unusual size that are decoded before they are all said to differ

# Given a function of consecutive files, the results of all files; and what the wait is for.
Run: TypeAlias = "Callable[[Callable[[int, Sequence[str]], list[Any]], str], list[Any]]"


class Wanted(NamedTuple):
    """What is asked of the images; ``None`` and ``"auto"`` are settled by the files themselves."""

    size: int | None
    num_bits: int | None
    mode: str
    background: str


class Images(NamedTuple):
    """What was read.

    Attributes:
        how: How the files are decoded.
        bad: Reasons for the files that cannot be, by number.
        pixels: Of all files ``(n, C, H, W)``, zeros for bad ones; ``None`` if they are not kept.
    """

    how: Decoding
    bad: dict[int, str]
    pixels: Tensor | None


def read_images(
    root: Path, paths: Sequence[str], wanted: Wanted, *, skip_bad: bool, cache_limit: float
) -> Images:
    """Verify files by decoding them, unless that was done before and no file has changed since.

    Args:
        root: Folder of the files, for messages.
        paths: The files.
        wanted: What is asked of the images.
        skip_bad: Whether files that cannot be read are left out; if not, they are an error.
        cache_limit: Gigabytes that decoded images may take on disk.

    Raises:
        ValueError: If files cannot be read, or differ in what must be equal.
    """
    key = key_of(paths, (wanted, skip_bad))
    if cache_limit > 0 and (known := opened(key)) is not None:
        pixels, (how, bad) = known
        return Images(Decoding(*how), {int(number): text for number, text in bad.items()}, pixels)
    check_good = partial(_check_good, root, paths, skip_bad=skip_bad)
    with _workers(root, paths) as run:
        headers = run(_headers, "headers")
        bad = {number: each for number, each in enumerate(headers) if isinstance(each, str)}
        if wanted.size is None:
            bad |= _damaged_odd_ones(paths, headers)
        good = {paths[i]: each for i, each in enumerate(headers) if i not in bad}
        try:
            how, shape = _settled(good, wanted)
        except ValueError:
            check_good(bad)  # first of all: nothing may be wrong with the others
            raise
        verify = partial(_verified, run, bad, how, shape, check_good)
        if cache_limit > 0:
            try:
                dtype = "uint8" if how.num_bits <= 8 else "int32"
                with NewImages(key, (len(paths), *shape), dtype, cache_limit) as new:
                    bad = verify(new)
                    new.keep((how, bad))
            except OSError as error:  # no space, or no right to write
                reason = str(error)
                warnings.warn(f"images are decoded in every epoch: {reason}", stacklevel=4)
            else:
                found = opened(key)
                return Images(how, bad, None if found is None else found[0])
        return Images(how, verify(None), None)


def _verified(
    run: Run,
    bad: Mapping[int, str],
    how: Decoding,
    shape: Sequence[int],
    check_good: Callable[[Mapping[int, str]], None],
    new: NewImages | None,
) -> dict[int, str]:
    """Decode all files; return the reasons for those that cannot be, by number."""
    reasons = run(partial(_decode, frozenset(bad), how, tuple(shape), new), "images")
    found = {number: each for number, each in enumerate(reasons) if each is not None} | {**bad}
    found = dict(sorted(found.items()))
    check_good(found)
    return found


def _headers(first: int, paths: Sequence[str]) -> list[Header | str]:
    """Return each file's header, or why it has none."""
    return [_result(read_header, path) for path in paths]


def _decode(
    bad: frozenset[int],
    how: Decoding,
    shape: tuple[int, ...],
    new: NewImages | None,
    first: int,
    paths: Sequence[str],
) -> list[str | None]:
    """Decode files and write them, if they are to be kept; return why some cannot be."""
    reasons: list[str | None] = []
    for number, path in enumerate(paths, first):
        found = None if number in bad else _result(decode, path, how)
        reason = found if isinstance(found, str) else None
        if found is not None and reason is None and found.shape != shape:
            reason = f"{found.shape[2]} x {found.shape[1]}, unlike its header"
        if new is not None and found is not None and reason is None:
            new.write(number, found)
        reasons.append(reason)
    return reasons


def _result(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ValueError as error:
        return str(error)


def _settled(headers: Mapping[str, Header], wanted: Wanted) -> tuple[Decoding, tuple[int, ...]]:
    """Return how files are decoded, and the shape that all have then.

    Raises:
        ValueError: If they differ.
    """
    check(len(headers) > 0, "root", "hold at least one readable image", "none")
    is_grey = all(header.is_grey for header in headers.values())
    mode = ("L" if is_grey else "RGB") if wanted.mode == AUTO else wanted.mode
    num_bits = _num_bits(headers, wanted.num_bits)
    height, width = (wanted.size,) * 2 if wanted.size is not None else _one_size(headers)
    how = Decoding(wanted.size, None, num_bits, mode, wanted.background)
    return how, (1 if mode == "L" else 3, height, width)


def _num_bits(headers: Mapping[str, Header], num_bits: int | None) -> int:
    """Return the bits to keep: by default all that the files have."""
    if num_bits is not None:
        for path, header in headers.items():
            rule = f"be at most {header.bits}, the bits that can be read of each file"
            check(num_bits <= header.bits, "num_bits", rule, f"{num_bits} for {path!r}")
        return num_bits
    examples = {header.stored_bits: path for path, header in headers.items()}
    named = " and ".join(f"{bits} in {path!r}" for bits, path in sorted(examples.items()))
    remedy = "num_bits=8 (--data.num_bits 8) keeps the highest 8"
    rule = "be given for images that differ in their number of bits"
    check(len(examples) == 1, "num_bits", rule, f"{named}: {remedy}")
    for path, header in headers.items():
        rule = f"be given for colour images of {header.stored_bits} bits, of which Pillow reads 8"
        check(header.bits == header.stored_bits, "num_bits", rule, f"None for {path!r}: {remedy}")
    return next(iter(examples))


def _damaged_odd_ones(paths: Sequence[str], headers: Sequence[Header | str]) -> dict[int, str]:
    """Return why files of another size than most cannot be read: a damaged file may claim any."""
    sizes = {i: each[:2] for i, each in enumerate(headers) if isinstance(each, Header)}
    usual = Counter(sizes.values()).most_common(1)
    odd = [number for number, size in sizes.items() if size != usual[0][0]][:_MOST_ODD]
    reasons = {number: _result(decode, paths[number], Decoding(None)) for number in odd}
    return {number: reason for number, reason in reasons.items() if isinstance(reason, str)}


def _one_size(headers: Mapping[str, Header]) -> tuple[int, int]:
    """Return the height and width of all images."""
    sizes = {path: (header.width, header.height) for path, header in headers.items()}
    (width, height), *others = [size for size, _ in Counter(sizes.values()).most_common()]
    example = {size: path for path, size in reversed(sizes.items())}
    named = [f"{size[0]} x {size[1]} in {example[size]!r}" for size in others]
    side = min(64, *(min(size) for size in example))
    rule = f"hold images of one size ({width} x {height}) if no size is given"
    remedy = f"give a size, for example size={side} (--data.size {side})"
    check(not others, "root", rule, f"{listed(named)}: {remedy}")
    return height, width


def _check_good(
    root: Path, paths: Sequence[str], bad: Mapping[int, str], *, skip_bad: bool
) -> None:
    """Raise ``ValueError`` for files that cannot be read, all at once."""
    names = [f"{os.path.relpath(paths[i], root)!r} ({reason})" for i, reason in bad.items()]
    found = f"{len(bad)} in {str(root)!r} that cannot be read: {listed(names, most=_MOST_NAMED)}"
    remedy = "remove them, or leave them out by on_bad='skip' (--data.on_bad skip)"
    check(not bad or skip_bad, "root", "hold readable images", f"{found}; {remedy}")
    check(len(bad) < len(paths), "root", "hold at least one readable image", found)


@contextmanager
def _workers(root: Path, paths: Sequence[str]) -> Iterator[Run]:
    """Give what runs a function over all files, in worker processes if they are many."""
    count = _num_workers(len(paths))
    if count < 2:
        yield partial(_run, map, root, paths)
        return
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(count, mp_context=fork, initializer=_leave_interrupts)
    try:
        yield partial(_run, pool.map, root, paths)
    finally:
        pool.shutdown(cancel_futures=True)


def _num_workers(num_files: int) -> int:
    # Elsewhere than on Linux a worker would begin by running the user's script again.
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS) if num_files >= _WORTH_WORKERS else 1


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # they are the main process's


def _run(
    mapped: Callable[..., Any],
    root: Path,
    paths: Sequence[str],
    function: Callable[[int, Sequence[str]], list[Any]],
    what: str,
) -> list[Any]:
    starts = range(0, len(paths), _CHUNK)
    parts = mapped(function, starts, [paths[start : start + _CHUNK] for start in starts])
    watched = sys.stderr.isatty()
    found: list[Any] = []
    bar = tqdm(
        total=len(paths),
        desc=f"reading {what} of {root.name}",
        unit="file",
        delay=0.5 if watched else _SHOWN_AFTER,
        mininterval=0.1 if watched else 10,
        leave=False,
    )
    try:
        with bar:
            for part in parts:
                found += part
                bar.update(len(part))
    except BrokenProcessPool as error:
        reason = f"{str(root)!r}, where a worker process died (out of memory?)"
        raise ValueError(f"`root` must hold images that decode; got {reason}.") from error
    return found
