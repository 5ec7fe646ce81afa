"""The chain from data to noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._batching import over_event
from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.diffusion.steps import (
    check_grid,
    gaussian_log_density,
    step_between,
)
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.nets import signal_and_noise


class ForwardDiffusion(TorchDistribution):
    r"""Data with ever more noise, as one event: :math:`q(z_0, z_1, \dots, z_T \mid x)`.

    .. math:: z_0 \sim N(\alpha_0 x, \sigma_0^2), \qquad
        z_t \sim N\big((\alpha_t / \alpha_{t-1}) z_{t-1},\;
        \sigma_t^2 (1 - e^{g_{t-1} - g_t})\big)

    Each :math:`z_t` alone is :math:`N(\alpha_t x, \sigma_t^2)`. Densities are computed in float64,
    as each is of the difference between two values that are nearly equal.

    Args:
        x: Data ``(*batch, *event)``, of a scale near one.
        levels: Rising noise levels ``(T + 1,)``, :math:`g = -\log \mathrm{SNR}`; see
            :class:`~pyro_genmodels.nets.NoiseSchedule`.
        event_dim: Rank of one data point.
        validate_args: Whether levels and values are checked.

    Raises:
        ValueError: If levels do not rise or are not finite, or the data have too few dimensions.

    References:
        Kingma et al. (2021), Variational diffusion models, section 3 and appendix A.
        https://arxiv.org/abs/2107.00630

    Example:
        >>> levels = torch.linspace(-6, 6, 5)
        >>> chain = ForwardDiffusion(torch.zeros(3, 2), levels, event_dim=1)
        >>> chain.batch_shape, chain.event_shape
        (torch.Size([3]), torch.Size([5, 2]))
        >>> chain.log_prob(chain.sample((7,))).shape
        torch.Size([7, 3])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    @integers_checked
    def __init__(
        self,
        x: Float[Tensor, "*batch_event"],
        levels: Float[Tensor, " levels"],
        *,
        event_dim: int,
        validate_args: bool | None = None,
    ) -> None:
        check(x.dim() >= event_dim, "x", f"have {event_dim} event dimensions", tuple(x.shape))
        self.x, self.levels, self.rank = x, levels, event_dim
        split = x.dim() - event_dim
        event = torch.Size((levels.numel(), *x.shape[split:]))
        super().__init__(x.shape[:split], event, validate_args=validate_args)
        if self._validate_args:
            check_grid(levels)

    @constraints.dependent_property
    def support(self) -> Any:
        """All numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ForwardDiffusion:
        """Return the same distribution with another batch shape."""
        x = self.x.expand(*batch_shape, *self.event_shape[1:])
        return expanded(self, batch_shape, _instance, x=x)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape"]:
        """Draw whole chains, differentiably."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.x.dtype, device=self.x.device)
        # z / alpha is the data and a sum of independent increments, whose variance so far is e^g.
        growth = self.levels.diff()
        log_variance = self.levels[1:] + (-torch.expm1(-growth)).log()
        scale = torch.cat([self.levels[:1], log_variance]).mul(0.5).exp()
        total = (over_event(scale, self.rank).to(noise) * noise).cumsum(-1 - self.rank)
        alpha, _ = signal_and_noise(self.levels)
        return over_event(alpha, self.rank).to(noise) * (self.x.unsqueeze(-1 - self.rank) + total)

    def log_prob(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Return the log-density of whole chains, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        z, levels, dim = value.double(), self.levels.double(), -1 - self.rank
        alpha, _ = signal_and_noise(levels[0])
        first = z.select(dim, 0) - alpha * self.x
        log_variance = F.logsigmoid(levels[0])
        nats = gaussian_log_density(first, log_variance.expand_as(first), self.rank)
        if len(levels) > 1:
            step = step_between(levels[:-1], levels[1:], self.rank)
            length = len(levels) - 1
            before, after = z.narrow(dim, 0, length), z.narrow(dim, 1, length)
            residual = after - step.decay * before
            log_added = step.log_added.expand_as(residual)
            nats = nats + gaussian_log_density(residual, log_added, self.rank + 1)
        return nats.to(value.dtype)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """The data, fading: each level's factor times the data."""
        alpha, _ = signal_and_noise(self.levels)
        return over_event(alpha, self.rank).to(self.x) * self.x.unsqueeze(-1 - self.rank)

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Each level's variance of the noise."""
        _, sigma = signal_and_noise(self.levels)
        variance = over_event(sigma.square(), self.rank).to(self.x)
        return variance.expand(self.batch_shape + self.event_shape)
