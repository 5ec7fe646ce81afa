"""What stands between the fields of a table in a text file."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SEPARATORS = (";", "\t", "|", ",")


def separator_of(lines: Sequence[str], usual: str = ",") -> str:
    """Return what stands between the fields of a table's first lines.

    Args:
        lines: The lines.
        usual: What it is where they do not say.
    """
    bare = [re.sub(r'"[^"]*"', "", line) for line in lines if line.strip()]
    if all(";" in line for line in bare):  # then commas between digits are decimal
        bare = [re.sub(r"(?<=\d),(?=\d)", ".", line) for line in bare]
    # A quoted field may have lines of its own, which have no separator: then the first one says.
    counts = {
        separator: (min(line.count(separator) for line in bare), bare[0].count(separator))
        for separator in dict.fromkeys((usual, *_SEPARATORS))
        if bare
    }
    return max(counts, key=counts.__getitem__, default=usual)
