"""How well diffusion models fit the digits: ``python tests/benchmarks/diffusion_digits.py``.

``train`` trains ``models.vdm`` with its own settings for as many epochs as are given, on one
thread, with several seeds; the processor time of the training steps alone is printed beside.
``score`` scores all test digits by whole chains: the ELBO and the importance-weighted bound of
eight chains each, as ``evaluate`` does. Weights are kept in ``--folder`` between the two.

``samples`` compares samplers with such weights, by 2,000 samples each: how sure a
classifier of the training digits is of them (see ``digits_quality.py``), the shares of the classes,
the distance to the nearest training digit; and from the same noise, how far few steps end from the
solution of the probability-flow equation in a thousand.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pyro
import torch
from defaults import make_classifier
from torch import Tensor

from pyro_genmodels import data, models, training

NUM_SAMPLES, NUM_STARTS, FINE_STEPS = 2000, 200, 1000


def make_model(digits: data.Digits) -> models.DiffusionModel:
    return models.vdm(**training.facts_of(digits))


def train(digits: data.Digits, seed: int, epochs: int, path: Path) -> float:
    """Train and keep the weights; return processor seconds of the steps alone."""
    pyro.set_rng_seed(seed)
    model = make_model(digits)
    settings = training.settings_for(model)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"max_epochs": epochs, "progress": False, "num_samples": 0}
        training.fit(model, digits, run=f"{folder}/run", seed=seed, **options)
    torch.save(model.state_dict(), path)
    return epochs * seconds_per_epoch(digits, settings.batch_size)


def seconds_per_epoch(digits: data.Digits, batch_size: int) -> float:
    """Return the processor time of an epoch's steps: their number times the median step."""
    model = make_model(digits)
    loss = models.ELBOLoss(model)
    optimizer = torch.optim.AdamW(loss.parameters(), fused=True)  # as training does
    x = digits.train.tensors[0]
    times = []
    for step in range(25):
        batch = x[torch.randint(len(x), (batch_size,))]
        start = time.process_time()
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
        times.append(time.process_time() - start if step > 4 else math.inf)
    return len(x) / batch_size * statistics.median(times[5:])


def loaded(digits: data.Digits, path: Path) -> models.DiffusionModel:
    model = make_model(digits)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def score(digits: data.Digits, path: Path) -> tuple[float, float, float]:
    """Return the ELBO and the importance-weighted bound in bits/dim, and the seconds they took."""
    start = time.process_time()
    found = training.evaluate(loaded(digits, path), digits, split="test", progress=False)
    seconds = time.process_time() - start
    assert found.elbo is not None
    assert found.importance_weighted is not None
    bits = [each.bits_per_dim((1, 8, 8)).mean for each in (found.elbo, found.importance_weighted)]
    return bits[0], bits[1], seconds


def judged(samples: Tensor, classifier: Any, digits: data.Digits) -> tuple[float, Tensor, float]:
    """Return mean confidence, class shares and mean distance to the nearest training digit."""
    probabilities = torch.from_numpy(classifier.predict_proba(samples.flatten(1).numpy()))
    shares = torch.bincount(probabilities.argmax(1), minlength=10) / len(samples)
    known = digits.train.tensors[0].flatten(1) / 16
    nearest = torch.cdist(samples.flatten(1) / 16, known).amin(1).mean()
    return float(probabilities.amax(1).mean()), shares, float(nearest)


def compare_samplers(digits: data.Digits, path: Path, seed: int) -> None:
    model, classifier = loaded(digits, path), make_classifier(digits)
    choices: dict[str, dict[str, Any]] = {
        "ancestral, all steps": {},
        "DPM-Solver++, 20 steps": {"sampler": "dpm", "num_steps": 20},
        "DDIM, 20 steps": {"sampler": "ddim", "num_steps": 20},
        "Heun, 10 steps": {"sampler": "heun", "num_steps": 10},
        "PNDM, 20 steps": {"sampler": "pndm", "num_steps": 20},
        "ancestral, 20 steps": {"num_steps": 20},
    }
    first: tuple[float, Tensor, float] | None = None
    for name, options in choices.items():
        samples = torch.cat([model.sample(250, seed=seed + i, **options) for i in range(8)])
        confidence, shares, nearest = judged(samples, classifier, digits)
        first = first or (confidence, shares, nearest)
        apart = float((shares - first[1]).abs().sum() / 2)
        print(
            f"{name}: confidence {confidence:.4f} ({confidence - first[0]:+.4f}), class shares "
            f"{apart:.3f} apart, nearest training digit {nearest:.3f} ({nearest / first[2]:.3f})",
            flush=True,
        )
    exact = model.sample(NUM_STARTS, seed=seed, sampler="ddim", num_steps=FINE_STEPS)
    for name in ("dpm", "ddim", "heun", "pndm"):
        steps = 10 if name == "heun" else 20
        few = model.sample(NUM_STARTS, seed=seed, sampler=name, num_steps=steps)
        apart = float((few - exact).flatten(1).norm(dim=1).mean() / 16)
        print(f"{name}, {steps} steps: {apart:.4f} from {FINE_STEPS} steps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    stages = ["train", "score", "samples"]
    parser.add_argument("stages", nargs="*", default=stages[:2], choices=stages)
    parser.add_argument("--epochs", type=int, nargs="+", default=[58, 145])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "diffusion")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(exist_ok=True)
    digits = data.Digits()
    runs = [(epochs, seed) for epochs in arguments.epochs for seed in arguments.seeds]
    bounds: dict[int, list[tuple[float, float]]] = {epochs: [] for epochs in arguments.epochs}
    for stage in arguments.stages:
        for epochs, seed in runs:
            path = arguments.folder / f"vdm_{epochs}_{seed}.pt"
            name = f"{epochs} epochs, seed {seed}"
            if stage == "train":
                print(f"{name}: {train(digits, seed, epochs, path):.0f} s of steps", flush=True)
            elif stage == "samples":
                print(name)
                compare_samplers(digits, path, seed)
            else:
                elbo, weighted, cost = score(digits, path)
                bounds[epochs].append((elbo, weighted))
                found = f"importance-weighted {weighted:.4f}, ELBO {elbo:.4f} bits/dim"
                print(f"{name}: {found}; {cost:.0f} s of scoring", flush=True)
    for epochs, rows in bounds.items():
        if rows:
            elbo, weighted = map(statistics.mean, zip(*rows, strict=True))
            print(f"{epochs} epochs, mean: importance-weighted {weighted:.4f}, ELBO {elbo:.4f}")


if __name__ == "__main__":
    main()
