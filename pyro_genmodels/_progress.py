"""Bars for whatever takes long: they appear after a few seconds, on the standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
SECONDS = 3.0  # until a bar appears
_SHOWN = ContextVar("shown", default=True)


@contextmanager
def progress_shown(shown: bool) -> Iterator[None]:
    """Show no bars within, if so asked; what is hidden outside stays hidden."""
    token = _SHOWN.set(shown and _SHOWN.get())
    try:
        yield
    finally:
        _SHOWN.reset(token)


def progress_bar(description: str, total: int | None = None, *, unit: str = "batch") -> Any:
    """Return a bar with ``update(n)``, to be entered: on a terminal a bar, elsewhere one line.

    Args:
        description: What takes the time: ``"evaluating"``.
        total: Number of units, if it is known.
        unit: Name of one.

    Example:
        >>> with progress_bar("waiting", 3) as bar:
        ...     bar.update(3)
    """
    if sys.stderr.isatty():
        off = not _SHOWN.get()
        options: dict[str, Any] = {"dynamic_ncols": True, "leave": False, "disable": off}
        return tqdm(desc=description, total=total, unit=unit, delay=SECONDS, **options)
    return _Line(description if _SHOWN.get() else None)


def tracked(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield items, with a bar as by :func:`progress_bar`.

    Example:
        >>> sum(tracked(range(4), "adding"))
        6
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(description, total) as bar:
        for item in items:
            yield item
            bar.update(1)


class _Line:
    """What stands for a bar in a file: a line as soon as it takes long."""

    def __init__(self, description: str | None) -> None:
        self.description, self.due = description, time.monotonic() + SECONDS

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Say once what takes so long."""
        if self.description is not None and time.monotonic() >= self.due:
            print(f"{self.description} ...", file=sys.stderr, flush=True)
            self.description = None
