"""Logistic distribution cut into equally wide bins: the likelihood of grey and colour levels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._logistic_mixture import LOG_SCALE_BOUND, logistic_log_mass
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.distributions.discretized import DiscretizedDistribution
from pyro_genmodels.distributions.expansion import expanded


class DiscretizedLogistic(DiscretizedDistribution):
    r"""Integers 0 to K - 1 under a logistic density on [-1, 1], the edge bins taking the tails.

    Level v is the bin of half-width h = 1 / (K - 1) around 2 v h - 1. With a and b the bin's
    upper and lower edge, standardised by location and scale s,

    .. math:: \log P(v) = \log\sigma(a) + \log\sigma(-b) + \log(1 - e^{-2h/s}),

    without the second term at v = 0, the first at v = K - 1, the third at both. Unlike the
    published codes, which turn to density times width where the difference of two sigmoids is
    small, this is exact for every parameter, so the masses always sum to one.

    Args:
        loc: Location on [-1, 1], any shape. Values outside are possible.
        log_scale: Logarithm of the scale on [-1, 1]; broadcasts with ``loc``; between -40 and 40.
        num_levels: Number of levels K, at least 2.
        validate_args: Whether parameters and values are checked.

    Raises:
        ValueError: If ``num_levels`` is below 2; under validation, for a value that is no level.

    References:
        Salimans et al. (2017), PixelCNN++, eq. 2, with one component.
        https://arxiv.org/abs/1701.05517

    Example:
        >>> levels = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(-7.0), 256)
        >>> levels.log_prob(levels.enumerate_support()).exp().sum().round(decimals=5)
        tensor(1.)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real,
        "log_scale": constraints.interval(-LOG_SCALE_BOUND, LOG_SCALE_BOUND),
    }

    @integers_checked
    def __init__(
        self,
        loc: Float[Tensor, "*#batch"],
        log_scale: Float[Tensor, "*#batch"],
        num_levels: int,
        *,
        validate_args: bool | None = None,
    ) -> None:
        check(num_levels >= 2, "num_levels", "be at least 2", num_levels)
        self.num_levels = num_levels
        self.loc, self.log_scale = broadcast_all(loc, log_scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogistic:
        """Return the same distribution with the parameters broadcast to ``batch_shape``."""
        loc, log_scale = self.loc.expand(batch_shape), self.log_scale.expand(batch_shape)
        return expanded(self, batch_shape, _instance, loc=loc, log_scale=log_scale)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*shape"]:
        """Return the log-mass of each level, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return logistic_log_mass(value, self.loc, self.log_scale, self.num_levels)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape"]:
        """Draw levels, held in the dtype of ``loc``, by inverting the logistic's CDF."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return self._logistic_levels(self.loc, self.log_scale.exp(), shape)

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """Mean level, by the sum of the survival function."""
        return self._survival_sum(lambda level: 1)

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Variance of the level."""
        return self._survival_sum(lambda level: 2 * level - 1) - self.mean.square()

    def _survival_sum(self, weight: Any) -> Tensor:
        # One level at a time: all at once would need K times the memory of an image batch.
        precision, total = torch.exp(-self.log_scale), torch.zeros_like(self.loc)
        for level in range(1, self.num_levels):
            edge = (2 * level - 1) / (self.num_levels - 1) - 1
            total = total + weight(level) * torch.sigmoid((self.loc - edge) * precision)
        return total
