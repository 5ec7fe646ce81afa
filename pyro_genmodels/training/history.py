"""What the course of a training says: its best epoch, and whether to train longer or otherwise."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pyro_genmodels._files import written_whole
from pyro_genmodels.training.checkpoint import BEST, checkpoint_path

_FEWEST = 5  # epochs below which noise cannot be told from a trend
_MATERIAL = 0.02  # of what training has gained since its first tenth
_ERRORS = 4.0  # standard errors of a mean over a tenth of the epochs


def best_epoch(history: Sequence[Mapping[str, float]]) -> int | None:
    """Return the epoch with the best validation result, ``None`` without a finite one."""
    rows = [row for row in history if math.isfinite(row["validation_nats"])]
    return int(min(rows, key=lambda row: row["validation_nats"])["epoch"]) if rows else None


def diagnosis(history: Sequence[Mapping[str, float]]) -> str | None:
    """Say whether a run looks undertrained or overfitted, and what to try.

    It looks *undertrained* if its best epoch is in the last tenth and the mean validation result of
    the last tenth is better than that of the tenth before. It looks *overfitted* if the best epoch
    is before the last fifth and the validation result has risen since while the training loss has
    fallen. Either counts if it is more than 2 % of what training has gained since the first tenth
    of its epochs, and more than four standard errors; the noise is estimated from the third
    differences of the second half. Epochs that are not finite are left out.

    Args:
        history: What :func:`fit` returned, one row per epoch.

    Returns:
        One line; ``None`` if there is nothing to say, also of fewer than five epochs.

    Example:
        >>> rows = [(e, 9 - e, 9 - e) for e in range(9)]
        >>> names = ("epoch", "training_nats", "validation_nats")
        >>> diagnosis([dict(zip(names, row)) for row in rows]).split(":")[0]
        'Looks undertrained'
    """
    unit = "bits_per_dim" if history and "validation_bits_per_dim" in history[0] else "nats"
    keys = ("epoch", f"validation_{unit}", f"training_{unit}")
    rows = np.array([[row[key] for key in keys] for row in history]).reshape(-1, 3)
    epochs, validation, training = rows[np.isfinite(rows[:, 1])].T
    number = len(epochs)
    if number < _FEWEST:
        return None
    tenth, best = max(1, number // 10), int(validation.argmin())
    last, first = validation[-tenth:].mean(), validation[:tenth].mean()
    half = validation[-max(_FEWEST, number // 2) :]
    # A third difference has twenty times the variance, and hardly any trend.
    noise = math.sqrt(np.square(np.diff(half, 3)).mean() / 20)
    least = _ERRORS * noise * math.sqrt(2 / tenth)
    shown = unit.replace("_per_", "/")
    gain = validation[-2 * tenth : -tenth].mean() - last
    if best >= number - tenth and gain > max(least, _MATERIAL * (first - last)):
        return (
            f"Looks undertrained: validation still improved at the end, by {gain:.2g} {shown} in "
            "the last tenth of the epochs. Train longer: --max_epochs or --max_time, from here "
            "with --resume."
        )
    # Of at least three epochs: the best one is also the luckiest.
    wide = max(3, tenth)
    near = slice(max(0, best - wide // 2), best + wide // 2 + 1)
    at_best = validation[near].mean()
    rise = validation[-wide:].mean() - at_best
    fell = np.nanmean(training[-wide:]) < np.nanmean(training[near])
    if best < 0.8 * number and fell and rise > max(least, _MATERIAL * (first - at_best)):
        return (
            f"Looks overfitted: validation was best in epoch {epochs[best]:.0f} of "
            f"{epochs[-1]:.0f} and has risen by {rise:.2g} {shown} since, while the training loss "
            "fell. The best epoch's weights are kept. More dropout or weight decay, a smaller "
            "model or more data may help; --patience stops earlier."
        )
    return None


def trained_epoch(run: str | os.PathLike[str]) -> int | None:
    """Return the epoch whose weights :func:`load` gives, if the run's folder says it.

    Args:
        run: Run folder; of a checkpoint nothing is known.
    """
    path = Path(run) / "metrics.csv"
    if not path.is_file() or checkpoint_path(run).name != BEST:
        return None
    with path.open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return best_epoch(rows)


def write_csv(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write one line an epoch."""
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        # Of all rows: a run that an older version began lacks columns.
        names = list(dict.fromkeys(name for row in history for name in row))
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(history)
