"""A distribution of standardised data, in the units that the data came in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float
from pyro_genmodels.distributions.expansion import expanded


class Rescaled(TorchDistribution):
    r"""The distribution of :math:`x = m + s\,y`, for :math:`y` from a given one.

    .. math:: \log p(x) = \log p_y\big((x - m) / s\big) - \sum_i \log s_i

    As ``TransformedDistribution`` with an affine transform, but with mean and variance, and exact
    for a narrow distribution far from zero: the shift is subtracted in float64, and the rest is
    computed in the dtype of ``base``.

    Args:
        base: Distribution of :math:`y`, over all real numbers or vectors of them.
        shift: The :math:`m`, which broadcasts to the event; without an event, to the batch.
        scale: The :math:`s`, positive, likewise.
        dtype: Dtype of ``base``, torch's default if not given.
        missing: Whether NaN in a value stands for an element that was not observed. The base then
            takes such values, and their scales are not in the log-determinant.
        validate_args: Whether values are checked; Pyro's global setting by default.

    Raises:
        ValueError: If ``scale`` is not positive.

    Example:
        >>> import pyro.distributions as dist
        >>> law = Rescaled(dist.Normal(0.0, 1.0), torch.tensor(5e4), torch.tensor(2.0))
        >>> law.mean, law.stddev, law.log_prob(torch.tensor(5e4))
        (tensor(50000.), tensor(2.), tensor(-1.6121))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        base: Any,
        shift: Tensor,
        scale: Tensor,
        *,
        dtype: torch.dtype | None = None,
        missing: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.missing = missing
        self.base, self.shift, self.scale = base, shift.double(), scale.double()
        self.dtype = torch.get_default_dtype() if dtype is None else dtype
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)
        if self._validate_args:
            check(bool((scale > 0).all()), "scale", "be positive", scale)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws are differentiable: if those of ``base`` are."""
        return bool(self.base.has_rsample)

    @property
    def support(self) -> constraints.Constraint:
        """That of ``base``, all real numbers."""
        return self.base.support

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Rescaled:
        """Return the distribution with a larger batch shape."""
        base = self.base.expand(torch.Size(batch_shape))
        return expanded(self, base.batch_shape, _instance, base=base)

    def log_prob(self, value: Float[Tensor, "*batch_event"]) -> Float[Tensor, "*batch"]:
        """Return the log-density in nats.

        Raises:
            ValueError: Under validation, if the value has another shape or is not finite.
        """
        if self._validate_args:
            self._validate_sample(value)
        y = ((value.double() - self.shift) / self.scale).to(self.dtype)
        nats: Tensor = self.base.log_prob(y)
        log_det = self._observed_log_det(value) if self.missing else self._log_det()
        return nats - log_det.to(nats.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw without gradients."""
        with torch.no_grad():
            return self._in_units(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, differentiably."""
        return self._in_units(self.base.rsample(torch.Size(sample_shape)))

    @property
    def mean(self) -> Tensor:
        """Mean, if ``base`` has one in closed form."""
        return self._in_units(self.base.mean)

    @property
    def variance(self) -> Tensor:
        """Variance of each element, if ``base`` has one in closed form."""
        variance: Tensor = self.base.variance
        return (self.scale.square() * variance).to(variance.dtype)

    def _in_units(self, y: Tensor) -> Tensor:
        return (self.shift + self.scale * y).to(y.dtype)

    def _log_det(self) -> Tensor:
        """Return the log-scales, summed over the event."""
        return sum_rightmost(self._log_scales(), len(self.event_shape))

    def _observed_log_det(self, value: Tensor) -> Tensor:
        """Return the log-scales, summed over what was observed of each event."""
        logs = self._log_scales()
        observed = torch.where(value.isnan(), torch.zeros_like(logs), logs)
        return sum_rightmost(observed, len(self.event_shape))

    def _log_scales(self) -> Tensor:
        shape = torch.broadcast_shapes(self.scale.shape, self.event_shape)
        return self.scale.log().expand(shape)
