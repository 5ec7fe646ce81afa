"""The model's own chain, step by step."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_genmodels._typing import Tensor
from pyro_genmodels.distributions import ReverseDiffusion
from pyro_genmodels.models.diffusion.samplers.base import Move, Sampler, StepRule


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Draws each state from the model's own distribution given the one before.

    With all of the model's steps, evenly in time and without guidance, it draws from the model
    that ``log_weights`` scores. No other sampler does.

    Args:
        spacing: As of every :class:`Sampler`.
        carries_estimate: As of every :class:`Sampler`.

    References:
        Ho et al. (2020), Denoising diffusion probabilistic models, algorithm 2.
        https://arxiv.org/abs/2006.11239

    Example:
        >>> Ancestral(spacing="log_snr").is_deterministic
        False
    """

    @property
    def is_deterministic(self) -> bool:
        """False: each step draws noise."""
        return False

    def rule(self, chain: ReverseDiffusion) -> StepRule:
        """Return the rule: one evaluation and one draw."""

        def step(z: Tensor, move: Move) -> Tensor:
            return chain.step_back(z, move.target.to(z.device), move.source.to(z.device))

        return step
