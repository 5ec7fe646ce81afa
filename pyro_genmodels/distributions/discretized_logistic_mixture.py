"""Mixture of logistic distributions cut into equally wide bins."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.distributions import constraints

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._logistic_mixture import LOG_SCALE_BOUND, mixture_log_mass
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.distributions.discretized import DiscretizedDistribution
from pyro_genmodels.distributions.expansion import expanded


class DiscretizedLogisticMixture(DiscretizedDistribution):
    r"""Integers 0 to K - 1 under a mixture of logistic densities on [-1, 1], edges with the tails.

    The mixture of :class:`DiscretizedLogistic`: exact for every parameter, no threshold.

    Args:
        logits: Unnormalised log-weights ``(*batch, M)`` of M components.
        loc: Locations on [-1, 1], ``(*batch, M)``. Values outside are possible.
        log_scale: Logarithms of the scales, ``(*batch, M)``, between -40 and 40. All three
            broadcast.
        num_levels: Number of levels K, at least 2.
        validate_args: Whether parameters and values are checked.

    Raises:
        ValueError: If ``num_levels`` is below 2 or there is no dimension of components; under
            validation, for a value that is no level.

    References:
        Salimans et al. (2017), PixelCNN++, section 2.1. https://arxiv.org/abs/1701.05517

    Example:
        >>> logits, loc = torch.zeros(3), torch.tensor([-0.5, 0.0, 0.5])
        >>> levels = DiscretizedLogisticMixture(logits, loc, torch.tensor(-7.0), 256)
        >>> levels.log_prob(levels.enumerate_support()).exp().sum().round(decimals=5)
        tensor(1.)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "logits": constraints.independent(constraints.real, 1),
        "loc": constraints.independent(constraints.real, 1),
        "log_scale": constraints.independent(
            constraints.interval(-LOG_SCALE_BOUND, LOG_SCALE_BOUND), 1
        ),
    }

    @integers_checked
    def __init__(
        self,
        logits: Float[Tensor, "*#batch"],
        loc: Float[Tensor, "*#batch"],
        log_scale: Float[Tensor, "*#batch"],
        num_levels: int,
        *,
        validate_args: bool | None = None,
    ) -> None:
        check(num_levels >= 2, "num_levels", "be at least 2", num_levels)
        self.num_levels = num_levels
        parameters = torch.broadcast_tensors(logits, loc, log_scale)
        rule = "have a last dimension of components, or the others must"
        check(parameters[0].dim() > 0, "logits", rule, tuple(logits.shape))
        self.logits, self.loc, self.log_scale = parameters
        super().__init__(self.loc.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiscretizedLogisticMixture:
        """Return the same distribution with the parameters broadcast to ``batch_shape``."""
        shape = (*batch_shape, self.loc.shape[-1])
        names = ("logits", "loc", "log_scale")
        parameters = {name: getattr(self, name).expand(shape) for name in names}
        return expanded(self, batch_shape, _instance, **parameters)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*shape"]:
        """Return the log-mass of each level, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return mixture_log_mass(value, self.logits, self.loc, self.log_scale, self.num_levels)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape"]:
        """Draw levels, held in the dtype of ``loc``: a component, then by inverting its CDF."""
        shape = self._extended_shape(torch.Size(sample_shape))
        component = torch.distributions.Categorical(logits=self.logits, validate_args=False)
        index = component.sample(torch.Size(sample_shape))[..., None]
        size = (*shape, self.loc.shape[-1])
        loc = self.loc.expand(size).gather(-1, index)[..., 0]
        scale = self.log_scale.expand(size).gather(-1, index)[..., 0].exp()
        return self._logistic_levels(loc, scale, shape)

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """Mean level."""
        return self._moment(lambda levels: levels)

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Variance of the level."""
        return self._moment(lambda levels: (levels - self.mean).square())

    def _moment(self, of: Any) -> Tensor:
        levels = self.enumerate_support(expand=False)
        return (self.log_prob(levels).exp() * of(levels)).sum(0)
