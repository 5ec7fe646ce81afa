"""Drawing from a run's model: samples, completions, reconstructions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_genmodels import plotting, training
from pyro_genmodels._checks import check, listed
from pyro_genmodels.cli.arrays import (
    bits_of,
    check_output,
    load_model,
    names_array,
    opened_source,
    read_context,
    read_data,
    write_data,
)
from pyro_genmodels.cli.sources import run_source
from pyro_genmodels.cli.usage import usage
from pyro_genmodels.data import DataSource
from pyro_genmodels.training.checkpoint import RunData

_WRITTEN = (".csv", ".npy", ".pt", ".png")
_STEPS = ("sampler", "num_steps", "guidance")
_CHUNK = 256  # data completed at once, which bounds memory


def write_samples(arguments: argparse.Namespace) -> int:
    """Draw from a model, or the rest of data that are given in part, and write."""
    with usage():
        _check_drawing(arguments)
        _check_completion(arguments)
    out = arguments.out
    if out is not None and (not out.suffix or out.suffix in _WRITTEN):
        check_output(out, _WRITTEN, argument="out", folders=True)
    model, known = load_model(arguments), training.run_data(arguments.run_folder)
    prompt = _prompt(arguments, model)
    if out is None:
        name = "samples.png" if arguments.complete is None else "completions.png"
        name = name if prompt is None else "completions.txt"
        arguments.out = out = _default_output(arguments.run_folder, name)
    own_form = _own_form(arguments, model, known)
    with usage():
        options = _options(model, arguments)
        label = _label(model, arguments, known.classes)
    pyro.set_rng_seed(arguments.seed)
    labels = None
    with usage("temperature", *_STEPS, "num_rows"):
        if arguments.complete is None:
            context = _context(model, arguments, label)
            samples = training.draw_samples(model, arguments.num, context, **options)
            if model.num_classes is not None:
                in_turn = torch.arange(len(samples)) % model.num_classes
                labels = in_turn if context is None else model.context_parts(context)[0]
            elif label is not None:  # a component
                labels = context
        else:
            samples = _completed(model, arguments, label, options, prompt)
    if own_form is not None:
        own_form.write(samples, out)
    elif out.suffix == ".png":
        source = _source(arguments, model)
        title = _title(model, source, arguments, options)
        training.draw_picture(samples, model, source, out, title=title, labels=labels)
    else:
        write_data(_plain(samples, model, out), model.num_levels, out, known.columns)
    if label is not None and known.classes and model.num_classes is not None:
        print(f"label {known.classes[label]}")
    elif known.classes and labels is not None and arguments.labels is None:
        print(f"labels in turn: {listed(known.classes, most=10)}")
    differences = model.sampling_differences(**options)
    if differences:
        print(f"not drawn from the model that is scored: {', '.join(differences)}")
    if model.prior_kind is not None:
        print(f"codes drawn from the {model.prior_kind} prior")
    print(out)
    return 0


def write_reconstructions(arguments: argparse.Namespace) -> int:
    """Draw data next to their reconstructions, and write."""
    with usage():
        _check_drawing(arguments)
        if arguments.out is not None:
            check_output(arguments.out, (".png",), argument="out")
    model = training.load(arguments.run_folder, allow=arguments.allow)
    with usage():
        names = ("noise_level", *_STEPS)
        options = _given(model, arguments, names, model.reconstruction_options)
    source = run_source(arguments, model)
    given: Any = source.splits[arguments.split]
    items = [given[i] for i in range(min(arguments.num, len(given)))]
    x = torch.stack([item[0] for item in items])
    context = None
    if model.context_event_dim is not None:
        found = [model.context_of(item) for item in items]
        context = torch.stack([each for each in found if each is not None])
    pyro.set_rng_seed(arguments.seed)
    out = arguments.out or _default_output(arguments.run_folder, "reconstructions.png")
    with usage("noise_level", *_STEPS):
        again = model.reconstruct(x, context, deterministic=arguments.deterministic, **options)
    title = _title(model, source, arguments, options)
    plotting.save_reconstructions(
        x, again, model.num_levels, out, title=title, features=source.columns
    )
    print(out)
    return 0


def _source(arguments: argparse.Namespace, model: Any) -> DataSource | None:
    """Return the run's data if they are there: without them a picture shows less."""
    try:
        if arguments.data is not None or arguments.data_words:
            return run_source(arguments, model)
        run, allow = arguments.run_folder, arguments.allow
        return training.load_source(run, allow=allow, accept_other_data=True)
    except (ValueError, RuntimeError, OSError, ImportError):
        return None


def _title(
    model: Any, source: DataSource | None, arguments: argparse.Namespace, options: dict[str, Any]
) -> str:
    """Return the picture's title, with the options that change what is drawn."""
    epoch = training.trained_epoch(arguments.run_folder)
    shown = {name: value for name, value in options.items() if name != "progress"}
    parts = [f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()]
    return ", ".join([training.picture_title(model, source, epoch=epoch), *parts])


