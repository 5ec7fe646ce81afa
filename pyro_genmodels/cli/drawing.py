"""Drawing from a run's model: samples, completions, reconstructions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_genmodels import plotting, training
from pyro_genmodels._checks import check
from pyro_genmodels._files import save_whole
from pyro_genmodels.cli.arrays import check_output, load_model, read_context, read_data

_CHUNK = 256  # data completed at once, which bounds memory


def write_samples(arguments: argparse.Namespace) -> int:
    """Draw from a model, or the rest of data that are given in part, and write."""
    _check_drawing(arguments, (".png", ".pt"))
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
    out = arguments.out or _default_output(arguments.run_folder, name)
    if out.suffix == ".pt":
        save_whole(samples.cpu(), out)
    else:
        plotting.save_samples(samples, model.num_levels, out)
    if model.prior_kind is not None:
        print(f"codes drawn from the {model.prior_kind} prior")
    print(out)
    return 0


def write_reconstructions(arguments: argparse.Namespace) -> int:
    """Draw test data next to their reconstructions, and write."""
    _check_drawing(arguments, (".png",))
    model = training.load(arguments.run_folder, allow=arguments.allow)
    test = training.load_source(arguments.run_folder, allow=arguments.allow).test
    items = [test[i] for i in range(min(arguments.num, len(test)))]  # type: ignore[arg-type]
    x = torch.stack([item[0] for item in items])
    context = None
    if model.context_event_dim is not None:
        context = torch.stack([torch.as_tensor(item[1]) for item in items])
    pyro.set_rng_seed(arguments.seed)
    out = arguments.out or _default_output(arguments.run_folder, "reconstructions.png")
    again = model.reconstruct(x, context, deterministic=arguments.deterministic)
    plotting.save_reconstructions(x, again, model.num_levels, out)
    print(out)
    return 0


def _check_completion(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` for options that contradict each other."""
    both = arguments.label is not None and arguments.labels is not None
    check(not both, "label", "be left out with --labels", arguments.label)
    if arguments.complete is None:
        check(arguments.rows is None, "rows", "come with --complete", arguments.rows)
    else:
        check(arguments.rows is not None, "rows", "be given with --complete", None)


def _options(model: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what else the model's drawing takes: a temperature, a bar where someone looks."""
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
    rule = "be left out, only an autoregressive model completes data"
    check(model.can_complete, "complete", rule, arguments.complete)
    given = read_data(arguments.complete, model, arguments, argument="complete")
    given = given.to(arguments.device)
    context = _context(model, arguments, min(len(given), arguments.num), arguments.complete)
    completed = []
    for places in (torch.arange(arguments.num) % len(given)).split(_CHUNK):
        part = None if context is None else context[places]
        completed.append(model.complete(given[places], arguments.rows, part, **options))
    return torch.cat(completed)


def _check_drawing(arguments: argparse.Namespace, suffixes: tuple[str, ...]) -> None:
    """Check number, seed and output before any work is done.

    Raises:
        ValueError: If one is impossible.
    """
    check(arguments.num >= 1, "num", "be at least 1", arguments.num)
    check(0 <= arguments.seed < 2**32, "seed", "be from 0 to 2**32 - 1", arguments.seed)
    if arguments.out is not None:
        check_output(arguments.out, suffixes, argument="out")


def _default_output(run_folder: str, name: str) -> Path:
    """Return where a picture goes: into the run's folder, or beside the checkpoint given."""
    path = Path(run_folder)
    return (path if path.is_dir() else path.parent) / name
