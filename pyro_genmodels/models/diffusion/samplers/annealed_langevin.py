"""Annealed Langevin dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pyro_genmodels._checks import check, check_choice, check_positive, is_integer
from pyro_genmodels._typing import Tensor
from pyro_genmodels.distributions import ReverseDiffusion
from pyro_genmodels.models.diffusion.samplers.base import (
    Move,
    Sampler,
    StepRule,
    estimate,
    noise_in,
)
from pyro_genmodels.nets import signal_and_noise


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    r"""Langevin steps at each noise level, after a step that leads there.

    .. math:: z \leftarrow z + \delta \, \nabla \log p_t(z) + \sqrt{2 \delta} \, n, \qquad
        \nabla \log p_t(z) = -\hat\epsilon / \sigma_t, \qquad \delta = 2 \rho^2 \sigma_t^2

    The ratio :math:`\rho` is that of drift to noise where the estimate has the norm of noise. The
    published corrector divides by the norms themselves, averaged over the batch, by which samples
    depend on each other; here no step depends on another example.

    Each step takes 1 + M evaluations, with M corrector steps: S(1 + M) in all. Without a predictor
    it is annealed Langevin dynamics alone, with SM evaluations.

    Args:
        corrector_steps: Number M of Langevin steps at each noise level.
        snr: Ratio :math:`\rho` of drift to noise in a Langevin step.
        predictor: What leads from one noise level to the next: a step of the ``"ancestral"``
            sampler, or ``"none"``, which scales the state alone.
        spacing: As of every :class:`Sampler`.
        carries_estimate: As of every :class:`Sampler`.

    Raises:
        ValueError: If a number is not positive or the predictor unknown.

    References:
        Song and Ermon (2019), Generative modeling by estimating gradients of the data
        distribution, algorithm 1. Song et al. (2021), Score-based generative modeling through
        stochastic differential equations, algorithm 3. https://arxiv.org/abs/2011.13456

    Example:
        >>> AnnealedLangevin(2, snr=0.1).corrector_steps
        2
    """

    corrector_steps: int = 1
    snr: float = 0.16
    predictor: Literal["ancestral", "none"] = "ancestral"

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a number is not positive or the predictor unknown."""
        super().__post_init__()
        steps = self.corrector_steps
        check(is_integer(steps), "corrector_steps", "be an integer", repr(steps))
        check_positive(corrector_steps=steps, snr=self.snr)
        check_choice("predictor", self.predictor, ("ancestral", "none"))

    @property
    def is_deterministic(self) -> bool:
        """False: each step draws noise."""
        return False

    def rule(self, chain: ReverseDiffusion) -> StepRule:
        """Return the rule: the predictor's step, and Langevin steps where it leads."""

        def step(z: Tensor, move: Move) -> Tensor:
            if self.predictor == "ancestral":
                z = chain.step_back(z, move.target.to(z.device), move.source.to(z.device))
            else:
                (before, _), (after, _) = map(signal_and_noise, (move.source, move.target))
                z = after / before * z
            for _ in range(self.corrector_steps):
                z = self.corrected(z, estimate(chain, z, move.target), move.target)
            return z

        return step

    def corrected(self, z: Tensor, x: Tensor, level: Tensor) -> Tensor:
        """Return states after one Langevin step.

        Args:
            z: States.
            x: Estimates of the data in them.
            level: Their noise level.
        """
        _, sigma = signal_and_noise(level)
        size = 2 * (self.snr * sigma) ** 2
        drift = -noise_in(z, x, level) / sigma
        return z + size * drift + (2 * size).sqrt() * torch.randn_like(z)
