"""``evaluate``: score a run's best weights."""

from __future__ import annotations

import argparse

from pyro_genmodels.cli.scoring import add_data, add_run
from pyro_genmodels.cli.usage import usage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run(parser)
    add_data(parser)
    parser.add_argument(
        "--split", choices=("train", "validation", "test"), default="test", help="part of the data"
    )
    parser.add_argument(
        "--particles",
        type=int,
        default=None,
        help="posterior draws per example (default: mostly 100)",
    )
    parser.add_argument(
        "--num_steps",
        type=int,
        default=None,
        help="of a diffusion model: steps of its chain (default: the model's own, which it was "
        "trained for; the score says which)",
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Score and print."""
    from pyro_genmodels import training
    from pyro_genmodels.cli.scoring import torch_device
    from pyro_genmodels.cli.sources import run_source

    device = torch_device(arguments.device)
    model = training.load(arguments.run_folder, allow=arguments.allow).to(device)
    source = run_source(arguments, model)
    with usage("num_particles", "num_steps"):
        sizes = {"num_particles": arguments.particles, "num_steps": arguments.num_steps}
        print(training.evaluate(model, source, split=arguments.split, **sizes))
    return 0
