"""``sample``: draw from a run's model."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyro_genmodels.cli._evaluate import add_allow, torch_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder, or a checkpoint")
    parser.add_argument("--num", type=int, default=64, help="number of samples (default: 64)")
    parser.add_argument("--label", type=int, help="class to draw, if the model has classes")
    parser.add_argument(
        "--temperature", type=float, help="of a VQ-VAE's learned prior: below 1 for likelier codes"
    )
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
    from pyro_genmodels._files import save_whole
    from pyro_genmodels.models import VectorQuantizedModel

    check_drawing(arguments, (".png", ".pt"))
    device = torch_device(arguments.device)
    model = training.load(arguments.run_folder, allow=arguments.allow).to(device)
    context = None
    if arguments.label is not None:
        rule = "be left out, the model has no classes"
        check(model.num_classes is not None, "label", rule, arguments.label)
        context = torch.full((arguments.num,), arguments.label, device=device)
    quantized = isinstance(model, VectorQuantizedModel)
    options = {}
    if arguments.temperature is not None:
        rule = "be left out, the model has no prior over codes"
        check(quantized, "temperature", rule, arguments.temperature)
        options["temperature"] = arguments.temperature
    pyro.set_rng_seed(arguments.seed)
    samples = training.draw_samples(model, arguments.num, context, **options)
    out = arguments.out or default_output(arguments.run_folder, "samples.png")
    if out.suffix == ".pt":
        save_whole(samples.cpu(), out)
    else:
        plotting.save_samples(samples, model.num_levels, out)
    if quantized:
        print(f"codes drawn from the {model.prior_kind} prior")
    print(out)
    return 0


def check_drawing(arguments: argparse.Namespace, suffixes: tuple[str, ...]) -> None:
    """Check number, seed and output before any work is done.

    Raises:
        ValueError: If one is impossible.
    """
    from pyro_genmodels._checks import check

    check(arguments.num >= 1, "num", "be at least 1", arguments.num)
    check(0 <= arguments.seed < 2**32, "seed", "be from 0 to 2**32 - 1", arguments.seed)
    if arguments.out is not None:
        rule = f"be a file that ends in {' or '.join(suffixes)}"
        fits = arguments.out.suffix in suffixes and not arguments.out.is_dir()
        check(fits, "out", rule, f"'{arguments.out}'")
        folder = arguments.out.parent
        check(folder.is_dir(), "out", "lie in a folder that is there", f"'{arguments.out}'")


def default_output(run_folder: str, name: str) -> Path:
    """Return where a picture goes: into the run's folder, or beside the checkpoint given."""
    path = Path(run_folder)
    return (path if path.is_dir() else path.parent) / name
