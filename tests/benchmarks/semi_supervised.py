"""What unlabelled digits are worth: ``python tests/benchmarks/semi_supervised.py``.

The semi-supervised VAE against its own classifier trained on the labelled digits alone, by the
accuracy on the test digits, for a few seeds; each draws which digits are labelled, the same number
of each class.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels import data, models


def labelled_places(labels: Tensor, per_class: int) -> Tensor:
    places = [torch.nonzero(labels == label)[:, 0] for label in range(10)]
    return torch.cat([each[torch.randperm(len(each))[:per_class]] for each in places])


def make(source: data.Digits) -> models.SemiSupervisedVAE:
    vae = models.VAE(
        source.event_shape,
        num_levels=source.num_levels,
        num_classes=10,
        latent_dim=4,  # few, lest they carry the label too
        hidden=(128,),
    )
    return models.SemiSupervisedVAE(vae, hidden=(64,), classification_weight=100.0)


def optimize(module: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


def accuracy(model: models.SemiSupervisedVAE, x: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float((model.classify(x).logits.argmax(-1) == labels).float().mean())


def run(seed: int, per_class: int, steps: int) -> tuple[float, float, float]:
    torch.manual_seed(seed)
    source = data.Digits()
    (x, labels), test = source.train.tensors, source.test.tensors
    x, known = x.float(), labelled_places(labels, per_class)
    x_known, y_known = x[known], labels[known]
    baseline, model = make(source), make(source)
    model.load_state_dict(baseline.state_dict())

    def supervised() -> Tensor:
        return -baseline.classify(x_known).log_prob(y_known).mean()

    optimize(baseline.classifier, supervised, min(steps, 500))
    start = time.perf_counter()
    elbo: Any = models.ELBOLoss(model)

    def semi_supervised() -> Tensor:
        some = torch.randint(len(x), (64,))
        total: Tensor = elbo(x[some]) + elbo(x_known, y_known)
        return total

    optimize(model, semi_supervised, steps)
    spent = time.perf_counter() - start
    return accuracy(baseline, *test), accuracy(model, *test), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--per-class", type=int, default=5, help="labelled digits of each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"accuracy with {10 * arguments.per_class} labels")
    print("| seed | labelled digits alone | semi-supervised VAE | seconds |")
    print("| --- | --- | --- | --- |")
    rows = []
    for seed in range(arguments.seeds):
        rows.append(run(seed, arguments.per_class, arguments.steps))
        alone, with_all, spent = rows[-1]
        print(f"| {seed} | {alone:.3f} | {with_all:.3f} | {spent:.0f} |", flush=True)
    gains = [with_all - alone for alone, with_all, _ in rows]
    spread = statistics.stdev(gains) if len(gains) > 1 else float("nan")
    print(f"gain {statistics.mean(gains):.3f}, standard deviation {spread:.3f}")


if __name__ == "__main__":
    main()
