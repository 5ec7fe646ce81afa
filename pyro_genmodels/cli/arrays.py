"""Data from files and into files: arrays, tensors, folders of pictures, parts of a run's data."""

from __future__ import annotations

import argparse
import csv
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_genmodels import data, training
from pyro_genmodels._checks import check, require
from pyro_genmodels._files import save_whole, written_whole
from pyro_genmodels.cli.scoring import torch_device
from pyro_genmodels.cli.sources import run_source
from pyro_genmodels.cli.usage import usage
from pyro_genmodels.data.base import as_event, with_bits
from pyro_genmodels.nets.layers import check_finite_context

_SPLITS = ("train", "validation", "test")
_FILES = (".npy", ".pt")


def load_model(arguments: argparse.Namespace) -> Any:
    """Return the run's model on the device asked for."""
    model = training.load(arguments.run_folder, allow=arguments.allow)
    return model.to(torch_device(arguments.device)).eval()


def read_data(
    name: str, model: Any, arguments: argparse.Namespace, *, argument: str = "input"
) -> Tensor:
    """Return what a file, a folder of pictures or a part of the run's data holds.

    Raises:
        ValueError: If there is none of that name, or it cannot be read.
    """
    path = Path(name)
    if name in _SPLITS:
        return _split(name, 0, model, arguments)
    if path.is_dir():
        return _pictures(path, model.num_levels)
    x, event = _array(path, argument), tuple(model.event_shape)
    fits = tuple(x.shape[1:]) == event and len(x) > 0
    check(fits, argument, f"hold examples of shape {event}, one or more", f"shape {tuple(x.shape)}")
    return x


def read_context(
    model: Any, arguments: argparse.Namespace, number: int | None = None, part: str = ""
) -> Tensor | None:
    """Return the model's context from ``--labels``, or of the part of the data that is compressed.

    Args:
        model: The model.
        arguments: The command's.
        number: Examples there are; ``None`` if they have no leading dimension, or another number.
        part: Name of the part of the data, if it is one.

    Raises:
        UsageError: If a conditional model is given none, or another model one.
        ValueError: If there are too few, or features that are not finite.
    """
    name = arguments.labels or (part if part in _SPLITS else None)
    with usage():
        if model.context_event_dim is None:
            rule = "be left out, the model takes none"
            check(arguments.labels is None, "labels", rule, arguments.labels)
            return None
        check(name is not None, "labels", "be given, the model is conditional", "none")
    assert name is not None  # narrows the type for the checker
    part_of_data = name in _SPLITS
    if part_of_data:
        dataset: Any = opened_source(arguments, model).splits[name]
        contexts = [model.context_of(dataset[i]) for i in range(len(dataset))]
        context = torch.stack([each for each in contexts if each is not None])
    else:
        context = _array(Path(name), "labels")
    if number is not None:
        found = tuple(context.shape)
        many = context.dim() > model.context_event_dim and len(context) >= number
        check(many, "labels", f"be {number} or more, one for each example", f"shape {found}")
        context = context[:number]
    check_finite_context(context)
    return context.to(arguments.device)


def check_output(
    path: Path, suffixes: tuple[str, ...] = (), *, argument: str = "output", folders: bool = False
) -> None:
    """Raise ``UsageError`` unless a file of that name can be written.

    Args:
        path: The file.
        suffixes: Those that its name may have; any by default.
        argument: What the error calls it.
        folders: Whether a name without a suffix is that of a new folder.
    """
    rule = f"be a file that ends in {' or '.join(suffixes)}" if suffixes else "be a file"
    fits = not path.is_dir() and (not suffixes or path.suffix in suffixes)
    with usage():
        there = path.parent.is_dir()
        check(there, argument, "lie in a folder that is there", f"'{path}'")
        if folders and not path.suffix:
            check(not path.exists(), argument, "be a new folder", f"'{path}'")
        else:
            check(fits, argument, f"{rule}, or a new folder" if folders else rule, f"'{path}'")


