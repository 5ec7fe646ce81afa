"""Sums over all paths by products of probabilities that are scaled: fast where they are exact.

N sequences of T frames, K states. Transitions are ``(1 or N, 1 or T - 1, K, K)``, one for all
sequences or one each, for all frames or one each; time is the first dimension of all else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pyro_genmodels._typing import Bool, Float, Tensor
from pyro_genmodels.distributions.hidden_markov.blocks import FRAMES_UNSCALED, least

# All vectors of ``v[t + 1] = (v[t] @ transitions[t]) * weights[t]``; see :func:`.scan_vectors`.
Vectors = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Factors:
    """The factors of a path's probability, each scaled to a largest value of one.

    Attributes:
        initial: Factors of the first state.
        transitions: Factors of the transitions.
        emissions: Factors of the frames.
        log_scale: The logarithm of what all of them were divided by, for each sequence.
    """

    initial: Float[Tensor, "N K"]
    transitions: Float[Tensor, "B S K K"]
    emissions: Float[Tensor, "T N K"]
    log_scale: Float[Tensor, " N"]


@dataclass(frozen=True)
class Filtered:
    """What a pass over the frames finds.

    Attributes:
        states: Probability of each state given the frames so far.
        totals: Probability of each frame given those before it, of factors as scaled.
        whole: Which sequences have no sum that has underflowed.
    """

    states: Float[Tensor, "T N K"]
    totals: Float[Tensor, "T N 1"]
    whole: Bool[Tensor, " N"]


def factors_of(
    initial: Float[Tensor, "N K"],
    transitions: Float[Tensor, "B S K K"],
    emissions: Float[Tensor, "T N K"],
) -> Factors:
    """Return the factors whose logarithms these are."""
    initial, first = scaled_to_one(initial, (-1,))
    transitions, step = scaled_to_one(transitions, (-2, -1))
    frames = len(emissions)
    emissions, frame = scaled_to_one(emissions, (-1,))
    steps = step.sum((1, 2, 3)) * ((frames - 1) / max(step.shape[1], 1))
    log_scale = first.squeeze(-1) + steps + frame.sum((0, 2))
    return Factors(initial, transitions, emissions, log_scale)


def scaled_to_one(logs: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return exponentials over their largest along dimensions, and its logarithm."""
    largest = logs.amax(dims, keepdim=True)
    largest.masked_fill_(largest == -torch.inf, 0.0)
    contiguous = torch.empty(logs.shape, dtype=logs.dtype, device=logs.device)
    return torch.sub(logs, largest, out=contiguous).exp_(), largest


def is_positive(transitions: Float[Tensor, "B S K K"]) -> Bool[Tensor, ""]:
    """Return whether each state follows each other with more than rounding could lose.

    Then no loss lasts: a state whose probability underflows at a frame gets that of the others at
    the next, and no product of transitions has rows too far apart.
    """
    dtype = transitions.dtype
    return (transitions >= least(dtype) / torch.finfo(dtype).eps).all()


def forward_loop(factors: Factors) -> Filtered:
    """Filter frame by frame."""
    frames = factors.emissions
    states, divisors = torch.empty_like(frames), torch.ones_like(frames[..., :1])
    torch.mul(factors.initial, frames[0], out=states[0])
    steps = Steps(factors.transitions, len(frames))
    product, rows, weights = steps.product, steps.rows(states), steps.rows(frames)
    for t, matrix in enumerate(steps.matrices, 1):
        if t % FRAMES_UNSCALED == 0:
            torch.sum(states[t - 1], -1, keepdim=True, out=divisors[t - 1])
            states[t - 1].div_(divisors[t - 1])
        product(rows[t - 1], matrix, out=rows[t]).mul_(weights[t])
    return _normalized(states, divisors)


def _normalized(states: Tensor, divisors: Tensor) -> Filtered:
    """Divide by the sums what was divided at some frames only."""
    sums = states.sum(-1, keepdim=True)
    before = sums * divisors
    whole = (before >= least(states.dtype)).all(0).squeeze(-1)
    before[1:] /= sums[:-1]
    return Filtered(states.div_(sums), before, whole)


def forward_parallel(factors: Factors, vectors: Vectors) -> Filtered:
    """Filter all frames at once; transitions are positive."""
    frames = factors.emissions
    first = factors.initial * frames[0]
    total = first.sum(-1, keepdim=True)
    states, whole = vectors(first / total, factors.transitions, frames[1:], scaled=True)
    states = states / states.sum(-1, keepdim=True)
    later = (predicted(states, factors.transitions) * frames[1:]).sum(-1, keepdim=True)
    totals = torch.cat([total[None], later])
    return Filtered(states, totals, whole & (totals >= least(totals.dtype)).all(0).squeeze(-1))


