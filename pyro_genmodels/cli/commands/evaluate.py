"""``evaluate``: score a run's best weights."""

from __future__ import annotations

import argparse

from pyro_genmodels.cli.scoring import add_run, score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run(parser)
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), default="test", help="part of the data"
    )
    parser.add_argument(
        "--particles",
        type=int,
        default=None,
        help="posterior draws per example (default: mostly 100)",
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Score and print."""
    options = {"split": arguments.split, "num_particles": arguments.particles}
    result = score(arguments.run_folder, arguments.device, arguments.allow, **options)
    print(result)
    return 0
