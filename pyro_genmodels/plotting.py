"""Pictures of a run: grids of samples, reconstructions beside their originals, learning curves.

Needs the ``train`` extra (matplotlib). Files are replaced whole, never half written.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pyro_genmodels._checks import check, integers_checked, require
from pyro_genmodels._files import written_whole
from pyro_genmodels._modules import evaluating, first_tensor
from pyro_genmodels._typing import Float, Num

__all__ = [
    "image_grid",
    "save_curves",
    "save_reconstructions",
    "save_samples",
    "save_traversals",
    "to_pixels",
]

# Below this many pixels a side, a tile is enlarged by whole factors: 8x8 digits are no stamps.
_SMALLEST_SIDE = 48


@integers_checked
def to_pixels(
    images: Num[Tensor, "*batch C H W"], num_levels: int | None = None
) -> Float[Tensor, "*batch drawn H width"]:
    """Scale images to [0, 1] with one or three channels; other channels stand side by side.

    Args:
        images: Images ``(*batch, C, H, W)``.
        num_levels: Discrete levels; continuous images are scaled from their 1st to 99th percentile.

    Returns:
        Images ``(*batch, 1 or 3, H, W or C W)``.
    """
    values = images.detach().cpu().float()
    if num_levels is not None:
        values = values / (num_levels - 1)
    else:
        # A strided part: torch.quantile refuses more than 16 million elements.
        part = values.flatten()[:: max(1, values.numel() // 1_000_000)]
        low, high = part.quantile(torch.tensor([0.01, 0.99]))
        values = (values - low) / (high - low).clamp_min(1e-12)
    if values.shape[-3] not in (1, 3):
        values = torch.cat(values.split(1, dim=-3), dim=-1)
    return values.clamp(0, 1)


@integers_checked
def image_grid(
    images: Num[Tensor, "*batch C H W"],
    num_levels: int | None = None,
    *,
    columns: int | None = None,
) -> Float[Tensor, "rows_high columns_wide rgb"]:
    """Lay images out in rows, enlarged to a visible size.

    Args:
        images: Images ``(*batch, C, H, W)``, at least one.
        num_levels: Discrete levels, ``None`` for continuous values.
        columns: Images a row; about a square by default.

    Returns:
        One picture ``(height, width, 3)`` with values from 0 to 1.
    """
    check(images.numel() > 0, "images", "hold at least one image", "none")
    pixels = to_pixels(images.reshape(-1, *images.shape[-3:]), num_levels)
    factor = max(1, math.ceil(_SMALLEST_SIDE / max(pixels.shape[-2:])))
    tiles = pixels.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    tiles = F.pad(tiles.expand(-1, 3, -1, -1), (1, 1, 1, 1), value=0.5)
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    missing = -len(tiles) % columns
    tiles = torch.cat([tiles, tiles.new_full((missing, *tiles.shape[1:]), 0.5)])
    n, c, h, w = tiles.shape
    grid = tiles.view(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2)
    return grid.reshape(n // columns * h, columns * w, c)


@integers_checked
def save_samples(
    samples: Num[Tensor, "..."],
    num_levels: int | None,
    path: str | os.PathLike[str],
    *,
    columns: int | None = None,
) -> None:
    """Draw samples: a grid of images, a scatter plot of vectors (their first two coordinates).

    Args:
        samples: Images ``(*batch, C, H, W)``, three dimensions for a single one, or vectors
            ``(batch, D)`` or ``(D,)``.
        num_levels: Discrete levels, ``None`` for continuous values.
        path: PNG file to replace.
        columns: Images a row.
    """
    if samples.dim() >= 3:
        _save_image(image_grid(samples, num_levels, columns=columns), path)
        return
    points = samples.detach().cpu().reshape(-1, samples.shape[-1])
    with _saved_axes(path) as axes:
        if points.shape[1] == 1:
            axes.hist(points[:, 0].numpy(), bins="auto", density=True)
        else:
            axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=4, alpha=0.6)
            axes.set_aspect("equal", adjustable="datalim")
            axes.set(xlabel="x[0]", ylabel="x[1]")


@integers_checked
def save_reconstructions(
    x: Num[Tensor, "*batch_event"],
    reconstructed: Num[Tensor, "*batch_event"],
    num_levels: int | None,
    path: str | os.PathLike[str],
) -> None:
    """Draw pairs: on the left of each the original, on its right the reconstruction.

    Args:
        x: Originals, images ``(*batch, C, H, W)`` or vectors ``(batch, D)`` or ``(D,)``.
        reconstructed: Their reconstructions.
        num_levels: Discrete levels, ``None`` for continuous values.
        path: PNG file to replace.
    """
    if x.dim() >= 3:
        both = torch.stack([x.to(reconstructed), reconstructed], -4)
        columns = 2 * max(1, math.ceil(math.sqrt(both.shape[:-3].numel() / 4)))
        _save_image(image_grid(both, num_levels, columns=columns), path)
        return
    with _saved_axes(path) as axes:
        axes.scatter(x.flatten().cpu(), reconstructed.detach().flatten().cpu(), s=4, alpha=0.6)
        axes.set(xlabel="x", ylabel="reconstruction")


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
    _save_image(image_grid(images, model.num_levels, columns=num_steps), path)


def save_curves(history: Sequence[Mapping[str, float]], path: str | os.PathLike[str]) -> None:
    """Draw training and validation loss over the epochs.

    Args:
        history: Rows of ``metrics.csv``; nothing is drawn without any.
        path: PNG file to replace.
    """
    if not history:
        return
    unit = "bits_per_dim" if "validation_bits_per_dim" in history[0] else "nats"
    epochs = [row["epoch"] for row in history]
    parts = ("training", "validation")
    with _saved_axes(path) as axes:
        for part in parts:
            losses = [row[f"{part}_{unit}"] for row in history]
            axes.plot(epochs, losses, label=part, marker="." if len(epochs) < 30 else None)
        axes.set(xlabel="epoch", ylabel=unit.replace("bits_per_dim", "bits/dim"))
        axes.set_ylim(*_limits([row[f"{part}_{unit}"] for row in history for part in parts]))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Leave out the first epochs' heights, beside which the rest would be a flat line."""
    finite = sorted(v for v in values if math.isfinite(v)) or [0.0]
    low, high = finite[0], finite[min(len(finite) - 1, int(0.95 * len(finite)))]
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


@contextlib.contextmanager
def _saved_axes(path: str | os.PathLike[str]) -> Iterator[Any]:
    # Figure itself, not pyplot: no display, no global state, no figure left open.
    module = require("matplotlib.figure", extra="train")
    figure = module.Figure(figsize=(5.5, 4), layout="constrained")
    yield figure.subplots()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _save_image(grid: Tensor, path: str | os.PathLike[str]) -> None:
    image = require("matplotlib.image", extra="train")
    with written_whole(path) as temporary:
        image.imsave(temporary, grid.numpy())
