"""Draws from a model in batches, under contexts where it needs them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels import plotting
from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._modules import first_tensor
from pyro_genmodels._progress import tracked
from pyro_genmodels._typing import GivenContext
from pyro_genmodels.data import DataSource
from pyro_genmodels.models import GenerativeModel
from pyro_genmodels.nets import join_context
from pyro_genmodels.training.random import seeded
from pyro_genmodels.training.settings import TrainingSettings

_MOST_COLUMNS = 20  # of a sheet with one class in each


@integers_checked
def draw_samples(
    model: GenerativeModel,
    num_samples: int,
    context: GivenContext = None,
    *,
    chunk: int = 256,
    **options: Any,
) -> Tensor:
    """Draw data, a label-conditional model's from each class in turn.

    Args:
        model: The model.
        num_samples: Number of draws.
        context: One context a draw; labels ``0, 1, ...`` by default.
        chunk: Draws at once, which bounds memory.
        **options: Further arguments of the model's ``sample``, such as a VQ-VAE's ``temperature``.

    Returns:
        Data ``(num_samples, *event)``.

    Raises:
        ValueError: If the model needs a context that is no label, and none is given.
    """
    if model.context_event_dim is None and context is None:
        sizes = [len(part) for part in torch.empty(num_samples).split(chunk)]
        return torch.cat([model.sample(size, **options) for size in tracked(sizes, "sampling")])
    given = model.joined_context(context)
    contexts = _contexts(model, num_samples) if given is None else given[:num_samples]
    parts = tracked(contexts.split(chunk), "sampling")
    return torch.cat([model.sample(1, part, **options)[0] for part in parts])


def save_picture(
    model: GenerativeModel,
    source: DataSource,
    folder: Path,
    settings: TrainingSettings,
    epoch: int | None = None,
    *,
    is_preview: bool = False,
) -> None:
    """Draw samples into ``samples.png``, unless none are asked for; random states stay.

    Args:
        model: The model.
        source: Its data.
        folder: The run's folder.
        settings: How it is trained.
        epoch: The epoch of its weights.
        is_preview: Draw by the model's ``preview_options``, which the title names.
    """
    if settings.num_samples:
        context = _features(model, source, settings.num_samples)
        shown = model.num_classes
        if len(model.event_shape) == 3 and model.context_event_dim is None:
            shown = model.num_components  # of vectors the mixture is drawn, beside the data
        if shown is not None and context is None:
            context = _in_turn(model, settings.num_samples, shown)
        options = model.preview_options if is_preview else {}
        with seeded(settings.seed):
            samples = draw_samples(model, settings.num_samples, context, **options)
        title, labels = picture_title(model, source, epoch=epoch, **options), None
        if shown is not None:
            labels = torch.arange(len(samples)) % shown
        draw_picture(samples, model, source, folder / "samples.png", title=title, labels=labels)


@integers_checked
def draw_picture(
    samples: Tensor,
    model: GenerativeModel,
    source: DataSource | None,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    labels: Tensor | None = None,
) -> None:
    """Save a picture of samples with what is known of the data: names, and data to compare with.

    Vectors and sequences stand beside as many of the validation data, always the same ones.

    Args:
        samples: Draws ``(n, *event)``.
        model: Whose they are.
        source: The data it was trained on, if they are there.
        path: PNG file to replace.
        title: Text above.
        labels: The class of each image, if they are to be shown.
    """
    options: dict[str, Any] = {"title": title}
    rank = len(model.event_shape)
    options["series"] = rank in (2, 4)
    if rank <= 2 and source is not None:
        validation: Any = source.validation
        places = torch.linspace(0, len(validation) - 1, min(len(samples), len(validation)))
        options["data"] = torch.stack([validation[int(i)][0] for i in places])
        options["features"] = source.columns
    elif rank > 2 and labels is not None:
        number = model.num_classes or model.num_components or 1
        names = None
        if source is not None and model.num_classes is not None:
            names = source.classes
        names = names or [str(index) for index in range(number)]
        options["classes"] = [names[i] for i in labels.tolist()]
        in_turn = torch.equal(labels.cpu(), torch.arange(len(labels)) % number)
        if in_turn and number <= _MOST_COLUMNS:
            options["columns"] = number
    plotting.save_samples(samples, model.num_levels, path, **options)


@integers_checked
def picture_title(
    model: GenerativeModel,
    source: DataSource | None = None,
    *,
    epoch: int | None = None,
    temperature: float | None = None,
    num_steps: int | None = None,
) -> str:
    """Return the title of a run's pictures: ``"VAE on Digits, epoch 12"``.

    Args:
        model: The model.
        source: Its data.
        epoch: The epoch of its weights.
        temperature: At which it was sampled.
        num_steps: Steps of its chain, if they are not the model's own.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> picture_title(VAE((2,)), epoch=12)
        'VAE, epoch 12'
    """
    facts = {"epoch": epoch, "temperature": temperature}
    known = [f"{name} {value:g}" for name, value in facts.items() if value is not None]
    known += [] if num_steps is None else [f"{num_steps} steps"]
    name = model.display_name if source is None else f"{model.display_name} on {source.name}"
    return ", ".join([name, *known])


@integers_checked
def rejection_sample(
    draw: Callable[[int], Tensor],
    score: Callable[[Tensor], Tensor],
    num_samples: int,
    *,
    keep: float = 0.1,
    chunk: int = 256,
) -> Tensor:
    """Draw more than needed and keep those that score best: quality at the price of diversity.

    The paper's score is the probability that a classifier gives the class that was asked for.

    Args:
        draw: Returns so many draws ``(n, *event)``: ``model.sample``, or a function that gives a
            model's context or temperature, or ``lambda n: distribution.sample((n,))``.
        score: Maps draws ``(n, *event)`` to ``(n,)``, of which larger is better.
        num_samples: Number of draws to return.
        keep: Share of the draws that is kept.
        chunk: Draws at once, which bounds memory; of all of them only the best are held.

    Returns:
        Draws ``(num_samples, *event)``, the best first.

    Raises:
        ValueError: If an argument is out of range, or there is not one score a draw.

    References:
        Razavi et al. (2019), Generating diverse high-fidelity images with VQ-VAE-2, section 3.4.
        https://arxiv.org/abs/1906.00446

    Example:
        >>> best = rejection_sample(lambda n: torch.randn(n), lambda x: -x.abs(), 5, keep=0.01)
        >>> best.shape, bool(best.abs().max() < 0.2)
        (torch.Size([5]), True)
    """
    check(num_samples >= 1, "num_samples", "be at least 1", num_samples)
    check(0 < keep <= 1, "keep", "lie in (0, 1]", keep)
    total, best, scores = math.ceil(num_samples / keep), None, None
    for start in tracked(range(0, total, chunk), "sampling"):
        size = min(chunk, total - start)
        drawn = draw(size)
        given = score(drawn)
        check(given.shape == (size,), "score", f"give ({size},) scores", tuple(given.shape))
        best = drawn if best is None else torch.cat([best, drawn])
        scores = given if scores is None else torch.cat([scores, given])
        order = scores.argsort(descending=True, stable=True)[:num_samples]
        best, scores = best[order], scores[order]
    assert best is not None  # there is a chunk
    return best


def _features(model: GenerativeModel, source: DataSource, number: int) -> Tensor | None:
    """Return features of validation data, in turn, for a model that is conditioned on them."""
    if model.context_shape is None:
        return None
    validation: Any = source.validation
    items = [model.context_of(validation[i]) for i in range(min(number, len(validation)))]
    places = torch.arange(number) % len(items)
    context = torch.stack([item for item in items if item is not None])[places]
    labels, features = model.context_parts(context)
    if labels is not None and features is not None:  # as of a model of labels alone, in turn
        in_turn = torch.arange(number) % (model.num_classes or 1)
        context = join_context(in_turn, features, model.context_event_dim)
    return context.to(first_tensor(model).device)


def _contexts(model: GenerativeModel, num_samples: int) -> Tensor:
    rule = "be given to draw from a model conditioned on features"
    check(model.num_classes is not None, "context", rule, None)
    return _in_turn(model, num_samples, model.num_classes or 1)


def _in_turn(model: GenerativeModel, num_samples: int, number: int) -> Tensor:
    return torch.arange(num_samples, device=first_tensor(model).device) % number
