"""What an iteration of EM costs, beside scikit-learn's: ``python tests/benchmarks/em_step.py``.

One iteration, expectation and maximisation, of Gaussian mixtures with equal parameters in float64
on one thread, both libraries interleaved in one process, so that a change of the machine's speed
meets both alike; what is printed is medians and their ratio. ``--fits`` prints instead what whole
fits of eight Gaussians reach: the spread over seeds of the starts on one data set, and over data
sets the gap to the source, which for the exact maximum of the likelihood is p / (2 N) on average.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pyro_genmodels import data
from pyro_genmodels.models.em import GaussianFamily, MixtureWeights, run_em

PEERS = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
NUM_ROWS = 10_000


def clusters(num_rows: int, size: int, number: int) -> Tensor:
    """Rows around as many centres as there are components."""
    centres = 3 * torch.randn(number, size, dtype=torch.float64)
    labels = torch.randint(number, (num_rows,))
    return centres[labels] + torch.randn(num_rows, size, dtype=torch.float64)


def iterations(
    x: Tensor, number: int, covariance: str
) -> tuple[Callable[[], object], Callable[[], object]]:
    """One iteration of ours, and one of scikit-learn's from the same parameters."""
    from sklearn.mixture import GaussianMixture

    values = x.numpy()
    peer = GaussianMixture(number, covariance_type=PEERS[covariance], max_iter=2, random_state=0)
    peer.fit(values)
    family, structure = GaussianFamily(x, number, covariance), MixtureWeights(number)
    family.set_moments(torch.as_tensor(peer.means_), torch.as_tensor(peer.covariances_))

    def ours() -> object:
        _, responsibilities = structure.expect(family.log_probs())
        family.maximise(responsibilities)
        structure.maximise()
        return family.log_prior()

    def theirs() -> None:
        _, log_responsibilities = peer._e_step(values)
        peer._m_step(values, log_responsibilities)

    return ours, theirs


def medians(runs: tuple[Callable[[], object], ...], repeats: int) -> list[float]:
    """Median seconds of each, interleaved, after a warm-up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for values, run in zip(seconds, runs, strict=True):
            start = time.perf_counter()
            run()
            if repeat:
                values.append(time.perf_counter() - start)
    return [statistics.median(values) for values in seconds]


def report_speed(sizes: list[tuple[int, int]], repeats: int) -> None:
    for size, number in sizes:
        x = clusters(NUM_ROWS, size, number)
        for covariance in PEERS:
            found = medians(iterations(x, number, covariance), repeats)
            own, peer = (1e3 * each for each in found)
            ratio = own / peer
            name = f"D={size} K={number} {covariance}"
            print(f"{name:24} {own:8.2f} ms, scikit-learn {peer:8.2f} ms, ratio {ratio:.2f}")


def fit(x: Tensor, covariance: str, seed: int) -> tuple[GaussianFamily, MixtureWeights, float]:
    """A fit of eight components, and its log-likelihood per row."""
    family, structure = GaussianFamily(x, 8, covariance), MixtureWeights(8)
    result = run_em(family, structure, seed=seed)
    return family, structure, result.log_likelihood / len(x)


def report_fits(num_data_sets: int, num_seeds: int) -> None:
    source = data.EightGaussians()
    population = source.sample((200_000,)).double()
    exact = source.log_prob(population)
    for covariance in PEERS:
        x = source.sample((NUM_ROWS,)).double()
        reached, seconds = [], []
        for seed in range(num_seeds):
            start = time.perf_counter()
            reached.append(fit(x, covariance, seed)[2])
            seconds.append(time.perf_counter() - start)
        spread = max(reached) - min(reached)
        gaps = []
        for _ in range(num_data_sets):
            family, structure, _ = fit(source.sample((NUM_ROWS,)).double(), covariance, 0)
            held_out = GaussianFamily(population, 8, covariance)
            held_out.set_moments(*family.moments())
            joint = held_out.log_probs() + structure.probabilities.log()
            gaps.append(float((exact - joint.logsumexp(1)).mean()))
        parameters = family.num_parameters + structure.num_parameters
        print(
            f"{covariance:10} spread over {num_seeds} seeds {spread:.1e} nats, seconds per fit "
            f"{statistics.median(seconds):.2f}; gap over {num_data_sets} data sets: mean "
            f"{np.mean(gaps):.5f} (theory {parameters / 2 / NUM_ROWS:.5f}), largest {max(gaps):.5f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--fits", action="store_true", help="eight Gaussians instead of times")
    parser.add_argument("--data-sets", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message=".*did not converge.*")
    if arguments.fits:
        report_fits(arguments.data_sets, arguments.seeds)
    else:
        report_speed([(2, 8), (8, 8), (16, 20), (64, 10)], arguments.repeats)


if __name__ == "__main__":
    main()
