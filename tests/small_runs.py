"""Runs of an epoch for the tests of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pyro_genmodels import models

SETTINGS: dict[str, Any] = {
    "max_epochs": 1,
    "num_samples": 0,
    "progress": False,
    "accelerator": "cpu",
}
SHAPE = (1, 4, 4)


def train_runs(folder: Path, others: dict[str, models.GenerativeModel]) -> None:
    """Train a PixelCNN with labels and other models on sixty images of four levels."""
    from pyro_genmodels import data, models, training

    images = np.random.default_rng(0).integers(0, 4, (60, *SHAPE)).astype(np.uint8)
    np.savez(folder / "data.npz", train=images, train_labels=np.arange(60) % 3)
    source = data.FromFile(str(folder / "data.npz"), num_levels=4, num_classes=3)
    pixelcnn = models.pixelcnn(SHAPE, num_levels=4, num_classes=3, hidden_channels=4)
    for name, model in {"pixelcnn": pixelcnn, **others}.items():
        training.fit(model, source, run=folder / name, **SETTINGS)
