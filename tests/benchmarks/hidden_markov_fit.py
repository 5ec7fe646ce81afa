"""Baum-Welch on ten data sets: gap to the truth and time, against hmmlearn's with as many starts.

Run from the repository: ``python tests/benchmarks/hidden_markov_fit.py`` (minutes; needs hmmlearn).
A gap is the truth's mean log-probability of fresh sequences less the model's; theory expects
p / (2 N) nats per sequence of p parameters fitted to N, and the bar is 1.5 times that. Times are of
the processor, in one thread. Here a start ends when at most ``--tol`` nats per frame, of 6000, are
left to gain by extrapolation; hmmlearn's when an iteration gains less than .01 nats of all frames,
which is about as near to the maximum. Tables have the models' default prior here, none there.
"""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

import torch

from pyro_genmodels import data, models
from pyro_genmodels._checks import require

SIZES = ((4, 8), (8, 16))
LENGTH, TRAIN, TEST = 60, 100, 20_000


def peer_fit(x: torch.Tensor, num_states: int, num_starts: int) -> tuple[float, float]:
    """Seconds, and the best log-likelihood, of hmmlearn."""
    hmm: Any = require("hmmlearn.hmm", extra="dev")
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    rows, lengths = x.long().reshape(-1, 1).numpy(), [LENGTH] * len(x)
    begun, best = time.process_time(), -float("inf")
    for seed in range(num_starts):
        peer = hmm.CategoricalHMM(num_states, n_iter=1000, tol=1e-2, random_state=seed)
        peer.fit(rows, lengths)
        best = max(best, peer.score(rows, lengths))
    return time.process_time() - begun, best


def main() -> None:
    """Print a line for each data set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--num_starts", type=int, default=5)
    parser.add_argument("--data_sets", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="leave out hmmlearn, the slower part")
    parser.add_argument("--tol", type=float, default=1e-6, help="nats per frame left to gain")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for num_states, num_levels in SIZES:
        for seed in range(arguments.data_sets):
            sizes = {"num_states": num_states, "num_levels": num_levels}
            truth = data.HiddenMarkov(LENGTH, seed=seed, **sizes)
            torch.manual_seed(seed)
            x, test = truth.sample((TRAIN,)), truth.sample((TEST,)).double()
            model = models.hidden_markov((LENGTH,), num_states, num_levels=num_levels).double()
            begun = time.process_time()
            options = {"num_starts": arguments.num_starts, "tol": arguments.tol}
            result = model.fit_em(x, **options)
            own = time.process_time() - begun
            with torch.no_grad():
                gap = float((truth.log_prob(test) - model.log_prob(test)).mean())
            bar = 1.5 * result.num_parameters / (2 * TRAIN)
            print(
                f"K={num_states} M={num_levels} seed {seed}: gap {gap:.3f} (bar {bar:.3f}), "
                f"log-likelihood {result.log_likelihood:.2f} in {own:.2f} s",
                flush=True,
            )
            if not arguments.alone:
                peer, likelihood = peer_fit(x, num_states, arguments.num_starts)
                print(f"    hmmlearn: log-likelihood {likelihood:.2f} in {peer:.2f} s", flush=True)


if __name__ == "__main__":
    main()
