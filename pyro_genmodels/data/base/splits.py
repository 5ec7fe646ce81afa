"""Fixed random splits that are the same with every version of Python, NumPy and PyTorch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from pyro_genmodels._checks import check


def permutation(size: int, seed: int) -> list[int]:
    """Return a random order of ``range(size)`` that depends on ``seed`` alone.

    Sorting by ``random.random()`` keys: Python promises that this stream never changes, which
    neither NumPy's nor PyTorch's permutations do.

    Example:
        >>> permutation(5, seed=0)
        [3, 2, 4, 1, 0]
    """
    stream = random.Random(seed)
    keys = [stream.random() for _ in range(size)]
    return sorted(range(size), key=keys.__getitem__)


def split(size: int, held_out: Sequence[int], seed: int) -> list[list[int]]:
    """Split ``range(size)`` at random: the rest first, then one part for each held-out count.

    Raises:
        ValueError: If nothing would be left for the first part.

    Example:
        >>> [len(part) for part in split(10, (2, 3), seed=0)]
        [5, 2, 3]
    """
    order, stop = permutation(size, seed), size - sum(held_out)
    rule = f"number more than the {sum(held_out)} held out for validation and test"
    check(stop > 0, "examples", rule, size)
    parts = [order[:stop]]
    for count in held_out:
        parts.append(order[stop : stop + count])
        stop += count
    return parts


def fraction_of(size: int, fraction: float, argument: str) -> int:
    """Return how many examples a fraction is: at least one.

    Raises:
        ValueError: If the fraction is not strictly between 0 and 1.
    """
    check(0 < fraction < 1, argument, "lie strictly between 0 and 1", fraction)
    return max(1, round(size * fraction))


def blocks(size: int, held_out: Sequence[int]) -> list[slice]:
    """Split ``range(size)`` into contiguous parts, the held-out ones behind the rest.

    For one continuous piece, such as a recording, whose neighbouring parts are alike.

    Raises:
        ValueError: If nothing would be left for the first part.

    Example:
        >>> blocks(10, (2, 3))
        [slice(0, 5, None), slice(5, 7, None), slice(7, 10, None)]
    """
    stop = size - sum(held_out)
    rule = f"number more than the {sum(held_out)} held out for validation and test"
    check(stop > 0, "examples", rule, size)
    ends = [0, stop, *(stop + n for n in itertools.accumulate(held_out))]
    return [slice(first, last) for first, last in itertools.pairwise(ends)]
