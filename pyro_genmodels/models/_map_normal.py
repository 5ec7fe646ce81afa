"""Gaussian maps as one event: the latents of a hierarchy, and their KL."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints, register_kl

from pyro_genmodels._typing import Float, Tensor

_LOG_2_PI = math.log(2 * math.pi)
_CLAMP = 5.0
_MIN_SCALE = 1e-2


def softly_clamped(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keep values between -5 and 5, smoothly: ``5 tanh(x / 5)``."""
    return _CLAMP * torch.tanh(x / _CLAMP)


class MapNormal(TorchDistribution):
    """Gaussian over maps ``(C, H, W)`` with independent elements.

    Args:
        loc: Means ``(*batch, C, H, W)``.
        scale: Standard deviations, of the same shape.
        validate_args: Whether parameters and values are checked.

    Example:
        >>> MapNormal(torch.zeros(2, 1, 3, 3), torch.ones(2, 1, 3, 3)).batch_shape
        torch.Size([2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.independent(constraints.real, 3),
        "scale": constraints.independent(constraints.positive, 3),
    }
    support = constraints.independent(constraints.real, 3)
    has_rsample = True

    def __init__(
        self,
        loc: Float[Tensor, "*batch C H W"],
        scale: Float[Tensor, "*batch C H W"],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = loc, scale
        # Of a tensor that TraceGraph_ELBO follows, a part of the shape is a plain tuple.
        batch, event = torch.Size(loc.shape[:-3]), torch.Size(loc.shape[-3:])
        super().__init__(batch, event, validate_args=validate_args)

    @classmethod
    def from_numbers(cls, loc: Tensor, log_scale: Tensor, *, temperature: float = 1.0) -> MapNormal:
        """Make one of a network's numbers, softly clamped, with a floor under the scale."""
        scale = softly_clamped(log_scale).exp() + _MIN_SCALE
        return cls(softly_clamped(loc), scale if temperature == 1 else scale * temperature)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MapNormal:
        """Return the same distribution with the parameters broadcast to ``batch_shape``."""
        if _instance is None and torch.Size(batch_shape) == self.batch_shape:
            return self  # a plate expands whatever it meets, and it is immutable
        new = self._get_checked_instance(MapNormal, _instance)
        shape = torch.Size(batch_shape) + self.event_shape
        new.loc, new.scale = self.loc.expand(shape), self.scale.expand(shape)
        super(MapNormal, new).__init__(shape[:-3], shape[-3:], validate_args=False)
        new._validate_args = self._validate_args
        return new  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape C H W"]:
        """Draw maps, differentiably."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.scale, noise)

    def log_prob(self, value: Float[Tensor, "*value C H W"]) -> Float[Tensor, "*shape"]:
        """Return the log-density in nats."""
        if self._validate_args:
            self._validate_sample(value)
        standardised = (value - self.loc) / self.scale
        terms = 0.5 * standardised.square() + self.scale.log()
        return -terms.sum((-3, -2, -1)) - 0.5 * _LOG_2_PI * self.event_shape.numel()

    @property
    def mean(self) -> Float[Tensor, "*batch C H W"]:
        """The location."""
        return self.loc

    @property
    def variance(self) -> Float[Tensor, "*batch C H W"]:
        """The square of the scale."""
        return self.scale.square()

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        constant = 0.5 * (1 + _LOG_2_PI) * self.event_shape.numel()
        return self.scale.log().sum((-3, -2, -1)) + constant


@register_kl(MapNormal, MapNormal)  # type: ignore[untyped-decorator]
def _kl_of_maps(q: MapNormal, p: MapNormal) -> Tensor:
    """Vahdat and Kautz (2020), eq. 2, of which this is the general form."""
    ratio, distance = q.scale / p.scale, (q.loc - p.loc) / p.scale
    terms = 0.5 * (ratio.square() + distance.square() - 1) - ratio.log()
    return terms.sum((-3, -2, -1))
