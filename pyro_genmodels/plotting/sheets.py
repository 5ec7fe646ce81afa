"""Sheets of images: a margin between them, a title above, labels below."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pyro_genmodels.plotting.pixels import arranged, enlarged
from pyro_genmodels.plotting.saving import Label, save_pixels, text_width

# What does not fit into so many pixels is left out, and the title says so.
_MOST_PIXELS = 8_000_000
_WIDEST = 1024  # of channels side by side
_LINE, _HEADLINE = 11, 13  # heights of the fonts


def save_sheet(
    images: Tensor,
    num_levels: int | None,
    path: str | os.PathLike[str],
    *,
    columns: int | None = None,
    title: str | None = None,
    labels: Sequence[str] | None = None,
    margin: int = 2,
) -> None:
    """Save images side by side, each pixel as the data have it.

    Args:
        images: Images ``(n, C, H, W)``.
        num_levels: Discrete levels, ``None`` for continuous values.
        path: PNG file to replace.
        columns: Images a row; about a square by default.
        title: Text above.
        labels: A text for each image. Where all images of a column have the same, it stands once
            below the column, else below each image.
        margin: Grey pixels around each image.
    """
    images, notes = _at_most(images)
    tiles = F.pad(enlarged(images, num_levels), (margin,) * 4, value=0.5)
    tiles, left_out = tiles[: max(1, _MOST_PIXELS // tiles[0, 0].numel())], len(tiles)
    if len(tiles) < left_out:
        notes.append(f"the first {len(tiles)} of {left_out}")
    columns = min(len(tiles), columns or math.ceil(math.sqrt(len(tiles))))
    shown = [] if labels is None else list(labels[: len(tiles)])
    once = all(text == shown[i % columns] for i, text in enumerate(shown))
    if not once:
        tiles = F.pad(tiles, (0, 0, 0, _LINE + 5), value=1.0)
    grid = (255 * arranged(tiles, columns, 0.5 if once else 1.0)).round().byte().numpy()
    height, width = tiles.shape[-2:]
    texts, foot = _below_images(shown, columns, height, width), 0
    if once:
        texts, foot = _below_columns(shown[:columns], width, len(grid))
    _save(grid, texts, foot, ", ".join([*([title] if title else []), *notes]), path)


def _at_most(images: Tensor) -> tuple[Tensor, list[str]]:
    """Leave out channels that would make an image too wide, and say so."""
    channels, width = images.shape[1], images.shape[-1]
    most = max(1, _WIDEST // width)
    if channels <= 3 or channels <= most:
        return images, []
    # Not three: those would be taken for colours.
    most = 2 if most == 3 else most
    return images[:, :most], [f"the first {most} of {channels} channels"]


def _below_columns(texts: Sequence[str], width: int, top: int) -> tuple[list[Label], int]:
    """Return labels in a line under a grid, upright if they are too long, and their height."""
    sizes = [text_width(text, _LINE) for text in texts]
    upright = max(sizes, default=0) > width - 6
    labels = [
        Label(text, (i + 0.5) * width, top + 4, _LINE, upright=upright)
        for i, text in enumerate(texts)
    ]
    height = max(sizes) if upright else _LINE + 3
    return labels, height + 8 if texts else 0


def _below_images(texts: Sequence[str], columns: int, height: int, width: int) -> list[Label]:
    """Return labels for the white strips at the lower ends of tiles."""
    return [
        Label(
            _shortened(text, width),
            (i % columns + 0.5) * width,
            (i // columns + 1) * height - _LINE - 5,
            _LINE,
        )
        for i, text in enumerate(texts)
    ]


def _shortened(text: str, width: int) -> str:
    shown = text
    while shown and text_width(shown, _LINE) > width:
        text = text[:-1]
        shown = f"{text}…" if text else ""
    return shown


def _save(
    grid: NDArray[np.uint8],
    texts: Sequence[Label],
    foot: int,
    title: str,
    path: str | os.PathLike[str],
) -> None:
    """Save a grid with a white strip below, and one above and to the right if there is a title."""
    head, wide = 0, grid.shape[1]
    if title:
        head, wide = _HEADLINE + 13, max(wide, text_width(title, _HEADLINE) + 12)
        texts = [
            Label(title, 6, 6, _HEADLINE, centred=False),
            *(replace(text, y=text.y + head) for text in texts),
        ]
    pixels = np.full((head + grid.shape[0] + foot, wide, 3), 255, np.uint8)
    pixels[head : head + grid.shape[0], : grid.shape[1]] = grid
    save_pixels(pixels, texts, path)
