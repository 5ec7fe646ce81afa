"""The schedule of the first diffusion models: noise added per step that grows linearly."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.nets.noise_schedules.base import NoiseSchedule


class LinearBeta(NoiseSchedule):
    r"""Variance of added noise that grows linearly over published steps.

    .. math:: \alpha_i^2 = \prod_{j \le i} (1 - \beta_j), \quad i = 1 \dots N

    Time 0 is the published step 1 and time 1 is step N, so a chain with ``num_steps = N - 1`` has
    the published noise levels. Between steps the level is interpolated linearly.

    Args:
        first: Variance :math:`\beta_1` that the first step adds.
        last: Variance :math:`\beta_N` that the last step adds.
        num_betas: Number N of published steps.

    Raises:
        ValueError: If a variance is not between 0 and 1, or there are fewer than two steps.

    References:
        Ho et al. (2020), Denoising diffusion probabilistic models.
        https://arxiv.org/abs/2006.11239

    Example:
        >>> [round(float(level), 2) for level in LinearBeta().ends]
        [-9.21, 10.12]
    """

    levels: Tensor

    def __init__(self, first: float = 1e-4, last: float = 0.02, *, num_betas: int = 1000) -> None:
        super().__init__()
        check_positive(first=first, last=last)
        check(max(first, last) < 1, "last", "be below 1", max(first, last))
        check(num_betas >= 2, "num_betas", "be at least 2", num_betas)
        self.register_derived("levels", partial(_levels, first, last, num_betas))

    def _level(self, time: Tensor) -> Tensor:
        place = time * (len(self.levels) - 1)
        below = place.detach().floor().clamp(0, len(self.levels) - 2).long()
        low, high = self.levels[below].to(time), self.levels[below + 1].to(time)
        return low + (high - low) * (place - below)


def _levels(first: float, last: float, num_betas: int) -> Tensor:
    betas = torch.linspace(first, last, num_betas, dtype=torch.float64)
    log_alpha2 = torch.log1p(-betas).cumsum(0)
    return (torch.log(-torch.expm1(log_alpha2)) - log_alpha2).to(torch.get_default_dtype())
