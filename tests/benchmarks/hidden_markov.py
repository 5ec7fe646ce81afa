"""Time of hidden Markov models over hmmlearn's and Pyro's: ``tests/benchmarks/hidden_markov.py``.

Given the frames' log-probabilities in float64, on one thread and in one process, interleaved:
forward and backward (log-partition and all gradients) over hmmlearn's E-step (``_do_estep`` of its
scaled implementation: exponentials, both passes, posteriors, counts), at most 7, 0.7 and 0.25 at
the first three sizes; and Pyro's ``DiscreteHMM`` (its scan and the sums after it) over the forward
pass, at least 1 / 1.1 at all sizes and 150 at the third. Medians and least of processor time.

python tests/benchmarks/hidden_markov.py [--rounds 20]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from hmmlearn.base import BaseHMM
from pyro.distributions.hmm import _sequential_logmatmulexp
from torch import Tensor

from pyro_genmodels.distributions import log_partition

SIZES = ((1, 1000, 5), (32, 100, 20), (64, 100, 64), (256, 20, 3))


class Given(BaseHMM):
    """hmmlearn's model of frames whose log-probabilities are the data."""

    def _compute_likelihood(self, logs: np.ndarray) -> np.ndarray:
        return np.exp(logs)


def contestants(batch: int, frames: int, states: int) -> dict[str, Callable[[], object]]:
    """What is timed, on the same factors."""
    emissions = 2 * torch.randn(batch, frames, states, dtype=torch.float64)
    initial = torch.randn(states, dtype=torch.float64).log_softmax(-1)
    transition = torch.randn(states, states, dtype=torch.float64).log_softmax(-1)
    peer = Given(states, implementation="scaling")
    peer.startprob_, peer.transmat_ = initial.exp().numpy(), transition.exp().numpy()
    rows, lengths = emissions.flatten(0, 1).numpy(), [frames] * batch
    leaves = [x.clone().requires_grad_() for x in (initial, transition, emissions)]

    def pyro_forward() -> Tensor:
        product = _sequential_logmatmulexp(transition + emissions.unsqueeze(-2))
        return (initial + product.logsumexp(-1)).logsumexp(-1)

    return {
        "hmmlearn": lambda: peer._do_estep(rows, lengths),
        "both": lambda: torch.autograd.grad(log_partition(*leaves).sum(), leaves),
        "pyro": pyro_forward,
        "forward": lambda: log_partition(initial, transition, emissions),
    }


def seconds(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor time of each, one after the other in each round."""
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            start = time.process_time()
            part()
            if number > 0:
                taken[name].append(time.process_time() - start)
    return taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size in SIZES:
        rounds = options.rounds if size[-1] < 64 else max(3, options.rounds // 4)
        taken = seconds(contestants(*size), rounds)
        for name, of in (("median", statistics.median), ("least", min)):
            figure = {part: 1e3 * of(times) for part, times in taken.items()}
            both = figure["both"] / figure["hmmlearn"]
            forward = figure["pyro"] / figure["forward"]
            times = " ".join(f"{part} {value:.2f}" for part, value in figure.items())
            print(
                f"{size} {name}: {times} ms; over hmmlearn {both:.2f}, Pyro over it {forward:.2f}"
            )
