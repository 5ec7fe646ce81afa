"""Logistic distribution cut into equally wide bins: the likelihood of grey and colour levels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._logistic_mixture import LOG_SCALE_BOUND, logistic_log_mass
from pyro_genmodels._typing import Float, Num, Tensor


class DiscretizedLogistic(TorchDistribution):
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
    has_enumerate_support = True

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

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """Integers from 0 to ``num_levels - 1``."""
        return constraints.integer_interval(0, self.num_levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogistic:
        """Return the same distribution with the parameters broadcast to ``batch_shape``."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        new.num_levels = self.num_levels
        new.loc = self.loc.expand(batch_shape)
        new.log_scale = self.log_scale.expand(batch_shape)
        super(DiscretizedLogistic, new).__init__(new.loc.shape, validate_args=False)
        new._validate_args = self._validate_args
        return new  # type: ignore[no-any-return]

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*shape"]:
        """Return the log-mass of each level, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return logistic_log_mass(value, self.loc, self.log_scale, self.num_levels)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape"]:
        """Draw levels, held in the dtype of ``loc``, by inverting the logistic's CDF."""
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        # Zero would be minus infinity, times a scale that may have underflowed.
        uniform = uniform.clamp(min=torch.finfo(uniform.dtype).tiny)
        noise = uniform.log() - torch.log1p(-uniform)
        position = self.loc + noise * self.log_scale.exp()
        top = self.num_levels - 1
        return ((position + 1) * (top / 2)).round().clamp(0, top)

    def enumerate_support(self, expand: bool = True) -> Float[Tensor, "*shape"]:
        """Return every level, along a new leading dimension."""
        levels = torch.arange(self.num_levels, dtype=self.loc.dtype, device=self.loc.device)
        levels = levels.reshape(-1, *[1] * len(self.batch_shape))
        return levels.expand(-1, *self.batch_shape) if expand else levels

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

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        mass = self.log_prob(self.enumerate_support(expand=False)).exp()
        nats: Tensor = torch.special.entr(mass).sum(0)
        return nats
