"""What unlabelled digits are worth: ``python tests/benchmarks/semi_supervised.py``.

The semi-supervised VAE against its own classifier trained on the labelled digits alone, for a few
seeds; each draws which digits are labelled, the same number of each class. Of a few numbers of
latents and weights of the classifier those are taken whose mean accuracy over the seeds is best on
the validation digits; theirs on the test digits is reported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_genmodels import data, models


def labelled_places(labels: Tensor, per_class: int) -> Tensor:
    places = [torch.nonzero(labels == label)[:, 0] for label in range(10)]
    return torch.cat([each[torch.randperm(len(each))[:per_class]] for each in places])


class Setting(NamedTuple):
    latent_dim: int
    classification_weight: float


class Accuracy(NamedTuple):
    validation: float
    test: float


SETTINGS = [Setting(latents, weight) for latents in (2, 4, 12) for weight in (30.0, 100.0)]


def make(source: data.Digits, setting: Setting) -> models.SemiSupervisedVAE:
    vae = models.VAE(
        source.event_shape,
        num_levels=source.num_levels,
        num_classes=10,
        latent_dim=setting.latent_dim,
        network=models.VAENetwork(hidden=(128,)),
    )
    weight = setting.classification_weight
    return models.SemiSupervisedVAE(vae, hidden=(64,), classification_weight=weight)


def optimize(module: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


def accuracy(model: models.SemiSupervisedVAE, source: data.Digits) -> Accuracy:
    model.eval()
    found = []
    for x, labels in (source.validation.tensors, source.test.tensors):
        with torch.no_grad():
            guesses = model.classify(x).logits.argmax(-1)
        found.append(float((guesses == labels).float().mean()))
    return Accuracy(*found)


def known_digits(source: data.Digits, seed: int, per_class: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    x, labels = source.train.tensors
    known = labelled_places(labels, per_class)
    return x[known].float(), labels[known]


def alone(source: data.Digits, seed: int, per_class: int, steps: int) -> Accuracy:
    x, labels = known_digits(source, seed, per_class)
    model = make(source, SETTINGS[0])

    def loss() -> Tensor:
        return -model.classify(x).log_prob(labels).mean()

    optimize(model.classifier, loss, steps)
    return accuracy(model, source)


def with_unlabelled(
    source: data.Digits, seed: int, per_class: int, steps: int, setting: Setting
) -> Accuracy:
    x_known, labels = known_digits(source, seed, per_class)
    x, model = source.train.tensors[0].float(), make(source, setting)
    elbo: Any = models.ELBOLoss(model)

    def loss() -> Tensor:
        some = torch.randint(len(x), (64,))
        total: Tensor = elbo(x[some]) + elbo(x_known, labels)
        return total

    optimize(model, loss, steps)
    return accuracy(model, source)


def row(name: str, found: list[Accuracy], seconds: float) -> str:
    columns = [" ".join(f"{getattr(a, split):.3f}" for a in found) for split in Accuracy._fields]
    mean = statistics.mean(a.validation for a in found)
    return f"| {name} | {columns[0]} | {mean:.3f} | {columns[1]} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--per-class", type=int, default=5, help="labelled digits of each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source, seeds = data.Digits(), range(options.seeds)
    print(f"accuracy with {10 * options.per_class} labels, seed by seed; choice by validation")
    print("| latents, weight | validation | mean | test | seconds |")
    print("| --- | --- | --- | --- | --- |")
    size, steps = options.per_class, options.steps
    start = time.perf_counter()
    baseline = [alone(source, seed, size, min(steps, 500)) for seed in seeds]
    print(row("labelled digits alone", baseline, time.perf_counter() - start), flush=True)
    found: dict[Setting, list[Accuracy]] = {}
    for setting in SETTINGS:
        start = time.perf_counter()
        found[setting] = [with_unlabelled(source, seed, size, steps, setting) for seed in seeds]
        name = f"{setting.latent_dim}, {setting.classification_weight:g}"
        print(row(name, found[setting], time.perf_counter() - start), flush=True)
    chosen = max(SETTINGS, key=lambda s: statistics.mean(a.validation for a in found[s]))
    gains = [a.test - b.test for a, b in zip(found[chosen], baseline, strict=True)]
    spread = statistics.stdev(gains) if len(gains) > 1 else float("nan")
    print(f"chosen: {chosen}; gain {statistics.mean(gains):.3f}, standard deviation {spread:.3f}")


if __name__ == "__main__":
    main()
