"""Mixtures on the digits: ten categoricals by EM, and PixelCNNs against one of equal size.

    python -m tests.benchmarks.mixtures categoricals   # seconds
    python -m tests.benchmarks.mixtures pixelcnns      # an hour

Prints bits per dimension of the test digits, three seeds and their mean. The components' prior was
chosen on the validation digits.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch

from pyro_genmodels import data, models, training
from pyro_genmodels.metrics import bits_per_dim

SEEDS = (0, 1, 2)
CONCENTRATIONS = (1.02, 1.05, 1.1, 1.2, 1.5)


def bits(model: Any, x: torch.Tensor) -> float:
    """Return the mean bits per dimension of data."""
    with torch.no_grad():
        return bits_per_dim(-float(model.log_prob(x).mean()), model.event_shape)


def categoricals(source: data.Digits) -> None:
    """Fit ten tables by EM, with the prior that suits the validation digits."""
    train, validation, test = (
        part.tensors[0] for part in (source.train, source.validation, source.test)
    )

    def fitted(concentration: float, seed: int) -> models.MixtureModel:
        torch.manual_seed(seed)
        model = models.categorical_mixture((1, 8, 8), 10, num_levels=17)
        model.fit_em(train, priors=concentration, seed=seed)
        return model.eval()

    scores = {c: bits(fitted(c, 0), validation) for c in CONCENTRATIONS}
    best = min(scores, key=scores.__getitem__)
    print("validation:", {c: round(score, 4) for c, score in scores.items()}, f"chosen: {best}")
    found = [bits(fitted(best, seed), test) for seed in SEEDS]
    report("mixture of 10 categoricals", found)


def pixelcnns(source: data.Digits) -> None:
    """Train a mixture of four PixelCNNs, and one of as many parameters, alike."""
    shape, levels = (1, 8, 8), 17
    mixed = {"hidden_channels": 16, "num_classes": 4}
    alone = {"hidden_channels": 16}

    def mixture() -> models.GenerativeModel:
        return models.MixtureModel(models.pixelcnn(shape, num_levels=levels, **mixed))

    def one() -> models.GenerativeModel:
        return models.pixelcnn(shape, num_levels=levels, **alone)

    settings = dict(models.AutoregressiveModel.training_defaults)
    for name, make in (("mixture of 4 PixelCNNs", mixture), ("one PixelCNN", one)):
        found = []
        for seed in SEEDS:
            torch.manual_seed(seed)
            model = make()
            with tempfile.TemporaryDirectory() as folder:
                training.fit(
                    model, source, run=folder, seed=seed, progress=False, num_samples=0, **settings
                )
            result = training.evaluate(model, source, progress=False)
            assert result.bits_per_dim is not None
            found.append(result.bits_per_dim.mean)
        size = sum(p.numel() for p in model.parameters())
        report(f"{name}, {size:,} parameters", found)


def report(name: str, found: list[float]) -> None:
    """Print each seed's figure and their mean."""
    each = ", ".join(f"{value:.4f}" for value in found)
    print(f"{name}: {sum(found) / len(found):.4f} bits/dim (seeds {each})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("categoricals", "pixelcnns"))
    chosen = parser.parse_args().which
    {"categoricals": categoricals, "pixelcnns": pixelcnns}[chosen](data.Digits())
