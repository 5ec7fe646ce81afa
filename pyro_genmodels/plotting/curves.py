"""Curves: losses over the epochs, and a bound over the noise levels."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float
from pyro_genmodels.plotting.saving import saved_figure


def save_curves(
    history: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> None:
    """Draw training and validation loss over the epochs, with the best epoch marked.

    Epochs whose loss is not finite are gaps.

    Args:
        history: Rows of ``metrics.csv``; nothing is drawn without any.
        path: PNG file to replace.
        title: Text above.
    """
    if not history:
        return
    unit = "bits_per_dim" if "validation_bits_per_dim" in history[0] else "nats"
    shown = unit.replace("bits_per_dim", "bits/dim")
    epochs = [row["epoch"] for row in history]
    curves = {
        part: [row[f"{part}_{unit}"] for row in history] for part in ("training", "validation")
    }
    with saved_figure(path, title) as figure:
        axes = figure.subplots()
        for part, losses in curves.items():
            # Else an epoch between two that are not finite would not be seen.
            few = len(epochs) < 30 or not all(map(math.isfinite, losses))
            axes.plot(epochs, losses, label=part, marker="." if few else None)
        pairs = zip(curves["validation"], epochs, strict=True)
        finite = [pair for pair in pairs if math.isfinite(pair[0])]
        if finite:
            best, epoch = min(finite)
            label = f"best: {best:.4g} {shown}, epoch {epoch:.0f}"
            axes.axvline(epoch, color="0.5", linestyle="--", linewidth=1, label=label)
            axes.plot([epoch], [best], "o", color="C1")
        axes.set(xlabel="epoch", ylabel="nats per example" if unit == "nats" else shown)
        axes.set_ylim(*_limits([loss for losses in curves.values() for loss in losses]))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()


def save_rates(
    rates: Float[Tensor, "*batch num_rates"],
    levels: Float[Tensor, " num_levels"],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> None:
    """Draw what each noise level of a diffusion model adds to its bound.

    The area under the curve is the KL divergence of all steps, the mean over the data. Where it is
    high, more steps would tighten the bound.

    Args:
        rates: Nats for each step and, last, of the noisiest state, ``(*batch, T + 1)``, as
            :meth:`DiffusionModel.rates <pyro_genmodels.models.DiffusionModel.rates>` gives them.
        levels: The chain's noise levels ``(T + 1,)``.
        path: PNG file to replace.
        title: Text above.

    Raises:
        ValueError: If there are no data or no steps, or not one noise level for each rate.

    Example:
        >>> save_rates(torch.rand(10, 5), torch.arange(5.0), "rates.png")  # doctest: +SKIP
    """
    count = len(levels)
    check(count >= 2, "levels", "be those of one step or more", tuple(levels.shape))
    fits = rates.numel() > 0 and rates.shape[-1] == count
    check(fits, "rates", f"hold {count} for each example", tuple(rates.shape))
    mean = rates.detach().cpu().double().reshape(-1, count).mean(0)
    grid = levels.detach().cpu().double()
    density = mean[:-1] / grid.diff()
    with saved_figure(path, title) as figure:
        axes = figure.subplots()
        # Each step's height between the log SNR of its ends.
        label = f"steps: {float(mean[:-1].sum()):.4g} nats, last state: {float(mean[-1]):.2g} nats"
        axes.stairs(density.flip(0).numpy(), (-grid).flip(0).numpy(), fill=True, label=label)
        axes.set(xlabel="log SNR", ylabel="nats per unit of log SNR")
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        axes.legend()


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Leave out the first epochs' heights, beside which the rest would be a flat line."""
    finite = sorted(v for v in values if math.isfinite(v)) or [0.0]
    low, high = finite[0], finite[min(len(finite) - 1, int(0.95 * len(finite)))]
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin
