"""The marginal of a Gaussian over those elements of data that were observed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._typing import Bool, Float, Tensor
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.distributions.observed import OrMissing

LOG_2_PI = math.log(2 * math.pi)


class ObservedGaussian(TorchDistribution, ABC):
    r"""The marginal of a Gaussian over the observed elements o of each value.

    .. math:: \log p(x_o) = -\tfrac12 \big(e^T \Sigma_{oo}^{-1} e + \log |2 \pi \Sigma_{oo}|\big),
        \quad e = x_o - \mu_o

    Values are NaN where they are missing. Draws are whole.

    Args:
        whole: The distribution of all elements.
        loc: Its mean, in a row: ``(*batch, D)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, whole: Any, loc: Tensor) -> None:
        self.whole, self.loc = whole, loc
        super().__init__(whole.batch_shape, whole.event_shape)

    @abstractmethod
    def _nats(self, error: Tensor, seen: Tensor) -> Tensor:
        """Return the log-density, given errors that are zero where an element is missing."""

    @abstractmethod
    def _explained(self, error: Tensor, seen: Tensor) -> Tensor:
        r"""Return :math:`\Sigma_{\cdot o} \Sigma_{oo}^{-1} e`: what the errors say of all elements.

        Args:
            error: Errors ``(*batch, D)``, zero where an element is missing.
            seen: Which elements were observed.
        """

    @property
    def support(self) -> Any:
        """All real numbers, or NaN."""
        return constraints.independent(OrMissing(constraints.real), len(self.event_shape))

    def log_prob(self, value: Float[Tensor, "*value_event"]) -> Float[Tensor, "*shape"]:
        """Return the log-density of the observed elements; zero, if there are none."""
        if self._validate_args:
            self._validate_sample(value)
        error, seen = self._errors(value.flatten(-len(self.event_shape)), self.loc)
        # Cast: an integer times a number would have the default dtype.
        nats = self._nats(error, seen) - 0.5 * LOG_2_PI * seen.sum(-1).to(error.dtype)
        return nats.expand(torch.broadcast_shapes(nats.shape, self.batch_shape))

    def conditional_sample(self, value: Float[Tensor, "*value_event"]) -> Tensor:
        r"""Draw the missing elements of data given those that were observed, which stay.

        A draw :math:`y` of the whole, corrected by what its own error says (Matheron's rule):
        :math:`y + \Sigma_{\cdot o} \Sigma_{oo}^{-1} (x_o - y_o)` has the conditional's mean and
        covariance.

        Args:
            value: Data ``(*value, *event)``, whose batch shape the distribution's expands to.

        References:
            Journel and Huijbregts (1978), Mining Geostatistics, section VII.C.
        """
        rank = len(self.event_shape)
        batch = value.shape[: value.dim() - rank]
        draw = self.whole.expand(batch).sample()
        error, seen = self._errors(value.flatten(-rank), draw.flatten(-rank))
        corrected = draw + self._explained(error, seen).reshape(draw.shape)
        return torch.where(value.isnan(), corrected, value)

    def _errors(self, x: Tensor, loc: Tensor) -> tuple[Tensor, Bool[Tensor, "*batch D"]]:
        seen = ~x.isnan()
        nothing = torch.zeros_like(x)
        error = torch.where(seen, torch.where(seen, x, nothing) - loc, nothing)
        return error, seen.expand(error.shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw whole data."""
        drawn: Tensor = self.whole.sample(torch.Size(sample_shape))
        return drawn

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw whole data, differentiably."""
        drawn: Tensor = self.whole.rsample(torch.Size(sample_shape))
        return drawn

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ObservedGaussian:
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
