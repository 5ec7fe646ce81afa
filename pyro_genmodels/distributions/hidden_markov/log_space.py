"""Sums over all paths in log space: exact at any spread of the factors, and differentiable.

Shapes as in :mod:`.scaled`: N sequences of T frames, K states; transitions ``(1 or N, 1 or T - 1,
K, K)``; time is the first dimension of what is returned.
"""

from __future__ import annotations

import torch

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.hidden_markov.scan import all_products


def log_sum(x: Tensor, dim: int) -> Tensor:
    """Return ``logsumexp`` whose gradients, of any order, are zero, not NaN, at minus infinity."""
    largest = x.detach().amax(dim, keepdim=True)
    largest = torch.where(largest == -torch.inf, torch.zeros_like(largest), largest)
    total = (x - largest).exp().sum(dim)
    none = total == 0
    nats = torch.where(none, torch.ones_like(total), total).log() + largest.squeeze(dim)
    return torch.where(none, torch.full_like(nats, -torch.inf), nats)


def log_product(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix product of matrices of logarithms."""
    return log_sum(left.unsqueeze(-1) + right.unsqueeze(-3), -2)


def log_forward(
    initial: Float[Tensor, "N K"],
    transitions: Float[Tensor, "B S K K"],
    emissions: Float[Tensor, "T N K"],
    *,
    scan: bool = False,
) -> Float[Tensor, "T N K"]:
    """Return the log-probability of the frames so far together with the present state."""
    first = initial + emissions[0]
    if scan:
        matrices = transitions + emissions[1:].transpose(0, 1).unsqueeze(-2)
        return all_products(first.unsqueeze(1), matrices, log_product).transpose(0, 1)
    rows = [first]
    for t in range(1, len(emissions)):
        rows.append(log_sum(rows[-1].unsqueeze(-1) + at(transitions, t - 1), -2) + emissions[t])
    return torch.stack(rows)


def log_backward(
    transitions: Float[Tensor, "B S K K"],
    emissions: Float[Tensor, "T N K"],
    *,
    scan: bool = False,
) -> Float[Tensor, "T N K"]:
    """Return the log-probability of the frames to come given the present state."""
    last = torch.zeros_like(emissions[0])
    if scan:
        matrices = transitions + emissions[1:].transpose(0, 1).unsqueeze(-2)
        turned = matrices.flip(1).transpose(-1, -2)
        return all_products(last.unsqueeze(1), turned, log_product).flip(1).transpose(0, 1)
    rows = [last]
    for t in reversed(range(1, len(emissions))):
        rows.append(log_sum(at(transitions, t - 1) + (emissions[t] + rows[-1]).unsqueeze(-2), -1))
    return torch.stack(rows[::-1])


def log_posterior(
    initial: Float[Tensor, "N K"],
    transitions: Float[Tensor, "B S K K"],
    emissions: Float[Tensor, "T N K"],
    *,
    scan: bool = False,
) -> tuple[Float[Tensor, "T N K"], list[Float[Tensor, "N K K"]]]:
    """Return the probabilities of each state and each pair of successive ones, given the frames.

    They are zero for frames that are impossible, and differentiable.
    """
    forward = log_forward(initial, transitions, emissions, scan=scan)
    backward = log_backward(transitions, emissions, scan=scan)
    total = log_sum(forward[-1], -1)
    total = torch.where(total == -torch.inf, torch.zeros_like(total), total)[:, None]
    marginals = (forward + backward - total).exp()
    after = emissions + backward - total
    pairs = [
        (forward[t].unsqueeze(-1) + at(transitions, t) + after[t + 1].unsqueeze(-2)).exp()
        for t in range(len(emissions) - 1)
    ]
    return marginals, pairs


def at(transitions: Float[Tensor, "B S K K"], t: int) -> Float[Tensor, "B K K"]:
    """Return the transitions out of frame ``t``."""
    return transitions[:, t if transitions.shape[1] > 1 else 0]
