"""``sample``: draw from a run's model."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyro_genmodels.cli._evaluate import add_allow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder, or a checkpoint")
    parser.add_argument("--num", type=int, default=64, help="number of samples (default: 64)")
    parser.add_argument("--label", type=int, help="class to draw, if the model has classes")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument(
        "--out", type=Path, help="picture (.png) or tensor (.pt); default: samples.png in RUN"
    )
    add_allow(parser)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Draw and write."""
    import pyro
    import torch

    from pyro_genmodels import plotting, training
    from pyro_genmodels._checks import check
    from pyro_genmodels._files import written_whole

    check(arguments.num >= 1, "num", "be at least 1", arguments.num)
    model = training.load(arguments.run_folder, allow=arguments.allow).to(arguments.device)
    context = None
    if arguments.label is not None:
        check(
            model.num_classes is not None, "label", "be left out: the model has no classes", "one"
        )
        context = torch.full((arguments.num,), arguments.label, device=arguments.device)
    pyro.set_rng_seed(arguments.seed)
    samples = training.draw_samples(model, arguments.num, context)
    out = arguments.out or default_output(arguments.run_folder, "samples.png")
    if out.suffix == ".pt":
        with written_whole(out) as temporary:
            torch.save(samples.cpu(), temporary)
    else:
        plotting.save_samples(samples, model.num_levels, out)
    print(out)
    return 0


def default_output(run_folder: str, name: str) -> Path:
    """Return where a picture goes: into the run's folder, or beside the checkpoint given."""
    path = Path(run_folder)
    return (path if path.is_dir() else path.parent) / name
