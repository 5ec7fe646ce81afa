"""``sample``: draw from a run's model, or draw the rest of data that are given in part."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyro_genmodels.cli.scoring import add_data, add_run, add_steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run(parser)
    add_data(parser)
    parser.add_argument("--num", type=int, default=64, help="number of samples (default: 64)")
    parser.add_argument(
        "--label",
        metavar="CLASS",
        help="class to draw, by its name or number, if there are some; of a mixture the component",
    )
    parser.add_argument(
        "--labels",
        metavar="DATA",
        help="labels (or vectors, maps) of a conditional model, one a sample: a .npy or .pt file, "
        "or train, validation or test: those of that part of the run's data",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        help="of an autoregressive model, an NVAE or a VQ-VAE's learned prior: below 1 for "
        "likelier samples",
    )
    add_steps(parser)
    parser.add_argument(
        "--complete",
        metavar="DATA",
        help="keep the first rows of these data and draw the rest, if the model is autoregressive: "
        "a .npy or .pt array, a folder of .png pictures, or train, validation or test; for a model "
        "of text also a text to go on with",
    )
    parser.add_argument(
        "--rows",
        type=int,
        help="with --complete: rows that are kept (elements of a vector); default: all symbols of "
        "a text, and what is there of data with missing elements",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument(
        "--out",
        type=Path,
        help="picture (.png), table (.csv), array (.npy), tensor (.pt), the data's own form (as "
        ".txt or .wav), or a new folder of pictures; default: samples.png, or completions.png "
        "(.txt of a text), in RUN",
    )


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Draw and write."""
    from pyro_genmodels.cli.drawing import write_samples

    return write_samples(arguments)
