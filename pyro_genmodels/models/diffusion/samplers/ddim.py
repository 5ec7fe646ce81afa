"""Denoising diffusion implicit models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Tensor
from pyro_genmodels.distributions import ReverseDiffusion
from pyro_genmodels.models.diffusion.samplers.base import (
    Move,
    Sampler,
    StepRule,
    estimate,
    transfer,
)


@dataclass(frozen=True)
class DDIM(Sampler):
    r"""Goes to the state that estimates of data and noise make together, with noise or without.

    .. math:: z_s = \alpha_s \hat x + \sqrt{\sigma_s^2 - r^2} \, \hat\epsilon + r n, \qquad
        r = \eta \, \sigma_s \sqrt{1 - e^{g_s - g_t}}

    Without noise, :math:`\eta = 0`, it is the Euler method for the probability-flow ODE, of first
    order. With :math:`\eta = 1` it draws what :class:`Ancestral` does with the posterior's
    variance. One evaluation per step.

    Args:
        eta: Share of the posterior's deviation that is drawn anew in each step, from 0 to 1.
        spacing: As of every :class:`Sampler`.
        carries_estimate: As of every :class:`Sampler`.

    Raises:
        ValueError: If ``eta`` does not lie from 0 to 1.

    References:
        Song et al. (2021), Denoising diffusion implicit models, eq. 12 and 16.
        https://arxiv.org/abs/2010.02502

    Example:
        >>> DDIM().is_deterministic, DDIM(eta=0.5).is_deterministic
        (True, False)
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if ``eta`` does not lie from 0 to 1."""
        super().__post_init__()
        check(0 <= self.eta <= 1, "eta", "lie from 0 to 1", self.eta)

    @property
    def is_deterministic(self) -> bool:
        """Whether no noise is drawn."""
        return self.eta == 0

    def rule(self, chain: ReverseDiffusion) -> StepRule:
        """Return the rule: one evaluation, and a draw unless ``eta`` is zero."""

        def step(z: Tensor, move: Move) -> Tensor:
            x = estimate(chain, z, move.source)
            if self.eta == 0:
                return transfer(z, x, move)
            growth = move.source - move.target
            # log(1 - eta^2 c), which of the whole noise is known without cancellation.
            removed = -growth
            if self.eta < 1:
                removed = torch.log1p(self.eta**2 * torch.expm1(-growth))
            log_drawn = F.logsigmoid(move.target) + (-torch.expm1(-growth)).log()
            drawn = self.eta * (0.5 * log_drawn).exp()
            return transfer(z, x, move, removed) + drawn * torch.randn_like(z)

        return step
