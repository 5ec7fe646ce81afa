"""Score matching and MALA: ``python tests/benchmarks/score_matching.py``.

The first table is the time of a loss and its gradient, by the dimension of the data, of a score
network with two hidden layers of 128 units, at batch 128, with its ratio to the same network's
mean squared output. The second is effective samples per second of kernels on a
Gaussian with independent coordinates whose scales go from 0.5 to 2, after warm-up: of the
coordinate that mixes worst. The machine's speed meets all alike: losses are interleaved, kernels
take turns. ``--clock cpu`` counts the thread's own time, for a machine with other work.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import HMC, MCMC, NUTS
from pyro.ops.stats import effective_sample_size
from torch import Tensor, nn

from pyro_genmodels import mcmc, models, nets

WARMUP = 2000  # MALA's samples are so correlated that shorter windows give no mass matrix
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}


def losses(dimension: int) -> dict[str, nn.Module | Callable[[Tensor], Tensor]]:
    options: dict[str, Any] = {"hidden": (128, 128), "activation": "silu"}
    net = nets.MLP(dimension, dimension, **options)
    energy = nets.EnergyGradient(nets.MLP(dimension, 1, **options))
    return {
        "network": lambda x: net(x).square().sum(-1),
        "denoising": models.DenoisingScoreMatching(net, 0.1),
        "denoising, energy": models.DenoisingScoreMatching(energy, 0.1),
        "sliced": models.SlicedScoreMatching(net),
        "sliced, energy": models.SlicedScoreMatching(energy),
        "exact": models.ExactScoreMatching(net),
        "exact, energy": models.ExactScoreMatching(energy),
    }


def time_losses(dimensions: list[int], repetitions: int, clock: Callable[[], float]) -> None:
    for dimension in dimensions:
        x, found = torch.randn(128, dimension), losses(dimension)
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for repetition in range(repetitions + 1):
            for name, loss in found.items():
                start = clock()
                loss(x).mean().backward()
                if repetition:  # the first one warms up
                    seconds[name].append(clock() - start)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        for name, median in medians.items():
            ratio = median / medians["network"]
            print(
                f"D = {dimension:3d}  {name:18s} {1e3 * median:8.2f} ms  {ratio:6.1f}", flush=True
            )


class Potential:
    """Potential energy of a Gaussian, which counts its evaluations."""

    def __init__(self, dimension: int) -> None:
        self.precision = torch.linspace(0.5, 2, dimension).pow(-2)
        self.count = 0

    def __call__(self, z: dict[str, Tensor]) -> Tensor:
        self.count += 1
        return 0.5 * (self.precision * z["x"].square()).sum()


KERNELS: dict[str, Callable[..., Any]] = {
    "MALA": mcmc.MALA,
    # The default length, 2 pi, is a whole period of a Gaussian: it comes back to where it began.
    "HMC": partial(HMC, trajectory_length=math.pi / 2),
    "NUTS": NUTS,
}


def effective(
    name: str, dimension: int, num_samples: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Effective samples per second, and per thousand evaluations of the gradient."""
    potential, start = Potential(dimension), {"x": torch.randn(dimension)}
    marks: list[tuple[float, int]] = []
    chain = MCMC(
        KERNELS[name](potential_fn=potential),
        num_samples,
        WARMUP,
        initial_params=start,
        hook_fn=lambda *_: marks.append((clock(), potential.count)),
        disable_progbar=True,
    )
    chain.run()
    size = effective_sample_size(chain.get_samples()["x"][None]).min().item()
    (begun, before), (ended, after) = marks[WARMUP - 1], marks[-1]
    return size / (ended - begun), 1e3 * size / (after - before)


def time_kernels(
    dimensions: list[int], num_samples: int, seeds: int, clock: Callable[[], float]
) -> None:
    for dimension in dimensions:
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in KERNELS}
        for seed in range(seeds):
            for name, row in rows.items():
                pyro.set_rng_seed(seed)
                row.append(effective(name, dimension, num_samples, clock))
        for name, row in rows.items():
            per_second, per_evaluation = map(statistics.median, zip(*row, strict=True))
            figures = f"{per_second:7.0f} effective samples/s, {per_evaluation:5.0f}"
            print(f"D = {dimension:3d}  {name:4s} {figures} per 1000 gradients", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 10, 50, 100])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--num_samples", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = CLOCKS[arguments.clock]
    time_losses(arguments.dimensions, arguments.repetitions, clock)
    time_kernels(arguments.dimensions, arguments.num_samples, arguments.seeds, clock)


if __name__ == "__main__":
    main()
