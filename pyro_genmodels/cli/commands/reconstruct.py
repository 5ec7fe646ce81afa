"""``reconstruct``: test data beside what the model makes of their codes."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyro_genmodels.cli.commands.sample import check_drawing, default_output
from pyro_genmodels.cli.scoring import add_allow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder, or a checkpoint")
    parser.add_argument("--num", type=int, default=32, help="number of examples (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    parser.add_argument(
        "--out", type=Path, help="picture (.png); default: reconstructions.png in RUN"
    )
    add_allow(parser)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Reconstruct and write."""
    import pyro
    import torch

    from pyro_genmodels import plotting, training

    check_drawing(arguments, (".png",))
    model = training.load(arguments.run_folder, allow=arguments.allow)
    test = training.load_source(arguments.run_folder, allow=arguments.allow).test
    items = [test[i] for i in range(min(arguments.num, len(test)))]  # type: ignore[arg-type]
    x = torch.stack([item[0] for item in items])
    context = None
    if model.context_event_dim is not None:
        context = torch.stack([torch.as_tensor(item[1]) for item in items])
    pyro.set_rng_seed(arguments.seed)
    out = arguments.out or default_output(arguments.run_folder, "reconstructions.png")
    plotting.save_reconstructions(x, model.reconstruct(x, context), model.num_levels, out)
    print(out)
    return 0
