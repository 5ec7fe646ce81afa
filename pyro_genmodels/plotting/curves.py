"""Learning curves."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

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


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Leave out the first epochs' heights, beside which the rest would be a flat line."""
    finite = sorted(v for v in values if math.isfinite(v)) or [0.0]
    low, high = finite[0], finite[min(len(finite) - 1, int(0.95 * len(finite)))]
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin
