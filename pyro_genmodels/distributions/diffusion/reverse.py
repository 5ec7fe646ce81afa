"""The chain from noise to data, whose steps a network gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from pyro.distributions import TorchDistribution
from torch import nn
from torch.distributions import constraints

from pyro_genmodels._batching import over_event
from pyro_genmodels._changes import in_functorch
from pyro_genmodels._checks import check_choice
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.diffusion.steps import (
    VARIANCES,
    VarianceName,
    check_grid,
    gaussian_log_density,
    log_variance_of,
    step_between,
)
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.nets.layers import check_finite_context, checkpointed

# Evaluations of the network in one call where no gradient keeps their activations.
_ROWS = 512


class Denoised(NamedTuple):
    """What a network makes of noised data.

    Attributes:
        x: Estimate of the data, ``(*batch, *event)``.
        variance_share: Of a learned variance, where its logarithm lies between the posterior's, 0,
            and the forward step's, 1: ``(*batch, *event)``.
    """

    x: Tensor
    variance_share: Tensor | None = None


Denoise: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], Denoised]


class ReverseDiffusion(TorchDistribution):
    r"""Noise that becomes data, as one event: :math:`p(z_T) \prod_t p(z_{t-1} \mid z_t)`.

    .. math:: z_T \sim N(0, I), \qquad p(z_{t-1} \mid z_t) =
        q(z_{t-1} \mid z_t, x = \hat x(z_t, g_t))

    The network's estimate :math:`\hat x` stands for the data in the forward chain's posterior. All
    steps are scored together, in as few calls of the network as memory allows. Draws take a call
    per step. Densities are computed in float64, those of
    :class:`~pyro_genmodels.distributions.ForwardDiffusion` alike.

    Args:
        denoise: Called with noised data ``(*batch, *event)``, their noise levels ``(*batch)`` and
            the context; returns :class:`Denoised`. Batch dimensions broadcast. Gradients of a
            module keep one state per step in the place of all activations.
        levels: Rising noise levels ``(T + 1,)``, :math:`g = -\log \mathrm{SNR}`.
        data_shape: Sizes of one data point.
        batch_shape: Batch shape.
        context: What ``denoise`` is given; its batch shape broadcasts to the others.
        variance: Of each step: the posterior's, the forward step's, or between both as
            ``denoise`` says.
        validate_args: Whether levels and values are checked.

    Raises:
        ValueError: If levels do not rise, levels or context are not finite, or the variance is
            unknown.

    References:
        Ho et al. (2020), Denoising diffusion probabilistic models.
        https://arxiv.org/abs/2006.11239

    Example:
        >>> def denoise(z, level, context):  # of standard normal data
        ...     return Denoised(z * torch.sigmoid(-level).sqrt()[..., None])
        >>> chain = ReverseDiffusion(denoise, torch.linspace(-6, 6, 5), (2,))
        >>> z = chain.sample((7,))
        >>> z.shape, chain.log_prob(z).shape
        (torch.Size([7, 5, 2]), torch.Size([7]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(
        self,
        denoise: Denoise,
        levels: Float[Tensor, " levels"],
        data_shape: Sequence[int],
        batch_shape: Sequence[int] = (),
        *,
        context: Tensor | None = None,
        variance: VarianceName = "posterior",
        validate_args: bool | None = None,
    ) -> None:
        check_choice("variance", variance, VARIANCES)
        self.denoise, self.levels, self.context = denoise, levels, context
        self.variance_kind, self.rank = variance, len(data_shape)
        event = torch.Size((levels.numel(), *data_shape))
        super().__init__(torch.Size(batch_shape), event, validate_args=validate_args)
        if self._validate_args:
            check_grid(levels)
            check_finite_context(context)

    @constraints.dependent_property
    def support(self) -> Any:
        """All numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ReverseDiffusion:
        """Return the same distribution with another batch shape."""
        return expanded(self, batch_shape, _instance)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape"]:
        """Draw whole chains, differentiably."""
        return torch.stack([*self.backwards(sample_shape)][::-1], -1 - self.rank)

    def backwards(self, sample_shape: Sequence[int] = ()) -> Iterator[Tensor]:
        """Draw a chain state by state, from noise to data, in the memory of one state.

        Args:
            sample_shape: Sizes in front of the batch shape.
        """
        shape = (*sample_shape, *self.batch_shape, *self.event_shape[1:])
        like: dict[str, Any] = {"dtype": self.levels.dtype, "device": self.levels.device}
        z = torch.randn(shape, **like)
        yield z
        for low, high in zip(self.levels[:-1].flip(0), self.levels[1:].flip(0), strict=True):
            z = self.step_back(z, low, high)
            yield z

    def step_back(
        self,
        z: Float[Tensor, "*batch_event"],
        low: Float[Tensor, ""],
        high: Float[Tensor, ""],
    ) -> Float[Tensor, "*batch_event"]:
        """Draw states at a lower noise level given those at a higher one.

        Args:
            z: States at the higher level.
            low: The lower level.
            high: The higher level.
        """
        mean, log_variance = self._moments(z, low, high)
        return (mean + (0.5 * log_variance).exp() * torch.randn_like(z)).to(z.dtype)

    def log_prob(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Return the log-density of whole chains, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        # The batch dimensions first: a context with more of them would meet the steps'.
        batch = torch.broadcast_shapes(value.shape[: -1 - self.rank], self.batch_shape)
        z = value.expand(batch + self.event_shape).movedim(-1 - self.rank, 0)
        last = z[-1].double()
        nats = gaussian_log_density(last, torch.zeros_like(last), self.rank)
        for part in self.parts(math.prod(batch)):
            # Each part of the steps has its last state in common with the next.
            states = z[part.start : part.stop + 1]
            levels = self.levels[part.start : part.stop + 1]
            nats = nats + self.log_prob_of_steps(states, levels).sum(0)
        return nats.to(value.dtype)

    def parts(self, num_chains: int) -> list[slice]:
        """Return the steps, in parts that are evaluated by one call each.

        Args:
            num_chains: Chains that are scored at once.
        """
        steps = len(self.levels) - 1
        size = max(1, _ROWS // max(1, num_chains))
        return [slice(first, min(first + size, steps)) for first in range(0, steps, size)]

    def log_prob_of_steps(
        self, states: Float[Tensor, "states *batch_event"], levels: Float[Tensor, " states"]
    ) -> Float[Tensor, "steps *batch"]:
        """Return the log-densities of successive states, each given the next, in float64.

        Args:
            states: States of chains, from less noise to more.
            levels: Their noise levels.
        """
        mean, log_variance = self._moments(states[1:], levels[:-1], levels[1:])
        residual = states[:-1].double() - mean
        return gaussian_log_density(residual, log_variance.expand_as(residual), self.rank)

    def _moments(self, z: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, float64, of states at lower levels given those at higher.

        The levels are one for all states, or one for each of the first dimension.
        """
        rows = z.dim() - self.rank
        low, high = (over_event(level, rows - level.dim()) for level in (low, high))
        found = self._denoised(z, high)
        step = step_between(low.double(), high.double(), self.rank)
        mean = step.noise_factor * z + step.data_factor * found.x
        share = found.variance_share if self.variance_kind == "learned" else None
        return mean, log_variance_of(step, self.variance_kind, share)

    def _denoised(self, z: Tensor, level: Tensor) -> Denoised:
        level = level.to(z.dtype).expand(z.shape[: z.dim() - self.rank])
        # Of torch 2.6, checkpoints do not pass through vmap.
        saves = isinstance(self.denoise, nn.Module) and not in_functorch()
        if saves and len(self.levels) > 2:
            return checkpointed(self.denoise, z, level, self.context)
        return self.denoise(z, level, self.context)