def gains_of(
    weights: Float[Tensor, "T N K"],
    states: Float[Tensor, "T N K"],
    totals: Float[Tensor, "T N 1"],
    *,
    positive: bool,
) -> Float[Tensor, "T N K"]:
    """Return by what each frame changes the probability of each state.

    Args:
        weights: Factors of the frames.
        states: What a forward pass has found.
        totals: The same.
        positive: Whether the transitions are; if not, gains of unreachable states could overflow,
            and are zero.
    """
    gains = weights / totals
    return gains if positive else torch.where(states > 0, gains, 0.0)


def backward_loop(
    transitions: Float[Tensor, "B S K K"], gains: Float[Tensor, "T N K"]
) -> Float[Tensor, "T N K"]:
    """Return by what the frames to come change the probability of each state, frame by frame."""
    changes = torch.empty_like(gains)
    changes[-1] = 1.0
    steps = Steps(transitions.transpose(-1, -2), len(gains))
    rows, weights = steps.rows(changes), steps.rows(gains)
    product = torch.empty_like(rows[0])
    for t in reversed(range(1, len(rows))):
        torch.mul(rows[t], weights[t], out=product)
        steps.product(product, steps.matrices[t - 1], out=rows[t - 1])
    return changes


def backward_parallel(
    transitions: Float[Tensor, "B S K K"], gains: Float[Tensor, "T N K"], vectors: Vectors
) -> Float[Tensor, "T N K"]:
    """Return the same for all frames at once; transitions are positive.

    Changes times gains are the vectors of a pass over the frames in reverse. No scale is needed.
    """
    turned, reverse = transitions.transpose(-1, -2).flip(1), gains.flip(0)
    after, _ = vectors(reverse[0], turned, reverse[1:], scaled=False)
    return torch.cat([predicted(after, turned).flip(0), torch.ones_like(gains[:1])])


def predicted(
    states: Float[Tensor, "T N K"], transitions: Float[Tensor, "B S K K"]
) -> Float[Tensor, "U N K"]:
    """Return the probabilities of states one frame later, before that frame is seen."""
    if transitions.shape[0] == transitions.shape[1] == 1:
        return states[:-1] @ transitions[0, 0]
    by_sequence = states[:-1].transpose(0, 1)
    if transitions.shape[1] == 1:
        return (by_sequence @ transitions[:, 0]).transpose(0, 1)
    return (by_sequence.unsqueeze(-2) @ transitions).squeeze(-2).transpose(0, 1)


def is_exact(
    logs: tuple[Tensor, Tensor, Tensor], filtered: Filtered, *, positive: bool
) -> Bool[Tensor, " N"]:
    """Return which sequences lost nothing that matters to underflow.

    A sum that has underflowed has lost digits. Where some transitions are impossible, so has a
    state that is possible and whose probability has underflowed: what follows may leave nothing
    else. Frames that are impossible, or NaN, count as lost.

    Args:
        logs: The logarithms of the factors.
        filtered: What a forward pass has found.
        positive: Whether the transitions are.
    """
    if positive:
        return filtered.whole
    states = filtered.states
    initial, transitions, emissions = (x > -torch.inf for x in logs)
    reached = predicted((states > 0).to(states), transitions.to(states)) > 0
    possible = torch.cat([initial[None], reached]) & emissions
    lost = possible & (states < least(states.dtype) * states.shape[-1])
    return filtered.whole & ~lost.any(0).any(-1)


class Steps:
    """Products of rows with the transitions of each frame, as cheap as a step in Python can be.

    Attributes:
        matrices: Transitions out of each frame but the last, of all sequences or of each.
        product: The function that multiplies rows by them.
    """

    def __init__(self, transitions: Float[Tensor, "B S K K"], frames: int) -> None:
        self.shared = transitions.shape[0] == 1
        matrices = (transitions[0] if self.shared else transitions.transpose(0, 1)).unbind()
        self.matrices = matrices if len(matrices) == frames - 1 else matrices * (frames - 1)
        self.product = torch.mm if self.shared else torch.bmm

    def rows(self, of_frames: Float[Tensor, "T N K"]) -> tuple[Tensor, ...]:
        """Return views of each frame, as the product takes them."""
        return (of_frames if self.shared else of_frames.unsqueeze(2)).unbind()
