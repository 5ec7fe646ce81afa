"""``decompress``: data back from the file that ``compress`` wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyro_genmodels.cli.scoring import add_data, add_model_arguments, add_run
from pyro_genmodels.cli.usage import usage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run(parser)
    add_data(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="what `compress` wrote")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="array (.npy), tensor (.pt), or a new folder of .png pictures",
    )
    add_model_arguments(parser)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Decompress and write."""
    from pyro_genmodels import compression
    from pyro_genmodels.cli import arrays

    arrays.check_output(arguments.output, (".npy", ".pt"), folders=True)
    data, model = arguments.file.read_bytes(), arrays.load_model(arguments)
    if not arguments.output.suffix:
        with usage():
            arrays.bits_of(model.num_levels)
    batch_shape = compression.headers(data)[0].batch_shape
    # A part of the data was compressed up to `--num`.
    number = batch_shape[0] if len(batch_shape) == 1 else None
    context = arrays.read_context(model, arguments, number)
    x = compression.decompress_images(model, data, context)
    if model.num_levels is not None:
        x = x.round().clamp(0, model.num_levels - 1).long()
    arrays.write_data(x, model.num_levels, arguments.output)
    print(f"{len(x)} examples of shape {tuple(x.shape[1:])}")
    print(arguments.output)
    return 0
