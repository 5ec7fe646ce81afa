"""How near training comes to a known optimum: ``python tests/benchmarks/known_optima.py``.

Three families on data whose log-probability is known exactly, at most ``--seconds`` of training
each. Printed is the paired gap, the mean of log p_true(x) - log p_model(x) over the same test
points, with its standard error, beside the bound that the project asks for. The VAE is scored by
its ELBO, the others by their exact likelihood.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from pyro_genmodels import data, metrics, models, training


class Problem(NamedTuple):
    """A family, data of known entropy, and how far apart they may end."""

    source: Callable[[], data.Sampled]
    model: Callable[[], models.GenerativeModel]
    settings: dict[str, Any]
    bound: float
    unit: str


# Epochs such that the learning rate has come down to zero within the time on two cores.
COMMON: dict[str, Any] = {
    "schedule": "cosine",
    "warmup_steps": 50,
    "ema_decay": 0.999,
    "gradient_clip": 50.0,
    "num_samples": 0,
    "progress": False,
}


def ising() -> data.Sampled:
    return data.Sampled(data.Ising(8, 8, beta=0.4406868), train=100_000, test=20_000)


PROBLEMS = {
    "PixelCNN on Ising 8x8, beta .4407": Problem(
        ising,
        lambda: models.pixelcnn((1, 8, 8), num_levels=2, dropout=0.0),
        {"learning_rate": 2e-3, "batch_size": 128, "max_epochs": 8},
        0.001,
        "bits/dim",
    ),
    "RealNVP on eight Gaussians": Problem(
        lambda: data.Sampled(data.EightGaussians(), train=100_000, test=20_000),
        lambda: models.realnvp((2,), dropout=0.0, width=64),
        {"learning_rate": 3e-3, "batch_size": 256, "max_epochs": 18, "ema_decay": 0.99},
        0.05,
        "nats",
    ),
    "linear VAE on pPCA, D=64, d=8": Problem(
        lambda: data.Sampled(data.PPCA(), train=100_000, test=20_000),
        lambda: models.VAE(
            (64,),
            latent_dim=8,
            network=models.VAENetwork(hidden=()),
            likelihood=models.GaussianLikelihood((64,), scale="shared"),
        ),
        {"learning_rate": 5e-3, "batch_size": 512, "max_epochs": 40},
        0.01,
        "nats",
    ),
}


def gap(model: models.GenerativeModel, source: data.Sampled) -> metrics.Estimate:
    """The paired gap in nats per example."""
    (x,) = source.test.tensors
    scored = metrics.elbo(model, x, num_particles=16, chunk_size=4096)
    return metrics.paired_gap(source.distribution.log_prob(x.float()).double(), scored)


def run(name: str, problem: Problem, seconds: float) -> None:
    torch.manual_seed(0)
    source, model = problem.source(), problem.model()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = {**COMMON, **problem.settings, "max_time": seconds}
        training.fit(model, source, run=f"{folder}/run", **settings)
    spent = time.perf_counter() - start
    nats = gap(model, source)
    per_dim = nats.bits_per_dim(source.event_shape)
    shown = per_dim if problem.unit == "bits/dim" else nats
    verdict = "holds" if shown.mean <= problem.bound else "FALLS SHORT"
    row = (
        name,
        f"{source.distribution.entropy().item():.3f}",
        f"{shown.mean:.5f} ± {shown.standard_error:.5f} {problem.unit}",
        f"{problem.bound:g}",
        verdict,
        f"{spent:.0f}",
    )
    print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of training, each")
    parser.add_argument("--only", default="", help="part of a problem's name")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| family and data | entropy (nats) | paired gap | bound | | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, problem in PROBLEMS.items():
        if arguments.only.lower() in name.lower():
            run(name, problem, arguments.seconds)


if __name__ == "__main__":
    main()