def _check_completion(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` for options that contradict each other."""
    both = arguments.label is not None and arguments.labels is not None
    check(not both, "label", "be left out with --labels", arguments.label)
    if arguments.complete is None:
        check(arguments.rows is None, "rows", "come with --complete", arguments.rows)


def _options(model: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what else the model's drawing takes: a temperature, a bar where someone looks."""
    known = model.sampling_options
    options = _given(model, arguments, ("temperature", *_STEPS), known)
    if "progress" in known and sys.stderr.isatty():
        options["progress"] = True
    return options


def _given(
    model: Any, arguments: argparse.Namespace, names: Iterable[str], known: Collection[str]
) -> dict[str, Any]:
    """Return the options of a model's method that the command line gives.

    Raises:
        ValueError: If the model does not have one of them.
    """
    values = vars(arguments)
    options = {name: values[name] for name in names if values[name] is not None}
    for name, value in options.items():
        check(name in known, name, f"be left out, {type(model).__name__} has none", value)
    return options


def _own_form(arguments: argparse.Namespace, model: Any, known: RunData) -> Any:
    """Return the data where they can write samples in a form that others do not have.

    Raises:
        UsageError: If nothing writes such a file.
    """
    out = arguments.out
    if out.suffix in _WRITTEN:
        return None
    if not out.suffix:
        with usage():
            bits_of(model.num_levels)
            shape = tuple(model.event_shape)
            rule = "have a suffix, such as .npy, for data that are not pictures"
            check(len(shape) == 3 and shape[0] in (1, 3), "out", rule, f"'{out}' for {shape}")
        return None
    source = None if known.description is None else opened_source(arguments, model)
    suffixes = () if source is None else source.sample_suffixes
    every = (*dict.fromkeys((*_WRITTEN, *suffixes)),)
    check_output(out, every, argument="out", folders=True)
    return source


def _plain(samples: Tensor, model: Any, out: Path) -> Tensor:
    """Return levels as integers; a tensor file keeps them as the model draws them."""
    if model.num_levels is None or out.suffix == ".pt":
        return samples
    return samples.round().clamp(0, model.num_levels - 1).long()


def _label(model: Any, arguments: argparse.Namespace, classes: list[str] | None) -> int | None:
    """Return the number of the class that ``--label`` names, or gives itself.

    Raises:
        ValueError: If there is none.
    """
    given, number = arguments.label, model.num_classes or model.num_components
    if given is None:
        return None
    check(number is not None, "label", "be left out, the model has no classes", given)
    classes = None if model.num_classes is None else classes
    if classes and given in classes:
        return classes.index(given)
    named = f", or one of {listed(classes, most=10)}" if classes else ""
    fits = given.isdecimal() and int(given) < number
    check(fits, "label", f"be a number from 0 to {number - 1}{named}", given)
    return int(given)


def _context(
    model: Any,
    arguments: argparse.Namespace,
    label: int | None,
    number: int | None = None,
    part: str = "",
) -> Tensor | None:
    """Return a context a draw; ``None`` leaves it to the model's classes in turn."""
    number = arguments.num if number is None else number
    if label is not None:
        return torch.full((number,), label, device=arguments.device)
    if arguments.labels is None and not part:
        rule = "be given, the model is conditioned on features: train, for those of the data"
        check(model.context_shape is None, "labels", rule, None)
        return None
    return read_context(model, arguments, number, part)


def _prompt(arguments: argparse.Namespace, model: Any) -> Tensor | None:
    """Return the text that ``--complete`` gives as symbols ``(length,)``, NaN behind its end.

    ``None`` where it names data, as it does for all models but those of text.

    Raises:
        UsageError: If the model completes nothing, its data lack one of the text's characters, or
            its sequences are shorter.
    """
    text = arguments.complete
    if text is None:
        return None
    with usage():
        rule = "be left out, only an autoregressive model completes data"
        check(model.can_complete, "complete", rule, text)
    if names_array(text) or len(model.event_shape) != 1:
        return None
    encode = getattr(opened_source(arguments, model), "encode", None)
    with usage():
        return None if encode is None else encode(text, argument="complete")


def _completed(
    model: Any,
    arguments: argparse.Namespace,
    label: int | None,
    options: dict[str, Any],
    prompt: Tensor | None,
) -> Tensor:
    """Return data that begin as given ones do, which are taken in turn if they are too few."""
    rows = arguments.rows
    if prompt is None:
        given = read_data(arguments.complete, model, arguments, argument="complete")
        ends = model.missing and bool(given.isnan().any())
        with usage():
            check(rows is not None or ends, "rows", "be given with --complete", rows)
    else:
        given, size = prompt[None], int((~prompt.isnan()).sum())
        rows = size if rows is None else rows
        with usage():
            check(rows <= size, "rows", f"be at most {size}, the symbols of the text", rows)
    given = given.to(arguments.device)
    context = _context(model, arguments, label, min(len(given), arguments.num), arguments.complete)
    completed = []
    for places in (torch.arange(arguments.num) % len(given)).split(_CHUNK):
        part = None if context is None else context[places]
        completed.append(model.complete(given[places], rows, part, **options))
    return torch.cat(completed)


def _check_drawing(arguments: argparse.Namespace) -> None:
    """Check number and seed before any work is done.

    Raises:
        ValueError: If one is impossible.
    """
    check(arguments.num >= 1, "num", "be at least 1", arguments.num)
    check(0 <= arguments.seed < 2**32, "seed", "be from 0 to 2**32 - 1", arguments.seed)


def _default_output(run_folder: str, name: str) -> Path:
    """Return where a picture goes: into the run's folder, or beside the checkpoint given."""
    path = Path(run_folder)
    return (path if path.is_dir() else path.parent) / name
