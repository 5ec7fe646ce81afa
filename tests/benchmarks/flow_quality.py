"""How well flows fit in little time: ``python tests/benchmarks/flow_quality.py``.

Digits, by the bound under uniform dequantisation in bits per dimension, weights chosen by the
validation set, for several seeds; and problems whose optimum is known exactly, by the paired gap,
the mean of log p_true(x) - log p_model(x) over the same test points. Times are of training on the
given number of threads; an overloaded machine gives fewer steps and so worse figures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.distributions.transforms import AffineTransform, ReshapeTransform

from pyro_genmodels import data, metrics, models, training, transforms


class Problem(NamedTuple):
    """Data, a flow, how to train it, for how long, and how good it must be."""

    source: Callable[[], Any]
    model: Callable[[], models.GenerativeModel]
    settings: dict[str, Any]
    seconds: float
    bound: float
    per_dim: bool = False
    seeds: int = 1


COMMON: dict[str, Any] = {
    "schedule": "cosine",
    "schedule_by": "time",
    "max_epochs": 100_000,
    "num_samples": 0,
    "progress": False,
}


def sampled(distribution: Any, train: int = 200_000) -> data.Sampled:
    return data.Sampled(distribution, validation=2000, train=train, test=50_000)


def spline_digits() -> models.FlowModel:
    return models.spline_flow((1, 8, 8), num_levels=17)


def plane_splines() -> models.FlowModel:
    flow = transforms.NeuralSplineFlow(2, num_couplings=4, num_bins=16)
    return models.FlowModel((2,), flow)


def board_splines() -> models.FlowModel:
    """Splines of the unit square, which is then scaled to the board: no mass beyond its edges."""
    flow = transforms.NeuralSplineFlow(2, num_couplings=4, num_bins=16, domain="unit")
    board = AffineTransform(-2.0, 4.0, event_dim=1)
    return models.FlowModel((2,), [flow, board], base="uniform")


def linear_texture() -> models.FlowModel:
    flat, image = torch.Size([256]), torch.Size([1, 16, 16])
    linear = transforms.InvertibleLinear(256, event_dim=1)
    parts = [ReshapeTransform(image, flat), linear, ReshapeTransform(flat, image)]
    return models.FlowModel(image, parts)


def glow_texture() -> models.FlowModel:
    flow = transforms.Glow((1, 16, 16), num_scales=2, num_steps=6, width=32)
    return models.FlowModel((1, 16, 16), flow)


PLANE: dict[str, Any] = {"learning_rate": 2e-3, "batch_size": 512, "ema_decay": 0.998}

PROBLEMS = {
    "splines on digits, 60 s": Problem(data.Digits, spline_digits, {}, 60, 1.89, True, 3),
    "splines on digits, 150 s": Problem(data.Digits, spline_digits, {}, 150, 1.86, True, 3),
    "RealNVP on digits, 60 s": Problem(
        data.Digits, lambda: models.realnvp((1, 8, 8), num_levels=17), {}, 60, 2.04, True, 3
    ),
    "splines on eight Gaussians": Problem(
        lambda: sampled(data.EightGaussians()), plane_splines, PLANE, 60, 0.006
    ),
    "RealNVP on eight Gaussians": Problem(
        lambda: sampled(data.EightGaussians()),
        lambda: models.realnvp((2,), dropout=0.0, width=64),
        {"learning_rate": 5e-3, "batch_size": 256, "ema_decay": 0.999, "gradient_clip": 50.0},
        100,
        0.04,
    ),
    "splines on the checkerboard": Problem(
        lambda: sampled(data.Checkerboard()), board_splines, PLANE, 120, 0.02
    ),
    "Glow on the texture": Problem(
        lambda: sampled(data.GaussianTexture(16), 50_000),
        glow_texture,
        {"learning_rate": 2e-3, "batch_size": 128, "ema_decay": 0.99, "gradient_clip": 50.0},
        120,
        0.02,
        True,
    ),
    "linear flow on the texture": Problem(
        lambda: sampled(data.GaussianTexture(16), 50_000),
        linear_texture,
        {"learning_rate": 3e-3, "batch_size": 128, "ema_decay": 0.99},
        60,
        0.02,
        True,
    ),
}


def score(model: models.GenerativeModel, source: Any) -> float:
    """Bits per dimension on Digits, else the gap in nats."""
    if isinstance(source, data.Digits):
        return training.evaluate(model, source, num_particles=20).bits_per_dim.mean
    (x,) = source.test.tensors
    scored = metrics.elbo(model, x, num_particles=1, chunk_size=4096)
    return metrics.paired_gap(source.distribution.log_prob(x.float()).double(), scored).mean


def run(name: str, problem: Problem) -> None:
    source, scores, spent = problem.source(), [], 0.0
    for seed in range(problem.seeds):
        torch.manual_seed(seed)
        model = problem.model()
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            settings = {**COMMON, **problem.settings, "max_time": problem.seconds, "seed": seed}
            training.fit(model, source, run=f"{folder}/run", **settings)
        spent += time.perf_counter() - start
        scores.append(score(model, source))
    mean = statistics.mean(scores)
    if problem.per_dim and not isinstance(source, data.Digits):
        mean /= torch.Size(source.event_shape).numel()
    unit = (
        "bits/dim" if isinstance(source, data.Digits) else "nats/dim" if problem.per_dim else "nats"
    )
    every = ", ".join(f"{s:.4f}" for s in scores) if len(scores) > 1 else ""
    verdict = "holds" if mean <= problem.bound else "FALLS SHORT"
    row = (name, f"{mean:.4f} {unit}", f"{problem.bound:g}", verdict, every, f"{spent:.0f}")
    print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a problem's name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, help="for every problem")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| flow and data | result | bound | | each seed | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, problem in PROBLEMS.items():
        if arguments.only.lower() in name.lower():
            seeds = arguments.seeds or problem.seeds
            run(name, problem._replace(seeds=seeds))


if __name__ == "__main__":
    main()