def write_data(
    x: Tensor,
    num_levels: int | None,
    path: Path,
    columns: Sequence[data.Column] | None = None,
) -> None:
    """Write a table, an array, a tensor, or without a suffix a folder of pictures, whole or not.

    Args:
        x: The data.
        num_levels: Their levels; ``None`` if they are continuous.
        path: Where to.
        columns: Names and kinds of a table's columns, if they are known.
    """
    if path.suffix == ".csv":
        _write_table(x.cpu().flatten(1), num_levels is not None, columns, path)
    elif path.suffix == ".pt":
        save_whole(x.cpu(), path)
    elif path.suffix == ".npy":
        array = x.cpu().numpy()
        if num_levels is not None:
            array = array.astype(np.min_scalar_type(num_levels - 1))
        with written_whole(path) as temporary:
            np.save(temporary, array)
    else:
        _write_pictures(x, bits_of(num_levels), path)


def _write_table(
    rows: Tensor, whole: bool, columns: Sequence[data.Column] | None, path: Path
) -> None:
    named = columns or [data.Column(f"x{index}") for index in range(rows.shape[1])]
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in named])
        for row in rows.tolist():
            writer.writerow([_cell(v, c, whole) for v, c in zip(row, named, strict=True)])


def _cell(value: float, column: data.Column, whole: bool) -> str:
    if math.isnan(value):
        return ""
    if column.kind == "categorical":
        return column.categories[round(value)]
    return f"{round(value)}" if whole or column.kind == "count" else f"{value:.9g}"


def names_array(name: str) -> bool:
    """Whether a name is that of a part of the run's data, or of a file with an array."""
    return name in _SPLITS or Path(name).suffix in _FILES


def opened_source(arguments: argparse.Namespace, model: Any) -> data.DataSource:
    """Return what :func:`run_source` does, opened once in a command."""
    if "source" not in arguments:
        arguments.source = run_source(arguments, model)
    source: data.DataSource = arguments.source
    return source


def _split(name: str, column: int, model: Any, arguments: argparse.Namespace) -> Tensor:
    dataset: Any = opened_source(arguments, model).splits[name]
    return torch.stack([torch.as_tensor(dataset[i][column]) for i in range(len(dataset))])


def _array(path: Path, argument: str = "input") -> Tensor:

    rule = f"be a file that ends in {' or '.join(_FILES)}"
    with usage():
        check(path.suffix in _FILES, argument, rule, f"'{path}'")
    try:
        if path.suffix == ".npy":
            found = _as_tensor(np.load(path, allow_pickle=False))
        else:
            found = torch.load(path, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except Exception as error:
        rule = f"`{argument}` must be an array that can be read"
        raise ValueError(f"{rule}; got '{path}'.") from error
    check(isinstance(found, torch.Tensor), argument, "hold one tensor", type(found).__name__)
    tensor: Tensor = found
    check(not tensor.is_complex(), argument, "hold real numbers", tensor.dtype)
    return tensor


def _as_tensor(array: Any) -> Tensor:
    """Return a tensor of a type that torch computes with: it does with few unsigned ones."""
    plain = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(plain.astype("int64") if plain.dtype.kind in "bu" else plain)


def bits_of(num_levels: int | None) -> int:
    """Return the bits that levels fill.

    Raises:
        ValueError: If they are not those of pictures.
    """
    fits = num_levels is not None and num_levels in [2**bits for bits in range(1, 9)]
    rule = "be a .npy or .pt file, unless data have 2, 4, 8 ... or 256 levels"
    check(fits, "input or output", rule, f"a folder of pictures for {num_levels} levels")
    assert num_levels is not None  # narrows the type for the checker
    return num_levels.bit_length() - 1


def _pictures(folder: Path, num_levels: int | None) -> Tensor:

    bits, pillow = bits_of(num_levels), require("PIL.Image", extra="train")
    images = []
    for path in sorted(folder.glob("*.png")):
        with pillow.open(path) as image:
            images.append(with_bits(as_event(image), bits))
    check(bool(images), "input", "hold pictures (*.png)", f"'{folder}'")
    shapes = {tuple(image.shape) for image in images}
    check(len(shapes) == 1, "input", "hold pictures of one size and mode", sorted(shapes))
    return torch.stack(images)


def _write_pictures(x: Tensor, bits: int, folder: Path) -> None:

    pillow = require("PIL.Image", extra="train")
    fits = x.dim() == 4 and x.shape[1] in (1, 3)
    check(fits, "output", "be a .npy or .pt file for data that are no pictures", tuple(x.shape))
    pixels = (x.cpu() << (8 - bits)).byte().movedim(1, -1).squeeze(-1).numpy()
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for number, image in enumerate(pixels):
            pillow.fromarray(image).save(temporary / f"{number:06d}.png")
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
