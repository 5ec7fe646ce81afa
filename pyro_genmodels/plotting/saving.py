"""Figures and arrays of pixels to PNG files."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_genmodels._checks import require
from pyro_genmodels._files import written_whole

_DPI = 100
_POINTS = 72 / _DPI  # a pixel's height in the unit of font sizes


@contextlib.contextmanager
def saved_figure(
    path: str | os.PathLike[str], title: str | None = None, size: tuple[float, float] = (5.5, 4)
) -> Iterator[Any]:
    """Give a figure to draw on, and save it."""
    # Figure itself, not pyplot: no display, no global state, no figure left open.
    module = require("matplotlib.figure", extra="train")
    figure = module.Figure(figsize=size, layout="constrained")
    yield figure
    if title is not None:
        figure.suptitle(title, fontsize=11, parse_math=False)
    with written_whole(path) as temporary, _any_glyph():
        figure.savefig(temporary, dpi=120)


@dataclass(frozen=True)
class Label:
    """A text of one line on a picture, in pixels from its upper left corner.

    Attributes:
        text: The text, taken literally.
        x: Where its middle is; its left end if it is not ``centred``.
        y: Where it begins, seen from above.
        size: Height of the font.
        centred: Whether ``x`` is its middle.
        upright: Whether it runs from below to above.
    """

    text: str
    x: float
    y: float
    size: int = 11
    centred: bool = True
    upright: bool = False


@functools.lru_cache(4096)
def text_width(text: str, size: int) -> int:
    """Return how many pixels a line of text takes."""
    figure = require("matplotlib.figure", extra="train").Figure(dpi=_DPI)
    backend = require("matplotlib.backends.backend_agg", extra="train")
    drawn = figure.text(0, 0, text, fontsize=size * _POINTS, parse_math=False)
    with _any_glyph():
        return round(drawn.get_window_extent(backend.FigureCanvasAgg(figure).get_renderer()).width)


def save_pixels(
    pixels: NDArray[np.uint8], labels: Sequence[Label], path: str | os.PathLike[str]
) -> None:
    """Save pixels ``(height, width, 3)`` of type ``uint8`` as they are, texts on what is white."""
    if labels:
        pixels = np.minimum(pixels, _text_pixels(pixels.shape[0], pixels.shape[1], labels))
    image = require("matplotlib.image", extra="train")
    with written_whole(path) as temporary:
        image.imsave(temporary, pixels)


def _text_pixels(height: int, width: int, labels: Sequence[Label]) -> NDArray[np.uint8]:
    """Return black texts on white."""
    figure_module = require("matplotlib.figure", extra="train")
    backend = require("matplotlib.backends.backend_agg", extra="train")
    # The canvas takes the integer part: half a pixel keeps rounding from losing one.
    size = ((width + 0.5) / _DPI, (height + 0.5) / _DPI)
    figure = figure_module.Figure(figsize=size, dpi=_DPI, facecolor="white")
    canvas = backend.FigureCanvasAgg(figure)
    for label in labels:
        figure.text(
            label.x / width,
            1 - label.y / height,
            label.text,
            fontsize=label.size * _POINTS,
            rotation=90 if label.upright else 0,
            ha="center" if label.centred else "left",
            va="top",
            parse_math=False,
        )
    with _any_glyph():
        canvas.draw()
    return np.array(canvas.buffer_rgba())[:height, :width, :3]


@contextlib.contextmanager
def _any_glyph() -> Iterator[None]:
    """Draw a box for a character that the font lacks, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield
