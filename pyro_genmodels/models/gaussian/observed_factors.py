"""The Gaussian of factor analysis over those elements of data that were observed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._typing import Bool, Float, Tensor
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.distributions.observed import OrMissing
from pyro_genmodels.models.base.standardization import Standardization

_LOG_2_PI = math.log(2 * math.pi)


def factor_precision(
    white: Float[Tensor, "D K"], seen: Bool[Tensor, "*batch D"]
) -> Float[Tensor, "*batch K K"]:
    r"""Return :math:`I + W_o^T \Psi_o^{-1} W_o` of each example, o what it has observed.

    Args:
        white: The loading :math:`\Psi^{-1/2} W`.
        seen: Which elements were observed.
    """
    factors = white.shape[-1]
    products = (white.unsqueeze(-1) * white.unsqueeze(-2)).flatten(-2)
    summed = (seen.to(white) @ products).unflatten(-1, (factors, factors))
    return summed + torch.eye(factors, dtype=white.dtype, device=white.device)


class ObservedFactors(TorchDistribution):
    r"""The marginal of :math:`N(b, W W^T + \Psi)` over the observed elements o.

    By Woodbury's identity, with :math:`e = \Psi_o^{-1/2} (x_o - b_o)`,
    :math:`V = \Psi_o^{-1/2} W_o` and :math:`L L^T = I + V^T V`,

    .. math:: \log p(x_o) = -\tfrac12 \big(|e|^2 - |L^{-1} V^T e|^2\big) - \log |L|
        - \tfrac12 \textstyle\sum_{i \in o} \log 2 \pi \psi_i

    Values are NaN where they are missing. Draws are whole.

    Args:
        whole: The distribution of all elements, in the data's units.
        units: The units of the data.
        loc: The mean b in those of the networks, ``(D,)``.
        loading: The W, ``(D, K)``.
        scale: Standard deviations of the noise, ``(D,)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(
        self,
        whole: Any,
        units: Standardization,
        loc: Tensor,
        loading: Tensor,
        scale: Tensor,
    ) -> None:
        self.whole, self.units = whole, units
        self.loc, self.loading, self.scale = loc, loading, scale
        super().__init__(whole.batch_shape, whole.event_shape)

    @property
    def support(self) -> Any:
        """All real numbers, or NaN."""
        return constraints.independent(OrMissing(constraints.real), len(self.event_shape))

    def log_prob(self, value: Float[Tensor, "*value_event"]) -> Float[Tensor, "*shape"]:
        """Return the log-density of the observed elements; zero, if there are none."""
        if self._validate_args:
            self._validate_sample(value)
        rank = len(self.event_shape)
        seen = ~value.flatten(-rank).isnan()
        x = self.units.standardized(value, self.loc.dtype).flatten(-rank)
        nothing = torch.zeros_like(x)
        error = torch.where(seen, (torch.where(seen, x, nothing) - self.loc) / self.scale, nothing)
        white = self.loading / self.scale.unsqueeze(-1)
        factor = torch.linalg.cholesky(factor_precision(white, seen))
        projected = (error @ white).unsqueeze(-1)
        explained = torch.linalg.solve_triangular(factor, projected, upper=False).squeeze(-1)
        logs = self.scale.log() + 0.5 * _LOG_2_PI + self.units.log_scale(x)
        nats = 0.5 * (explained.square().sum(-1) - error.square().sum(-1))
        nats = nats - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        nats = nats - torch.where(seen, logs, nothing).sum(-1)
        return nats.expand(torch.broadcast_shapes(nats.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw whole data."""
        drawn: Tensor = self.whole.sample(torch.Size(sample_shape))
        return drawn

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw whole data, differentiably."""
        drawn: Tensor = self.whole.rsample(torch.Size(sample_shape))
        return drawn

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ObservedFactors:
        """Return the distribution with another batch shape."""
        whole = self.whole.expand(torch.Size(batch_shape))
        return expanded(self, batch_shape, _instance, whole=whole)

    @property
    def mean(self) -> Tensor:
        """The mean of whole data."""
        mean: Tensor = self.whole.mean
        return mean

    @property
    def variance(self) -> Tensor:
        """The variance of whole data."""
        variance: Tensor = self.whole.variance
        return variance
