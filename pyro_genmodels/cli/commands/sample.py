"""``sample``: draw from a run's model, or draw the rest of data that are given in part."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_genmodels.cli.arrays import load_model, read_context, read_data
from pyro_genmodels.cli.scoring import add_allow

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 256  # data completed at once, which bounds memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder, or a checkpoint")
    parser.add_argument("--num", type=int, default=64, help="number of samples (default: 64)")
    parser.add_argument("--label", type=int, help="class to draw, if the model has classes")
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
    parser.add_argument(
        "--complete",
        metavar="DATA",
        help="keep the first rows of these data and draw the rest, if the model is autoregressive: "
        "a .npy or .pt array, a folder of .png pictures, or train, validation or test",
    )
    parser.add_argument(
        "--rows", type=int, help="with --complete: rows that are kept (elements of a vector)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument(
        "--out",
        type=Path,
        help="picture (.png) or tensor (.pt); default: samples.png, or completions.png, in RUN",
    )
    add_allow(parser)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Draw and write."""
    import pyro

    from pyro_genmodels import plotting, training
    from pyro_genmodels._files import save_whole

    check_drawing(arguments, (".png", ".pt"))
    _check_completion(arguments)
    model = load_model(arguments)
    options = _options(model, arguments)
    pyro.set_rng_seed(arguments.seed)
    if arguments.complete is None:
        context = _context(model, arguments)
        samples = training.draw_samples(model, arguments.num, context, **options)
    else:
        samples = _completed(model, arguments, options)
    name = "samples.png" if arguments.complete is None else "completions.png"
    out = arguments.out or default_output(arguments.run_folder, name)
    if out.suffix == ".pt":
        save_whole(samples.cpu(), out)
    else:
        plotting.save_samples(samples, model.num_levels, out)
    if model.prior_kind is not None:
        print(f"codes drawn from the {model.prior_kind} prior")
    print(out)
    return 0


def _check_completion(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` for options that contradict each other."""
    from pyro_genmodels._checks import check

    both = arguments.label is not None and arguments.labels is not None
    check(not both, "label", "be left out with --labels", arguments.label)
    if arguments.complete is None:
        check(arguments.rows is None, "rows", "come with --complete", arguments.rows)
    else:
        check(arguments.rows is not None, "rows", "be given with --complete", None)


def _options(model: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what else the model's drawing takes: a temperature, a bar where someone looks."""
    from pyro_genmodels._checks import check

    known = model.sampling_options
    options: dict[str, Any] = {}
    if arguments.temperature is not None:
        rule = f"be left out, {type(model).__name__} has none"
        check("temperature" in known, "temperature", rule, arguments.temperature)
        options["temperature"] = arguments.temperature
    if "progress" in known:
        options["progress"] = sys.stderr.isatty()
    return options


def _context(
    model: Any, arguments: argparse.Namespace, number: int | None = None, part: str = ""
) -> Tensor | None:
    """Return a context a draw; ``None`` leaves it to the model's classes in turn."""
    import torch

    from pyro_genmodels._checks import check

    number = arguments.num if number is None else number
    if arguments.label is not None:
        rule = "be left out, the model has no classes"
        check(model.num_classes is not None, "label", rule, arguments.label)
        return torch.full((number,), arguments.label, device=arguments.device)
    if arguments.labels is None and not part:
        return None
    return read_context(model, arguments, number, part)


def _completed(model: Any, arguments: argparse.Namespace, options: dict[str, Any]) -> Tensor:
    """Return data that begin as given ones do, which are taken in turn if they are too few."""
    import torch

    from pyro_genmodels._checks import check

    rule = "be left out, only an autoregressive model completes data"
    check(model.can_complete, "complete", rule, arguments.complete)
    given = read_data(arguments.complete, model, arguments, argument="complete").to(
        arguments.device
    )
    context = _context(model, arguments, min(len(given), arguments.num), arguments.complete)
    completed = []
    for places in (torch.arange(arguments.num) % len(given)).split(_CHUNK):
        part = None if context is None else context[places]
        completed.append(model.complete(given[places], arguments.rows, part, **options))
    return torch.cat(completed)


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
