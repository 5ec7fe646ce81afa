"""Pictures of what a model draws: samples, reconstructions, traversals of its latent space."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._modules import evaluating, first_tensor
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.data import Column
from pyro_genmodels.plotting.sheets import save_sheet
from pyro_genmodels.plotting.vectors import save_pairs, save_point_panels, save_series, save_vectors


@integers_checked
def save_samples(
    samples: Num[Tensor, "..."],
    num_levels: int | None,
    path: str | os.PathLike[str],
    *,
    columns: int | None = None,
    title: str | None = None,
    classes: Sequence[str] | None = None,
    data: Num[Tensor, "..."] | None = None,
    series: bool = False,
    features: Sequence[Column] | None = None,
) -> None:
    """Draw samples: images on a sheet, vectors and sequences beside the data.

    Images are as the data have them, small ones enlarged by a whole factor. Vectors of two elements
    are points, those of more a corner plot of the first six: histograms on the diagonal, pairs of
    elements below. Sequences, that is vectors of levels and those of more than 32 elements, are
    lines, and so are series of vectors, a column for each of their first six elements; of series of
    images each is a row.

    Args:
        samples: Images ``(*batch, C, H, W)``, three dimensions for a single one, or vectors
            ``(batch, D)`` or ``(D,)``; with ``series`` series of vectors ``(batch, T, D)`` or of
            images ``(batch, T, C, H, W)``.
        num_levels: Discrete levels, ``None`` for continuous values.
        path: PNG file to replace.
        columns: Images a row.
        title: Text above.
        classes: Of images, a label for each.
        data: Of vectors, and series of them, data ``(n, D)`` or ``(n, T, D)`` to compare with, in
            grey. Elements that are missing, NaN, are left out.
        series: Whether samples are series.
        features: Names and kinds of a vector's elements. Counts and categories are bars, and points
            are spread a little around them.

    Raises:
        ValueError: If there are no samples, or not one label for each image.
    """
    check(samples.numel() > 0, "samples", "hold at least one sample", "none")
    if series and samples.dim() <= 3:
        save_series(samples, data, num_levels, path, title=title)
    elif samples.dim() >= 3:
        columns = samples.shape[-4] if series and columns is None else columns
        images = samples.detach().reshape(-1, *samples.shape[-3:])
        fits = classes is None or len(classes) == len(images)
        check(fits, "classes", f"be {len(images)}, one for each image", len(classes or ()))
        save_sheet(images, num_levels, path, columns=columns, title=title, labels=classes)
    else:
        save_vectors(samples, data, num_levels, path, title=title, features=features)


@integers_checked
def save_reconstructions(
    x: Num[Tensor, "*batch_event"],
    reconstructed: Num[Tensor, "*batch_event"],
    num_levels: int | None,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    features: Sequence[Column] | None = None,
) -> None:
    """Draw pairs: on the left of each the original, on its right the reconstruction.

    Args:
        x: Originals, images ``(*batch, C, H, W)`` or vectors ``(batch, D)`` or ``(D,)``.
        reconstructed: Their reconstructions.
        num_levels: Discrete levels, ``None`` for continuous values.
        path: PNG file to replace.
        title: Text above.
        features: Names and kinds of a vector's elements, each drawn on axes of its own.
    """
    if x.dim() < 3:
        save_pairs(x, reconstructed, num_levels, path, title=title, features=features)
        return
    both = torch.stack([x.to(reconstructed), reconstructed.detach()], -4)
    pairs = both.shape[:-4].numel()
    columns = 2 * max(1, math.ceil(math.sqrt(pairs / 2)))
    save_sheet(
        both.reshape(-1, *both.shape[-3:]),
        num_levels,
        path,
        columns=columns,
        title=title,
        labels=["original", "reconstruction"] * pairs,
        margin=1,
    )


@integers_checked
def save_traversals(
    model: Any,
    path: str | os.PathLike[str],
    *,
    z: Float[Tensor, " D"] | None = None,
    units: Sequence[int] | None = None,
    span: float = 2.5,
    num_steps: int = 9,
    context: Tensor | None = None,
) -> None:
    """Draw what single latent units do: a row for each, its value rising from left to right.

    Args:
        model: Model of images that ``decodes_vectors``, such as a VAE.
        path: PNG file to replace.
        z: Latent vector that the others keep their values from; zeros by default.
        units: Which units, in this order; all by default.
        span: Values run from ``-span`` to ``span``.
        num_steps: Number of values.
        context: One label or feature, if the model is conditional.

    Raises:
        ValueError: If the model has no latent vectors that it decodes, or there are no units.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> vae = VAE((1, 8, 8), num_levels=2, latent_dim=3)
        >>> save_traversals(vae, "traversals.png")  # doctest: +SKIP
    """
    name, rule = type(model).__name__, "have latent vectors that it decodes"
    check(model.decodes_vectors, "model", rule, name)
    like = first_tensor(model)
    start = torch.zeros(model.latent_dim) if z is None else z
    chosen = list(range(model.latent_dim)) if units is None else list(units)
    check(len(chosen) > 0, "units", "be one unit or more", "none")
    values = torch.linspace(-span, span, num_steps)
    latents = start.detach().cpu().to(values).repeat(len(chosen), num_steps, 1)
    for row, unit in enumerate(chosen):
        latents[row, :, unit] = values
    with torch.no_grad(), evaluating(model):
        images = model.decode(latents.flatten(0, 1).to(like), context).mean
    save_sheet(images, model.num_levels, path, columns=num_steps, margin=1)


@integers_checked
def save_trajectory(
    states: Float[Tensor, "num_states n *event"],
    levels: Float[Tensor, " num_levels"],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> None:
    """Draw how a diffusion model's chains lead from noise to data, from left to right.

    Images stand on a sheet with a row for each chain. Of vectors the first two elements are drawn
    as points, a panel for each state. Below each state is its log SNR, minus its noise level.

    Args:
        states: States ``(num_states, n, C, H, W)`` or ``(num_states, n, D)``, ``D`` at least 2, as
            :meth:`DiffusionModel.trajectory <pyro_genmodels.models.DiffusionModel.trajectory>`
            gives them.
        levels: Their noise levels.
        path: PNG file to replace.
        title: Text above.

    Raises:
        ValueError: If there are no states, not one noise level for each, or they are neither images
            nor vectors of two elements or more.

    Example:
        >>> from pyro_genmodels.models import DiffusionModel
        >>> states, levels = DiffusionModel((2,), num_steps=8).trajectory(100, num_states=3)
        >>> save_trajectory(states, levels, "trajectory.png")  # doctest: +SKIP
    """
    check(states.numel() > 0, "states", "hold at least one state", "none")
    fits = tuple(levels.shape) == (len(states),)
    check(fits, "levels", f"have shape ({len(states)},), one for each state", tuple(levels.shape))
    kind = states.dim() == 5 or (states.dim() == 3 and states.shape[-1] >= 2)
    rule = "be images or vectors of two elements or more, (num_states, n, *event)"
    check(kind, "states", rule, tuple(states.shape))
    names = [f"{-level:.1f}" for level in levels.tolist()]
    if states.dim() == 3:
        points = {f"log SNR {name}": z for name, z in zip(names, states, strict=True)}
        save_point_panels(points, path, title=title)
        return
    rows = states.transpose(0, 1)
    save_sheet(
        rows.flatten(0, 1),
        None,
        path,
        columns=len(states),
        title=title,
        labels=names * len(rows),
        margin=1,
    )
