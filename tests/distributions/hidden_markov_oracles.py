"""What hidden Markov models are held to: sums over all paths, one by one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions
from pyro_genmodels.distributions.hidden_markov import partition

ALGORITHMS = ("loop", "blocks", "scan")


def use(patch: pytest.MonkeyPatch, algorithm: str | None) -> None:
    """Make every sum take an algorithm where it can, in the place of the fastest."""

    def chosen(logs: tuple[Tensor, ...], *, log: bool = False) -> str | None:
        shared = logs[1].shape[:2] == (1, 1)  # as blocks need it
        return algorithm if shared or algorithm != "blocks" else "scan"

    if algorithm is not None:
        patch.setattr(partition, "algorithm_for", chosen)


@dataclass(frozen=True)
class Paths:
    """All paths of one sequence, and the logarithms of their factors' products."""

    paths: Tensor
    nats: Tensor

    @property
    def log_partition(self) -> Tensor:
        return self.nats.logsumexp(0)

    @property
    def posterior(self) -> Tensor:
        return self.nats.softmax(0)

    def marginals(self, states: int) -> Tensor:
        one_hot = torch.nn.functional.one_hot(self.paths, states).to(self.nats)
        return (self.posterior[:, None, None] * one_hot).sum(0)

    def counts(self, states: int) -> Tensor:
        one_hot = torch.nn.functional.one_hot(self.paths, states).to(self.nats)
        pairs = torch.einsum("pti,ptj->pij", one_hot[:, :-1], one_hot[:, 1:])
        return (self.posterior[:, None, None] * pairs).sum(0)


def all_paths(initial: Tensor, transitions: Tensor, emission_logs: Tensor) -> Paths:
    """The paths of ``(K,)``, ``(T - 1, K, K)`` or ``(K, K)``, and ``(T, K)``."""
    frames, states = emission_logs.shape
    if transitions.dim() == 2:
        transitions = transitions.expand(frames - 1, -1, -1)
    paths = torch.tensor(list(itertools.product(range(states), repeat=frames)))
    nats = initial[paths[:, 0]] + emission_logs[torch.arange(frames), paths].sum(1)
    for t in range(frames - 1):
        nats = nats + transitions[t][paths[:, t], paths[:, t + 1]]
    return Paths(paths, nats)


def factors(
    batch: int = 4, frames: int = 5, states: int = 3, *, seed: int = 0, spread: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of random factors, of no particular scale."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((states,), (states, states), (batch, frames, states))
    initial, transition, emissions = (
        torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes
    )
    return initial, transition, spread * emissions


def left_to_right(states: int = 4) -> tuple[Tensor, Tensor]:
    """Logits that start in the first state, and stay or go on."""
    initial = torch.full((states,), -torch.inf, dtype=torch.float64)
    initial[0] = 0.0
    allowed = torch.eye(states) + torch.diag(torch.ones(states - 1), 1)
    return initial, allowed.double().log().log_softmax(-1)


def enumerate_all(part: Any, value: Tensor) -> Paths:
    """The paths of a distribution without a batch shape."""
    logs = part.components.log_probs(value)
    return all_paths(part.initial_logits, part.transition_logits, logs)


def law_of_enumeration(algorithm: str | None, patch: pytest.MonkeyPatch) -> None:
    """All that is asked of paths is what their sums, one by one, are."""
    use(patch, algorithm)
    initial, transition, emission_logs = factors()
    args = (initial, transition, emission_logs)
    expected = [all_paths(initial, transition, logs) for logs in emission_logs]
    close(distributions.log_partition(*args), [paths.log_partition for paths in expected])
    close(distributions.posterior_marginals(*args), [paths.marginals(3) for paths in expected])
    close(distributions.expected_counts(*args), [paths.counts(3) for paths in expected])
    states, nats = distributions.most_probable_path(*args)
    close(nats, [paths.nats.max() for paths in expected])
    assert torch.equal(states, torch.stack([p.paths[p.nats.argmax()] for p in expected]))


def close(actual: Tensor, expected: list[Tensor], tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual, torch.stack(expected), rtol=0.0, atol=tolerance)


def law_of_spread(algorithm: str | None, dtype: torch.dtype, patch: pytest.MonkeyPatch) -> None:
    """Emissions may differ by any number of nats where only bad states can be reached."""
    use(patch, algorithm)
    generator = torch.Generator().manual_seed(0)
    for spread in (30.0, 100.0, 200.0, 1e4):
        initial, transition = left_to_right()
        logs = spread * torch.rand(3, 7, 4, generator=generator, dtype=torch.float64)
        logs[0] = spread * torch.eye(4).double()[-1]  # the last state is best, all along
        args = [x.to(dtype).requires_grad_() for x in (initial, transition, logs)]
        nats = distributions.log_partition(*args)
        gradients = torch.autograd.grad(nats.sum(), args)
        limits = torch.finfo(dtype).eps
        for i, each in enumerate(args[2].detach().double()):
            paths = all_paths(initial, args[1].detach().double(), each)
            error = abs(float((nats[i] - paths.log_partition).detach()))
            assert error <= 40 * limits * spread, f"{error} nats off at a spread of {spread}"
            marginals = gradients[2][i].double()
            torch.testing.assert_close(marginals, paths.marginals(4), rtol=0, atol=1e5 * limits)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
