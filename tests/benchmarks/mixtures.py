"""Mixtures on the digits: ten categoricals by EM, and PixelCNNs against one of equal size.

    python -m tests.benchmarks.mixtures categoricals   # minutes
    python -m tests.benchmarks.mixtures pixelcnns      # an hour

Prints bits per dimension of the test digits, three seeds and their mean. The components' prior is
chosen over folds of the training and validation digits.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch

from pyro_genmodels import data, models, training
from pyro_genmodels.metrics import bits_per_dim

SEEDS = (0, 1, 2)
CONCENTRATIONS = (1.05, 1.1, 1.2, 1.3, 1.5, 2.0)
FOLDS = 5


def bits(model: Any, x: torch.Tensor) -> float:
    """Return the mean bits per dimension of data."""
    with torch.no_grad():
        return bits_per_dim(-float(model.log_prob(x).mean()), model.event_shape)


def categoricals(source: data.Digits) -> None:
    """Fit ten tables by EM, with the prior that suits the digits but the test's."""
    train, validation, test = (
        part.tensors[0] for part in (source.train, source.validation, source.test)
    )

    def fitted(x: torch.Tensor, concentration: float, seed: int) -> models.MixtureModel:
        torch.manual_seed(seed)
        model = models.categorical_mixture((1, 8, 8), 10, num_levels=17)
        model.fit_em(x, priors=concentration, seed=seed)
        return model.eval()

    seen = torch.cat([train, validation])
    order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(0))
    folds = order.tensor_split(FOLDS)
    scores = {}
    for concentration in CONCENTRATIONS:
        held_out = []
        for i, fold in enumerate(folds):
            rest = torch.cat([other for j, other in enumerate(folds) if j != i])
            held_out.append(bits(fitted(seen[rest], concentration, 0), seen[fold]))
        scores[concentration] = sum(held_out) / FOLDS
    best = min(scores, key=scores.__getitem__)
    print("folds:", {c: round(score, 4) for c, score in scores.items()}, f"chosen: {best}")
    found = [bits(fitted(train, best, seed), test) for seed in SEEDS]
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
