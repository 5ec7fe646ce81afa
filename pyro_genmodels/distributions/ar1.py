"""A Gaussian autoregression over latent sequences, and the least rate that it commits to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints, register_kl

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.distributions.gaussian import DiagonalNormal, check_same_rank

# Logarithm of what the largest correlation lacks to one; beyond it rounding would set in.
_LOG_MISSING = -30.0


class AR1Normal(TorchDistribution):
    r"""Stationary sequences :math:`z_t = \alpha z_{t-1} + \sqrt{1 - \alpha^2}\,\epsilon_t`.

    Args:
        like: A tensor of the wanted dtype and device.
        size: Length of the vectors: steps times features, step by step.
        correlation: The :math:`\alpha`.
        num_steps: Number of steps.
        batch_shape: Batch shape.
        validate_args: Whether values are checked.

    Example:
        >>> prior = AR1Normal(torch.zeros(()), 6, correlation=0.9, num_steps=3)
        >>> prior.sample((2,)).shape, prior.log_prob(torch.zeros(2, 6)).shape
        (torch.Size([2, 6]), torch.Size([2]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    @integers_checked
    def __init__(
        self,
        like: Tensor,
        size: int,
        correlation: float,
        num_steps: int,
        batch_shape: Any = (),
        *,
        validate_args: bool | None = None,
    ) -> None:
        rule = f"be divisible by the {num_steps} steps of its sequence"
        check(size % num_steps == 0, "latent_dim", rule, size)
        self.like, self.correlation, self.num_steps = like, correlation, num_steps
        super().__init__(torch.Size(batch_shape), torch.Size((size,)), validate_args=validate_args)

    @property
    def innovation_variance(self) -> float:
        """Variance of a step given the one before."""
        return 1 - self.correlation**2

    def expand(self, batch_shape: Any, _instance: Any = None) -> AR1Normal:
        """Return the same distribution with another batch shape."""
        return expanded(self, batch_shape, _instance)

    def steps_of(self, z: Float[Tensor, "*value D"]) -> Float[Tensor, "*value T F"]:
        """Give the steps a dimension of their own."""
        return z.unflatten(-1, (self.num_steps, -1))

    def rsample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape D"]:
        """Draw sequences."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.like.dtype, device=self.like.device)
        steps = [(noises := self.steps_of(noise)).select(-2, 0)]
        for t in range(1, self.num_steps):
            fresh = math.sqrt(self.innovation_variance) * noises.select(-2, t)
            steps.append(self.correlation * steps[-1] + fresh)
        return torch.stack(steps, -2).flatten(-2)

    def log_prob(self, value: Float[Tensor, "*value D"]) -> Float[Tensor, "*shape"]:
        """Return the log-density in nats."""
        if self._validate_args:
            self._validate_sample(value)
        z = self.steps_of(value)
        innovations = z[..., 1:, :] - self.correlation * z[..., :-1, :]
        squares = z[..., 0, :].square().sum(-1)
        squares = squares + innovations.square().sum((-2, -1)) / self.innovation_variance
        nats = -0.5 * squares - self._log_normalizer(z.shape[-1])
        return nats.expand(torch.broadcast_shapes(nats.shape, self.batch_shape))

    def _log_normalizer(self, features: int) -> float:
        size, later = self.num_steps * features, (self.num_steps - 1) * features
        return 0.5 * (size * math.log(2 * math.pi) + later * math.log(self.innovation_variance))

    @property
    def mean(self) -> Float[Tensor, "*batch D"]:
        """Zeros."""
        return self.like.new_zeros(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Float[Tensor, "*batch D"]:
        """Ones: the sequence is stationary."""
        return self.like.new_ones(self.batch_shape + self.event_shape)

    loc = mode = mean
    stddev = variance

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        size = self.event_shape[0]
        nats = 0.5 * size + self._log_normalizer(size // self.num_steps)
        return self.like.new_full(self.batch_shape, nats)


@register_kl(DiagonalNormal, AR1Normal)  # type: ignore[untyped-decorator]
def _kl_diagonal_ar1(q: DiagonalNormal, p: AR1Normal) -> Tensor:
    """The cross-entropy of the innovations, whose moments are those of independent entries."""
    check_same_rank(q, p)
    loc, variance = p.steps_of(q.loc), p.steps_of(q.scale.square())
    moment = loc[..., 0, :].square() + variance[..., 0, :]
    shift = loc[..., 1:, :] - p.correlation * loc[..., :-1, :]
    spread = variance[..., 1:, :] + p.correlation**2 * variance[..., :-1, :]
    later = (shift.square() + spread).sum((-2, -1)) / p.innovation_variance
    cross = 0.5 * (moment.sum(-1) + later) + p._log_normalizer(loc.shape[-1])
    nats = cross - q.entropy()
    return nats.expand(torch.broadcast_shapes(nats.shape, p.batch_shape))


def least_rate_of_sequence(correlation: float, num_steps: int) -> float:
    r"""Return the least KL of independent Gaussians from one feature's autoregression.

    .. math:: \delta = \tfrac12 \big((n - 2) \log(1 + \alpha^2) - \log(1 - \alpha^2)\big)

    It is reached at mean zero, variances :math:`1 - \alpha^2` at both ends and
    :math:`(1 - \alpha^2) / (1 + \alpha^2)` between.
    """
    square = correlation**2
    return 0.5 * ((num_steps - 2) * math.log1p(square) - math.log1p(-square))


def correlation_of(delta: float, num_steps: int) -> float:
    """Return the correlation at which that is the least KL, in nats, of a feature."""
    # To one in steps that keep the digits of what is missing.
    log_missing = _bisect(
        lambda missing: least_rate_of_sequence(-math.expm1(missing), num_steps) - delta,
        _LOG_MISSING,
        0.0,
    )
    return -math.expm1(log_missing)


def largest_rate_of_sequence(num_steps: int) -> float:
    """Return the least KL of a feature at the largest correlation that is told from one."""
    return least_rate_of_sequence(-math.expm1(_LOG_MISSING), num_steps)


def log_scale_of(delta: float) -> float:
    r"""Return the log-scale at which a Gaussian is that far, at least, from the standard one.

    .. math:: \delta = \tfrac12 (\sigma^2 - 1) - \log \sigma
    """
    least = 0.5 + delta + 1.0
    return _bisect(lambda log_scale: 0.5 * math.expm1(2 * log_scale) - log_scale - delta, -least, 0)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return the root of a falling function, from the side where it is positive."""
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low
