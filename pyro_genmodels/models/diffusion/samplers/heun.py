"""Heun's method for the probability-flow ODE."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_genmodels._typing import Tensor
from pyro_genmodels.distributions import ReverseDiffusion
from pyro_genmodels.models.diffusion.samplers.base import (
    Move,
    Sampler,
    StepRule,
    data_in,
    estimate,
    noise_in,
    transfer,
)


@dataclass(frozen=True)
class Heun(Sampler):
    """Averages the estimates of the noise at both ends of a step.

    Of second order, with two evaluations per step but the last: 2S - 1 for S steps. Each step
    stands alone, so no size of the steps before matters.

    Args:
        spacing: As of every :class:`Sampler`.
        carries_estimate: As of every :class:`Sampler`.

    References:
        Karras et al. (2022), Elucidating the design space of diffusion-based generative models,
        algorithm 1. https://arxiv.org/abs/2206.00364

    Example:
        >>> Heun().is_deterministic
        True
    """

    def rule(self, chain: ReverseDiffusion) -> StepRule:
        """Return the rule: a step by the first estimate, and again by the mean of both."""

        def step(z: Tensor, move: Move) -> Tensor:
            x = estimate(chain, z, move.source)
            there = transfer(z, x, move)
            if move.is_last:
                return there
            first = noise_in(z, x, move.source)
            second = noise_in(there, estimate(chain, there, move.target), move.target)
            return transfer(z, data_in(z, (first + second) / 2, move.source), move)

        return step
