"""``reconstruct``: test data beside what the model makes of their codes."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyro_genmodels.cli.scoring import add_data, add_run, add_steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run(parser)
    add_data(parser)
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), default="test", help="part of the data"
    )
    parser.add_argument("--num", type=int, default=32, help="number of examples (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    text = (
        "take posterior means in the place of a draw; of a diffusion model, the rule of steps "
        "without noise on both ways"
    )
    parser.add_argument("--deterministic", action="store_true", help=text)
    parser.add_argument(
        "--noise_level",
        type=float,
        help="share of a diffusion model's steps that data are noised by, and led back: from 0, "
        "the least noise of its schedule, to 1, which keeps nothing (default: 0.5)",
    )
    add_steps(parser)
    parser.add_argument(
        "--out", type=Path, help="picture (.png); default: reconstructions.png in RUN"
    )


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Reconstruct and write."""
    from pyro_genmodels.cli.drawing import write_reconstructions

    return write_reconstructions(arguments)
