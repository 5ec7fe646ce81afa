"""The base of logistic densities that are cut into levels."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._typing import Float, Tensor


class DiscretizedDistribution(TorchDistribution, ABC):
    """Integers 0 to K - 1, by a density on [-1, 1].

    Attributes:
        num_levels: Number of levels K.
        loc: Locations, whose dtype and device draws have.
    """

    num_levels: int
    loc: Tensor
    has_enumerate_support = True

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """Integers from 0 to ``num_levels - 1``."""
        return constraints.integer_interval(0, self.num_levels - 1)

    def enumerate_support(self, expand: bool = True) -> Float[Tensor, "*shape"]:
        """Return every level, along a new leading dimension."""
        levels = torch.arange(self.num_levels, dtype=self.loc.dtype, device=self.loc.device)
        levels = levels.reshape(-1, *[1] * len(self.batch_shape))
        return levels.expand(-1, *self.batch_shape) if expand else levels

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        mass = self.log_prob(self.enumerate_support(expand=False)).exp()
        return torch.special.entr(mass).sum(0)

    def _logistic_levels(self, loc: Tensor, scale: Tensor, shape: torch.Size) -> Tensor:
        """Draw levels of logistic densities by inverting their CDF."""
        uniform = torch.rand(shape, dtype=loc.dtype, device=loc.device)
        # Zero would be minus infinity, times a scale that may have underflowed.
        uniform = uniform.clamp(min=torch.finfo(uniform.dtype).tiny)
        position = loc + (uniform.log() - torch.log1p(-uniform)) * scale
        top = self.num_levels - 1
        return ((position + 1) * (top / 2)).round().clamp(0, top)
