"""Negative binomial distributions by their mean, with or without additional zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._batching import broadcast_shapes
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.distributions.expansion import expanded

_FAR = 32.0  # from where three terms of Stirling's series give 13 digits


class NegativeBinomial(TorchDistribution):
    r"""Counts whose variance exceeds their mean: a Poisson whose rate is gamma distributed.

    .. math:: p(x) = \frac{\Gamma(x + \theta)}{\Gamma(\theta)\, x!}
        \left(\frac{\theta}{\theta + \mu}\right)^\theta \left(\frac{\mu}{\theta + \mu}\right)^x,
        \quad E[x] = \mu, \quad \mathrm{Var}[x] = \mu + \mu^2 / \theta

    Pyro's takes the number of failures and the probability; its log-mass is a difference of large
    log-gamma functions, with no correct digit in float32 for counts of a million. This one has the
    differences in closed form, by the remainder of Stirling's series.

    Args:
        mu: Mean, positive.
        theta: Inverse dispersion, positive: the Poisson distribution is the limit for large ones.
        validate_args: Whether parameters and values are checked; Pyro's global setting by default.

    Raises:
        ValueError: Under validation, if a parameter is not positive.

    References:
        Loader (2000), Fast and accurate computation of binomial probabilities (the remainder).
        Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Example:
        >>> law = NegativeBinomial(torch.tensor(4.0), torch.tensor(2.0))
        >>> law.mean, law.variance, law.log_prob(torch.tensor(3.0))
        (tensor(4.), tensor(12.), tensor(-2.0273))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "mu": constraints.positive,
        "theta": constraints.positive,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self,
        mu: Float[Tensor, "*mu"],
        theta: Float[Tensor, "*theta"],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.mu, self.theta = mu, theta  # not broadcast: of a shared theta there is less to do
        shape = broadcast_shapes(*(getattr(self, name).shape for name in self.arg_constraints))
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> NegativeBinomial:
        """Return the same distribution with its parameters broadcast to ``batch_shape``."""
        return expanded(self, batch_shape, _instance, mu=self.mu.expand(batch_shape))

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """The mean."""
        return self.mu.expand(self.batch_shape)

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """The variance."""
        return self.mu + self.mu.square() / self.theta

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*shape"]:
        """Return the log-mass of each count, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        x, mu, theta = value.to(self.mu.dtype), self.mu, self.theta
        x = x.clamp(min=1)  # the mass at zero has a form of its own
        both, every = theta + mu, theta + x
        side = torch.where(x < mu, -1.0, 1.0).to(x.dtype)
        above = side * (x - mu)
        # Both logarithms are near zero, and nearly cancel, where x is near its mean.
        share = side * torch.log1p(above / torch.minimum(both, every))
        over = theta / x * above
        excess = side * torch.log1p(over / torch.minimum(both, every / x * mu))
        nats = theta * share - x * excess + 0.5 * (theta / (every * (2 * math.pi * x))).log()
        nats = nats + _remainder(every) - _remainder(theta) - _remainder(x)
        return torch.where(value == 0, -theta * torch.log1p(mu / theta), nats)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape"]:
        """Draw counts: of a Poisson distribution at a rate that is drawn first."""
        theta = self.theta.expand(torch.Size(sample_shape) + self.batch_shape)
        return torch.poisson(torch._standard_gamma(theta) * (self.mu / self.theta))


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    r"""A negative binomial distribution, or zero with a probability of its own.

    .. math:: p(x) = \pi\, [x = 0] + (1 - \pi)\, NB(x; \mu, \theta),
        \quad \pi = \mathrm{sigmoid}(\text{zero\_logits})

    Args:
        mu: Mean of the negative binomial distribution, positive.
        theta: Its inverse dispersion, positive.
        zero_logits: Logit of the probability of an additional zero.
        validate_args: Whether parameters and values are checked; Pyro's global setting by default.

    Raises:
        ValueError: Under validation, if a parameter is out of range.

    Example:
        >>> law = ZeroInflatedNegativeBinomial(
        ...     torch.tensor(4.0), torch.tensor(2.0), torch.tensor(0.0)
        ... )
        >>> law.mean, law.log_prob(torch.tensor(0.0)).exp()
        (tensor(2.), tensor(0.5556))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        **NegativeBinomial.arg_constraints,
        "zero_logits": constraints.real,
    }

    def __init__(
        self,
        mu: Float[Tensor, "*mu"],
        theta: Float[Tensor, "*theta"],
        zero_logits: Float[Tensor, "*zero_logits"],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.zero_logits = zero_logits
        super().__init__(mu, theta, validate_args=validate_args)

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """The mean, additional zeros included."""
        return torch.sigmoid(-self.zero_logits) * self.mu

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """The variance, additional zeros included."""
        present, without = torch.sigmoid(-self.zero_logits), super().variance
        return present * (without + self.mu.square() * torch.sigmoid(self.zero_logits))

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*shape"]:
        """Return the log-mass of each count, in nats."""
        nats, logits = super().log_prob(value), self.zero_logits
        zero = torch.where(value == 0, torch.logaddexp(nats, logits), nats)
        # Plus log(1 - pi); torch's softplus has nine digits only.
        return zero + F.logsigmoid(-logits)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape"]:
        """Draw counts."""
        counts = super().sample(sample_shape)
        present = torch.bernoulli(torch.sigmoid(-self.zero_logits).expand_as(counts))
        return counts * present


def _remainder(x: Tensor) -> Tensor:
    """Return what Stirling's formula for the log-factorial of a positive number leaves."""
    near = x.clamp(max=_FAR)
    exact = torch.lgamma(near + 1) - (near + 0.5) * near.log() + near
    # Less what the series gives where it begins, so that either term alone counts.
    return exact + (_series(x.clamp(min=_FAR)) - _LOG_ROOT - _AT_FAR)


def _series(x: Any) -> Any:
    inverse = 1 / x
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


_LOG_ROOT = 0.5 * math.log(2 * math.pi)
_AT_FAR = _series(_FAR)
