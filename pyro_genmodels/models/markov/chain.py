"""The Markov chain of states in expectation-maximisation: Baum-Welch's half without emissions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from pyro_genmodels._typing import Bool, Float, Int, Tensor
from pyro_genmodels.distributions.hidden_markov import log_partition
from pyro_genmodels.models.em.base import LatentStructure

Probabilities = tuple[Tensor, Tensor]

_STAYING = 0.5  # of the rows that a start draws


class Chain(LatentStructure):
    r"""A chain's initial and transition probabilities, and their maximum given the frames.

    What is expected of states and transitions are gradients of the log-likelihood:

    .. math:: \gamma_{tk} = \frac{\partial \log Z}{\partial \log p(x_t \mid k)}, \quad
        n_{ij} = \frac{\partial \log Z}{\partial \log A_{ij}}, \quad
        A_{ij} = \frac{n_{ij} + \alpha - 1}{\sum_k (n_{ik} + \alpha - 1)}

    Args:
        present: Which frames of the sequences are observed, ``(N, T)``; a row of the family's data
            each, in this order.
        starts: Which states may be the first, ``(K,)``.
        allowed: Which state may follow which, ``(K, K)``.
        learns_initial: Whether the distribution of the first state is fitted.
        weights: Weight of each sequence, ``(N,)``; one by default.
        concentration: :math:`\alpha` of a symmetric Dirichlet prior of the first state and of each
            row, over what the topology allows: :math:`\alpha - 1` pseudo-counts; 1 for none.
        read: Returns the model's probabilities ``(K,)`` and ``(K, K)``.
        write: Sets them.

    References:
        Baum et al. (1970), A maximization technique occurring in the statistical analysis of
        probabilistic functions of Markov chains.
    """

    def __init__(
        self,
        present: Bool[Tensor, "N T"],
        starts: Bool[Tensor, " K"],
        allowed: Bool[Tensor, "K K"],
        *,
        learns_initial: bool,
        weights: Float[Tensor, " N"] | None = None,
        concentration: float = 1.0,
        read: Callable[[], Probabilities],
        write: Callable[[Tensor, Tensor], None],
    ) -> None:
        self.present, self.starts, self.allowed = present, starts, allowed
        self.learns_initial, self.weights = learns_initial, weights
        self.concentration, self._read, self._write = concentration, read, write
        later = present.flip(1).cumsum(1).flip(1)[:, 1:]
        self._ended = later == 0
        self.initial = _uniform(starts)
        self.transition = _uniform(allowed)
        self._counts: Probabilities = self.initial, self.transition

    def start(self, generator: torch.Generator) -> None:
        """Draw each row at random, between staying and any transition that is allowed."""
        size = self.allowed.shape
        drawn = torch.empty(size, dtype=torch.float64).exponential_(generator=generator)
        drawn = drawn.to(self.allowed.device) * self.allowed
        stay = torch.eye(size[0], dtype=torch.float64, device=drawn.device) * self.allowed
        drawn = drawn / drawn.sum(-1, keepdim=True).clamp_min(1e-300)
        self.transition = _normalized(drawn + _STAYING / (1 - _STAYING) * stay, self.allowed)
        self.initial = _uniform(self.starts)

    def read(self) -> None:
        """Set the probabilities to the model's."""
        initial, transition = self._read()
        self.initial, self.transition = initial.double(), transition.double()

    def expect(self, log_probs: Float[Tensor, "N K"]) -> tuple[float, Float[Tensor, "N K"]]:
        """Return the log-likelihood and the probability of each state of each observed frame.

        Args:
            log_probs: Log-probability of each observed frame under each state.
        """
        emitted = log_probs.new_zeros(*self.present.shape, len(self.starts))
        emitted[self.present] = log_probs
        logs = [self.initial.log(), self.transition.log(), emitted]
        logs = [each.detach().requires_grad_() for each in logs]
        with torch.enable_grad():
            nats = log_partition(*logs)
            total = nats.sum() if self.weights is None else (self.weights * nats).sum()
        initial, transition, marginals = torch.autograd.grad(total, logs)
        # Transitions after a sequence has ended tell nothing, and would slow the ascent.
        visits = marginals[:, :-1][self._ended].sum(0)
        self._counts = initial, (transition - visits.unsqueeze(-1) * self.transition).clamp_min(0)
        return float(total.detach()), marginals[self.present]

    def maximise(self) -> None:
        """Set the probabilities to their maximum given the last expectations."""
        initial, transition = self._counts
        pseudo = self.concentration - 1
        if self.learns_initial:
            self.initial = _normalized(initial + pseudo * self.starts, self.starts, self.initial)
        counts = transition + pseudo * self.allowed
        self.transition = _normalized(counts, self.allowed, self.transition)

    def revive(self, labels: Int[Tensor, " n"]) -> None:
        """Let every state that may be followed by one of these be so with an equal share.

        Args:
            labels: States that no frame is in.
        """
        empty = torch.zeros_like(self.starts)
        empty[labels] = True
        self.transition = _with_share(self.transition, self.allowed, empty)
        if self.learns_initial:
            self.initial = _with_share(self.initial, self.starts, empty)

    def log_prior(self) -> float:
        """Return the log-density of the Dirichlet priors, in nats."""
        if self.concentration == 1:
            return 0.0
        rows = [(self.transition[i], self.allowed[i]) for i in range(len(self.starts))]
        rows += [(self.initial, self.starts)] if self.learns_initial else []
        return sum(_dirichlet(row, kept, self.concentration) for row, kept in rows)

    @property
    def num_parameters(self) -> int:
        """Number of free probabilities."""
        first = int(self.starts.sum()) - 1 if self.learns_initial else 0
        return first + int((self.allowed.sum(-1) - 1).clamp_min(0).sum())

    def state(self) -> dict[str, Tensor]:
        """Return the probabilities, for :meth:`load`."""
        return {"initial": self.initial.clone(), "transition": self.transition.clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Set the probabilities to those that :meth:`state` returned."""
        self.initial, self.transition = state["initial"].clone(), state["transition"].clone()

    def write(self) -> None:
        """Copy the probabilities into the model."""
        self._write(self.initial, self.transition)


def _uniform(kept: Tensor) -> Tensor:
    return _normalized(kept.double(), kept)


def _normalized(counts: Tensor, kept: Tensor, before: Tensor | None = None) -> Tensor:
    """Return rows that sum to one; of a state that is never left they stay, or are uniform."""
    total = counts.sum(-1, keepdim=True)
    instead = kept.double() / kept.sum(-1, keepdim=True).clamp_min(1) if before is None else before
    return torch.where(total > 0, counts / torch.where(total > 0, total, 1.0), instead)


def _with_share(rows: Tensor, kept: Tensor, states: Tensor) -> Tensor:
    """Return rows in which some states have at least an equal share of what is allowed."""
    share = (kept & states) / kept.sum(-1, keepdim=True).clamp_min(1)
    raised = torch.maximum(rows, share.to(rows))
    return raised / raised.sum(-1, keepdim=True)


def _dirichlet(row: Tensor, kept: Tensor, concentration: float) -> float:
    size = int(kept.sum())
    if size == 0:
        return 0.0
    constant = math.lgamma(size * concentration) - size * math.lgamma(concentration)
    ones = torch.full_like(row[kept], concentration - 1)
    return constant + float(torch.special.xlogy(ones, row[kept]).sum())
