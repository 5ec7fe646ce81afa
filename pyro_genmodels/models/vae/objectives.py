"""Objectives that are no multiple of the KL term: free bits, a capacity, a constraint on the rate.

They cannot be had by scaling latent sites. So a model masks its latent sites on both sides, and
its guide adds what stands here as one factor inside the data plate.
"""

from __future__ import annotations

import torch
from torch import nn

from pyro_genmodels._checks import check, check_choice
from pyro_genmodels._typing import Float, Tensor

# The multiplier's logarithm stays where its exponential does too, in any floating dtype.
_LARGEST_LOG = 15.0


class LatentCost(nn.Module):
    r"""What a training objective pays for the latents, in the place of their KL divergence.

    .. math:: f\Big(\sum_g \max(\lambda, KL_g)\Big), \qquad
        f(k) = k, \quad |k - C| \quad \text{or} \quad m\,(k - \epsilon)

    Args:
        free_bits: Nats :math:`\lambda` below which a unit (or the whole vector) costs no less. The
            KL that is compared is the mean over the minibatch, as in the paper.
        free_bits_per: ``"unit"`` or ``"group"``.
        capacity: Nats C that the KL is drawn to.
        capacity_steps: Training steps over which C rises from zero.
        rate: Nats :math:`\epsilon` that the mean KL is held at. The multiplier m, one at first, is
            the Karush-Kuhn-Tucker multiplier of that constraint.
        rate_step: How far its logarithm moves in a training step, at most: in proportion to the
            relative violation of the constraint.

    Raises:
        ValueError: If a value is out of range, or both ``capacity`` and ``rate`` are given.

    References:
        Kingma et al. (2016), Improved variational inference with inverse autoregressive flow,
        eq. 15 (free bits). Burgess et al. (2018), Understanding disentangling in beta-VAE, eq. 8.
        Rezende and Viola (2018), Taming VAEs, section 3 (the multiplier's updates).

    Example:
        >>> cost = LatentCost(capacity=4.0, capacity_steps=2)
        >>> kl = torch.tensor([[1.0, 2.0]])
        >>> cost(kl), cost.advance(kl), cost(kl)
        (tensor([3.]), None, tensor([1.]))
    """

    step: Tensor
    log_multiplier: Tensor

    def __init__(
        self,
        *,
        free_bits: float = 0.0,
        free_bits_per: str = "unit",
        capacity: float | None = None,
        capacity_steps: int = 0,
        rate: float | None = None,
        rate_step: float = 0.01,
    ) -> None:
        super().__init__()
        check(free_bits >= 0, "free_bits", "be at least 0", free_bits)
        check_choice("free_bits_per", free_bits_per, ("unit", "group"))
        check(capacity is None or capacity >= 0, "capacity", "be at least 0", capacity)
        check(capacity_steps >= 0, "capacity_steps", "be at least 0", capacity_steps)
        check(rate is None or rate > 0, "rate", "be positive", rate)
        check(capacity is None or rate is None, "rate", "be None with a capacity", rate)
        check(0 < rate_step <= 1, "rate_step", "lie above 0, at most at 1", rate_step)
        self.free_bits, self.per_unit = free_bits, free_bits_per == "unit"
        self.capacity, self.capacity_steps = capacity, capacity_steps
        self.rate, self.rate_step = rate, rate_step
        # Buffers: a resumed run goes on where it stopped.
        if capacity is not None:
            self.register_buffer("step", torch.zeros((), dtype=torch.long))
        if rate is not None:
            self.register_buffer("log_multiplier", torch.zeros(()))

    @property
    def is_kl(self) -> bool:
        """Whether this is the KL divergence itself, so that nobody needs it."""
        return self.free_bits == 0 and self.capacity is None and self.rate is None

    @property
    def parts(self) -> list[str]:
        """What makes this another cost than the KL divergence, with its nats."""
        nats = {"free_bits": self.free_bits or None, "capacity": self.capacity, "rate": self.rate}
        return [f"{name} {value:g}" for name, value in nats.items() if value is not None]

    @property
    def multiplier(self) -> Tensor | float:
        """The multiplier m now; one unless the rate is constrained."""
        return 1.0 if self.rate is None else self.log_multiplier.exp()

    @property
    def capacity_now(self) -> Tensor | float | None:
        """Nats C now."""
        if self.capacity is None or self.capacity_steps == 0:
            return self.capacity
        return self.capacity * (self.step / self.capacity_steps).clamp(max=1.0)

    def forward(self, kl: Float[Tensor, "*batch units"]) -> Float[Tensor, "*batch"]:
        """Return each example's cost in nats.

        Args:
            kl: KL divergence of each example by units, or one column of it where the posterior
                has no independent units.
        """
        total = self._with_free_bits(kl)
        if self.capacity is not None:
            return (total - self.capacity_now).abs()  # type: ignore[operator]
        return total if self.rate is None else self.multiplier * (total - self.rate)

    def _with_free_bits(self, kl: Tensor) -> Tensor:
        if self.free_bits == 0:
            return kl.sum(-1)
        grouped = kl if self.per_unit else kl.sum(-1, keepdim=True)
        # Over the minibatch alone: dimensions to its left are particles, or enumerated values.
        mean = grouped.mean(-2, keepdim=True) if kl.dim() > 1 else grouped
        return mean.clamp_min(self.free_bits).sum(-1).expand(kl.shape[:-1])

    @torch.no_grad()
    def advance(self, kl: Float[Tensor, "*batch units"]) -> None:
        """Take note of one training step with this KL, unless in eval mode."""
        if not self.training:
            return
        if self.capacity is not None:
            self.step += 1
        if self.rate is not None:
            violation = (kl.sum(-1).mean() - self.rate) / self.rate
            self.log_multiplier += self.rate_step * violation.clamp(-1, 1)
            self.log_multiplier.clamp_(-_LARGEST_LOG, _LARGEST_LOG)
