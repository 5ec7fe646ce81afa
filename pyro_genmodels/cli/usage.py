"""Mistakes in the command line itself, which end with another status than failures at work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """The command line is wrong: it has an unknown name or option, or an impossible value."""


@contextmanager
def usage(*arguments: str) -> Iterator[None]:
    """Make a plain ``ValueError`` a :class:`UsageError`; special ones, as of files, stay.

    Args:
        *arguments: Only an error about one of these counts; any by default.
    """
    try:
        yield
    except ValueError as error:
        named = re.match(r"`(\w+)` must", str(error))
        counts = not arguments or (named is not None and named[1] in arguments)
        if type(error) is not ValueError or not counts:
            raise
        raise UsageError(str(error)) from error


def split_data_options(words: list[str]) -> tuple[list[str], list[str]]:
    """Split off the options ``--data.X VALUE``, which only the data themselves know."""
    others, found = list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        (found if word.startswith("--data.") else others).append(word)
        if word.startswith("--data.") and "=" not in word:
            found += [value for value in [next(rest, None)] if value is not None]
    return others, found
