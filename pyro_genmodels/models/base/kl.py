"""The KL divergence of a posterior from its prior, unit by unit."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import kl_divergence

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal


def unit_kl(posterior: object, prior: object, z: Tensor) -> Float[Tensor, "*batch units"]:
    """Return the KL divergence by independent units, or in one column: exactly, or at the draw."""
    if isinstance(posterior, DiagonalNormal) and isinstance(prior, StandardNormal):
        spread = torch.addcmul(posterior.loc.square(), posterior.scale, posterior.scale)
        return 0.5 * (spread - 1) - posterior.log_scale
    return divergence(posterior, prior, z).unsqueeze(-1)


def divergence(posterior: Any, prior: Any, z: Tensor) -> Float[Tensor, "*batch"]:
    """Return the KL divergence where there is a form of it, elsewhere its estimate from a draw.

    Args:
        posterior: What ``z`` was drawn from.
        prior: The prior.
        z: The draw.
    """
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:
        return posterior.log_prob(z) - prior.log_prob(z)
