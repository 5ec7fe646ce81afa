"""Saddles of the likelihood of labels: components that are alike, or have no rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from pyro_genmodels._typing import Float, Int, Tensor

_ALIKE = 0.99  # cosine of the angle between two components' responsibilities
_EMPTY = 1e-6  # rows


class Departure(NamedTuple):
    """Responsibilities that leave a saddle, and the components that had no rows."""

    responsibilities: Float[Tensor, "N K"]
    empty: Int[Tensor, " n"]


def leave_saddle(
    responsibilities: Float[Tensor, "N K"],
    log_probs: Float[Tensor, "N K"],
    other_start: Callable[[], Float[Tensor, "N K"]],
) -> Departure | None:
    """Return responsibilities that lead away from a saddle, or None where there is none.

    Components whose responsibilities are proportional stay so for ever: their rows are parted among
    them as another start would, and not at random, from where they would come back for a while. A
    component without rows gets those explained worst.

    Args:
        responsibilities: Responsibilities times weights.
        log_probs: Log-probabilities of the rows under each component.
        other_start: Returns such log-probabilities at another start.
    """
    counts = responsibilities.sum(0)
    filled = counts > _EMPTY
    groups = _groups_alike(responsibilities.mT, filled)
    empty = (~filled).nonzero()[:, 0]
    if not groups and not len(empty):
        return None
    changed = responsibilities.clone()
    scores = other_start() if groups else log_probs
    for group in groups:
        _part(changed, group, scores)
    if len(empty):
        _give_worst_explained(changed, log_probs[:, filled].amax(1), empty)
    return Departure(changed, empty)


def _groups_alike(shares: Tensor, filled: Tensor) -> list[Tensor]:
    """Return sets of components whose responsibilities are nearly proportional."""
    products = shares @ shares.mT
    lengths = products.diagonal().sqrt().clamp_min(1e-300)
    alike = products / lengths / lengths[:, None] > _ALIKE
    alike &= filled & filled[:, None]
    groups, seen = [], torch.zeros_like(filled)
    for k in range(len(shares)):
        group = (alike[k] & ~seen).nonzero()[:, 0]
        if not bool(seen[k]) and len(group) > 1:
            groups.append(group)
            seen[group] = True
    return groups


def _part(shares: Tensor, group: Tensor, scores: Tensor) -> None:
    """Give each row's share in a group of components to one of them."""
    total = shares[:, group].sum(1, keepdim=True)
    chosen = scores[:, group].argmax(1, keepdim=True)
    parted = torch.zeros_like(shares[:, group]).scatter_(1, chosen, total)
    shares[:, group] = parted


def _give_worst_explained(shares: Tensor, nats: Tensor, empty: Tensor) -> None:
    """Give empty components the rows of the lowest log-probability, half an equal share each."""
    order = nats.argsort(stable=True)
    empty = empty[: len(order)]
    weights = shares.sum(1)[order]
    portion = 0.5 * weights.sum() / shares.shape[1]
    number = int((weights.cumsum(0) <= portion * len(empty)).sum().clamp_min(len(empty)))
    worst = order[:number]
    receiver = empty[torch.arange(number, device=empty.device) % len(empty)]
    given = shares[worst].sum(1)
    shares[worst] = 0.0
    shares[worst, receiver] = given
