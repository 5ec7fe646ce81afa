"""The KL divergence of a posterior from its prior, unit by unit."""

from __future__ import annotations

import torch
from torch.distributions import kl_divergence

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal


def unit_kl(posterior: object, prior: object, z: Tensor) -> Float[Tensor, "*batch units"]:
    """Return the KL divergence by independent units, or in one column: exactly, or at the draw."""
    if isinstance(posterior, DiagonalNormal) and isinstance(prior, StandardNormal):
        spread = torch.addcmul(posterior.loc.square(), posterior.scale, posterior.scale)
        units: Tensor = 0.5 * (spread - 1) - posterior.log_scale
        return units
    try:
        nats: Tensor = kl_divergence(posterior, prior)  # type: ignore[arg-type]
    except NotImplementedError:
        nats = posterior.log_prob(z) - prior.log_prob(z)  # type: ignore[attr-defined]
    return nats.unsqueeze(-1)
