"""The order in which a recurrence crosses an image: row by row, or diagonal by diagonal.

Pixels are *packed*: in the order of the steps, those of one step together. So a step is one piece
of memory without padding, and a diagonal costs as much as it has pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Pixel = tuple[int, int]


@dataclass(frozen=True)
class Tap:
    """A range of packed pixels that read the states of another, pixel by pixel.

    Attributes:
        index: Which of a pixel's neighbours is read.
        source: The pixels that are read, of the step before.
        target: The pixels that read.
    """

    index: int
    source: slice
    target: slice


@dataclass(frozen=True)
class Step:
    """Packed pixels whose states are made at once, and what they read."""

    pixels: slice
    taps: tuple[Tap, ...]


@dataclass(frozen=True)
class Wavefront:
    """The steps of a recurrence over an image.

    Attributes:
        steps: The steps, which cover the packed pixels one after another.
        num_taps: Number of neighbours that a pixel reads.
        memory: Which of them hands its memory cell on.
        pixels: Row and column of each packed pixel.
    """

    steps: tuple[Step, ...]
    num_taps: int
    memory: int
    pixels: tuple[Pixel, ...]


def row_wavefront(height: int, width: int, kernel_size: int = 3) -> Wavefront:
    """Rows from the top: a pixel reads those of the row above that a kernel reaches.

    Example:
        >>> row_wavefront(2, 3).steps[1].taps[0]
        Tap(index=0, source=slice(0, 2, None), target=slice(4, 6, None))
    """
    rows = [[(i, j) for j in range(width)] for i in range(height)]
    half = kernel_size // 2
    return _wavefront(rows, [(-1, side - half) for side in range(kernel_size)], memory=half)


def diagonal_wavefront(height: int, width: int) -> Wavefront:
    """Diagonals from the top left: a pixel reads the one to its left and the one above it.

    Example:
        >>> diagonal_wavefront(2, 2).pixels
        ((0, 0), (0, 1), (1, 0), (1, 1))
    """
    diagonals = [
        [(i, d - i) for i in range(max(0, d - width + 1), min(height, d + 1))]
        for d in range(height + width - 1)
    ]
    return _wavefront(diagonals, [(0, -1), (-1, 0)], memory=0)


def _wavefront(
    fronts: Sequence[Sequence[Pixel]], offsets: Sequence[tuple[int, int]], *, memory: int
) -> Wavefront:
    packed = tuple(pixel for front in fronts for pixel in front)
    place = {pixel: index for index, pixel in enumerate(packed)}
    steps = tuple(
        Step(slice(place[front[0]], place[front[-1]] + 1), tuple(_taps(front, offsets, place)))
        for front in fronts
    )
    return Wavefront(steps, len(offsets), memory, packed)


def _taps(
    front: Sequence[Pixel], offsets: Sequence[tuple[int, int]], place: dict[Pixel, int]
) -> Iterator[Tap]:
    for index, (down, right) in enumerate(offsets):
        reads = [(place.get((i + down, j + right)), place[i, j]) for i, j in front]
        pairs = [(source, target) for source, target in reads if source is not None]
        if pairs:
            (first, target), (last, end) = pairs[0], pairs[-1]
            yield Tap(index, slice(first, last + 1), slice(target, end + 1))
