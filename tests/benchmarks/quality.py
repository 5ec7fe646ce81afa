"""Problems with a bound: train for a given time, score, print a row of a table.

Data sets by bits per dimension, weights chosen by the validation set, for several seeds; problems
whose optimum is known exactly by the paired gap, the mean of log p_true(x) - log p_model(x) over
the same test points. Times are of training on the given number of threads; an overloaded machine
gives fewer steps and so worse figures.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from pyro_genmodels import data, metrics, models, training
from pyro_genmodels.training.engine import callbacks

COMMON: dict[str, Any] = {
    "schedule": "cosine",
    "schedule_by": "time",
    "max_epochs": 100_000,
    "num_samples": 0,
    "progress": False,
}


class Problem(NamedTuple):
    """Data, a model, how to train it, for how long, and how good it must be.

    The unit of a gap is "nats", "nats/dim" or "bits/dim"; data sets are always in bits/dim. Latent
    variables are scored by the importance-weighted bound with so many particles.
    """

    source: Callable[[], Any]
    model: Callable[[], models.GenerativeModel]
    settings: dict[str, Any]
    seconds: float
    bound: float = math.inf
    unit: str = "bits/dim"
    seeds: int = 1
    first_seed: int = 0
    particles: int | None = None


def sampled(distribution: Any, train: int = 200_000, test: int = 50_000) -> data.Sampled:
    """Return data drawn from a distribution."""
    return data.Sampled(distribution, validation=2000, train=train, test=test)


def score(problem: Problem, model: models.GenerativeModel, source: Any) -> metrics.Estimate:
    """Return bits per dimension of a data set, else the paired gap in the problem's unit."""
    if not isinstance(source, data.Sampled):
        particles = problem.particles or (20 if isinstance(model, models.FlowModel) else 1)
        return training.evaluate(model, source, num_particles=particles).bits_per_dim
    (x,) = source.test.tensors
    particles = problem.particles or 1
    scored = metrics.importance_weighted_bound(model, x, num_particles=particles, chunk_size=1024)
    true = torch.cat([source.distribution.log_prob(part.float()) for part in x.split(1024)])
    gap = metrics.paired_gap(true.double(), scored)
    size = torch.Size(source.event_shape).numel()
    unit = {"nats": 1, "nats/dim": size, "bits/dim": size * math.log(2)}[problem.unit]
    return metrics.Estimate(gap.mean / unit, gap.standard_error / unit, gap.n)


def run(name: str, problem: Problem) -> float:
    """Train, score, print one row and return the mean score."""
    source, spent = problem.source(), 0.0
    scores: list[metrics.Estimate] = []
    for seed in range(problem.first_seed, problem.first_seed + problem.seeds):
        torch.manual_seed(seed)
        model = problem.model()
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            settings = {**COMMON, **problem.settings, "max_time": problem.seconds, "seed": seed}
            training.fit(model, source, run=f"{folder}/run", **settings)
        spent += time.perf_counter() - start
        scores.append(score(problem, model, source))
    mean = statistics.mean(s.mean for s in scores)
    every = ", ".join(f"{s.mean:.4f} ± {s.standard_error:.4f}" for s in scores)
    verdict = "holds" if mean <= problem.bound else "FALLS SHORT"
    bound, verdict = (f"{problem.bound:g}", verdict) if problem.bound < math.inf else ("", "")
    digits = 5 if abs(mean) < 0.01 else 4
    row = (name, f"{mean:.{digits}f} {problem.unit}", bound, verdict, every, f"{spent:.0f}")
    print(f"| {' | '.join(row)} |", flush=True)
    return mean


def main(
    problems: Mapping[str, Problem], description: str | None, words: Sequence[str] | None = None
) -> dict[str, float]:
    """Run the problems that the command line, or its words, ask for, and return their scores."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", default="", help="what problems' names hold, a pattern")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, help="for every problem")
    parser.add_argument("--first_seed", type=int, help="where the seeds begin, 0 by default")
    parser.add_argument("--seconds", type=float, help="of training, for every problem")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a busy machine"
    )
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    if arguments.clock == "cpu":
        # The trainer's clock: beside other work two minutes of the wall's are few steps.
        callbacks.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
    print("| model and data | result | bound | | each seed | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    options = ("seeds", "first_seed", "seconds")
    given = {k: v for k, v in vars(arguments).items() if k in options and v}
    return {
        name: run(name, problem._replace(**given))
        for name, problem in problems.items()
        if re.search(arguments.only, name, re.IGNORECASE)
    }
