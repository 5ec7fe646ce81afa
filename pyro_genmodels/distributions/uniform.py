"""Uniform distributions: over the levels of discrete data, and over a closed interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, Uniform, constraints
from torch import Tensor

from pyro_genmodels._checks import (
    check,
    check_levels,
    check_positive,
    check_trailing,
    integers_checked,
    is_integer,
)
from pyro_genmodels._typing import Float, Int, Num
from pyro_genmodels.distributions.expansion import expanded


class ClosedUniform(Uniform):
    """Uniform over an interval, both ends included, as its support says.

    Pyro's own has density zero at the upper end, where min-max scaled data have a value in each
    column.

    Args:
        low: Lower ends ``(*batch)``.
        high: Upper ends, of the same shape.
        validate_args: Whether ends and values are checked; Pyro's global setting by default.

    Example:
        >>> ClosedUniform(0.0, 2.0).log_prob(torch.tensor([0.0, 2.0])).exp()
        tensor([0.5000, 0.5000])
    """

    def log_prob(self, value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return the log-density in nats, minus infinity beyond the ends."""
        if self._validate_args:
            self._validate_sample(value)
        inside = (value >= self.low) & (value <= self.high)
        return torch.where(inside, -torch.log(self.high - self.low), -torch.inf)


class UniformLevels(TorchDistribution):
    r"""Independent elements, each uniform over its ``num_levels`` integers.

    .. math:: \log p(x) = -D \log K

    for ``D`` elements of ``K`` levels: what a code map costs that no prior was learned for. Draws
    are ``int64``, as indices are. Memory does not grow with the number of levels.

    Args:
        event_shape: Sizes of one draw, of any rank.
        num_levels: Number of levels K.
        dtype: Floating dtype of log-probabilities, torch's default if not given.
        device: Device of draws.
        validate_args: Whether values are checked; Pyro's global setting by default.

    Raises:
        ValueError: If a size or ``num_levels`` is not positive.

    Example:
        >>> prior = UniformLevels((4, 4), 512)
        >>> codes = prior.sample((3,))
        >>> codes.shape, prior.log_prob(codes) / 16
        (torch.Size([3, 4, 4]), tensor([-6.2383, -6.2383, -6.2383]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    @integers_checked
    def __init__(
        self,
        event_shape: Sequence[int],
        num_levels: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_positive(num_levels=num_levels)
        possible = all(is_integer(size) and size > 0 for size in event_shape)
        check(possible, "event_shape", "be positive sizes", tuple(event_shape))
        self.num_levels = num_levels
        self._nothing = torch.zeros((), dtype=dtype, device=device)
        super().__init__(torch.Size(), torch.Size(event_shape), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Integers ``0 .. num_levels - 1``, with the event's rank."""
        levels = constraints.integer_interval(0, self.num_levels - 1)
        return constraints.independent(levels, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> UniformLevels:
        """Return the distribution with a larger batch shape."""
        shape = torch.broadcast_shapes(self.batch_shape, tuple(batch_shape))
        return expanded(self, shape, _instance)

    def log_prob(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch"]:
        """Return minus the number of elements times the logarithm of the number of levels.

        Raises:
            ValueError: Under validation, if the value is not levels of that shape.
        """
        if self._validate_args:
            check_trailing("value", value, self.event_shape)
            check_levels("value", value, self.num_levels)
        lead = value.shape[: value.dim() - len(self.event_shape)]
        nats = self.event_shape.numel() * math.log(self.num_levels)
        return (self._nothing - nats).expand(torch.broadcast_shapes(lead, self.batch_shape))

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """The middle of the levels."""
        return self._full((self.num_levels - 1) / 2)

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """The variance of each element."""
        return self._full((self.num_levels**2 - 1) / 12)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        nats = self.event_shape.numel() * math.log(self.num_levels)
        return (self._nothing + nats).expand(self.batch_shape)

    def _full(self, value: float) -> Tensor:
        return (self._nothing + value).expand(self.batch_shape + self.event_shape)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Int[Tensor, "*batch_event"]:
        """Draw indices ``(*sample_shape, *batch_shape, *event_shape)``."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        return torch.randint(self.num_levels, shape, device=self._nothing.device)
