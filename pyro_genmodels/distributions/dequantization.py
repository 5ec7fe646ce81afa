"""Continuous values that round down to given integers: the guide of a flow on discrete data."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.expansion import expanded


class UniformDequantization(TorchDistribution):
    r"""The uniform law of :math:`v = x + u`, :math:`u \in [0, 1)`: values that round down to x.

    As the guide of a continuous density :math:`p(v)` it turns the density into a bound on the
    discrete probability: :math:`E_q[\log p(v) - \log q(v)] \le \log P(x)`, with
    :math:`\log q = 0` exactly.

    In floating point :math:`x + u` can round up to :math:`x + 1` (in float32 about once a CIFAR
    batch), and the observed floor is then another value; draws are kept below the next integer.
    Nor is a draw exactly zero, the end of the range, whose logit is infinite.

    Args:
        x: Integers, held in a floating dtype; the batch shape is theirs.
        validate_args: As for every Pyro distribution.

    References:
        Theis et al. (2016), A note on the evaluation of generative models, eq. 5-6.

    Example:
        >>> q = UniformDequantization(torch.tensor([3.0, 7.0])).to_event(1)
        >>> v = q.rsample()
        >>> v.floor(), q.log_prob(v)
        (tensor([3., 7.]), tensor(0.))
    """

    arg_constraints = {"x": constraints.real}  # noqa: RUF012 (torch's own convention)
    support = constraints.real
    has_rsample = True

    def __init__(self, x: Float[Tensor, "*batch"], *, validate_args: bool | None = None) -> None:
        self.x = x
        super().__init__(x.shape, validate_args=validate_args)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw ``(*sample_shape, *batch)`` values in ``[x, x + 1)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        below_next = torch.nextafter(self.x + 1, self.x)
        # A zero stands for draws below the grid of `rand`: their middle, where a logit is finite.
        least = torch.finfo(self.x.dtype).eps / 4
        noise = torch.rand_like(self.x.expand(shape)).clamp_min(least)
        return torch.minimum(self.x + noise, below_next)

    def log_prob(self, value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return zero where ``value`` rounds down to ``x``, minus infinity elsewhere."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.where(value.floor() == self.x, 0.0, -torch.inf).to(value.dtype)

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """The middle between the integer and the next."""
        return self.x + 0.5

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """A twelfth."""
        return torch.full_like(self.x, 1 / 12)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats, which is zero."""
        return torch.zeros_like(self.x)

    def expand(
        self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: Any = None
    ) -> UniformDequantization:
        """Return the same law with a larger batch shape."""
        x = self.x.expand(torch.Size(batch_shape))
        return expanded(self, batch_shape, _instance, x=x)
