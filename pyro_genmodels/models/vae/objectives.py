"""What training pays for the latents: a weighted KL term, free bits, a capacity, a rate.

All but the weight cannot be had by scaling latent sites. So a model masks its latent sites on both
sides, and its guide adds :class:`LatentCost` as one factor inside the data plate.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import nn

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels._typing import Float, Tensor

# The multiplier's logarithm stays where its exponential does too, in any floating dtype.
_LARGEST_LOG = 15.0


@dataclass(frozen=True)
class KLObjective(ArgumentGroup):
    r"""How training weighs the KL term of a VAE, or what it pays for the latents in its place.

    .. math:: E_{q(z \mid x)}[\log p(x \mid z)] - \beta\, f\Big(\sum_g \max(\lambda, KL_g)\Big),
        \qquad f(k) = k, \quad |k - C| \quad \text{or} \quad m\,(k - \epsilon)

    By default this is the ELBO. With a ``capacity`` C the KL is drawn to that many nats for each
    example; with a ``rate`` :math:`\epsilon` the multiplier m, learned in training, keeps it there
    on average: it is the Karush-Kuhn-Tucker multiplier of that constraint. Nothing but the ELBO is
    a bound on the likelihood; ``log_weights`` and the metrics give the bounds whatever stands
    here. A step is an evaluation of the guide in training.

    Args:
        beta: Weight :math:`\beta` of the KL term, or of what stands in its place; by default the
            model's: 1, and 4 for :class:`BetaVAE`.
        first_beta: Weight at the first step, from which it moves to ``beta`` over
            ``warmup_steps``; nearly zero by default. From above, units are taken into use one after
            another, those that save most first: on sprites both positions, which then keep to axes
            of their own (see ``docs/benchmarks.md``).
        warmup_steps: Training steps over which the weight moves to ``beta``, evenly.
        free_bits: Nats :math:`\lambda` below which the KL of a unit (or of all together), averaged
            over the minibatch, costs no less: none gains by giving up what it carries up to there.
            They are applied before capacity or rate are compared.
        free_bits_per: ``"unit"``, or ``"group"`` for all units together.
        capacity: Nats C that the KL is drawn to.
        capacity_steps: Training steps over which C rises from zero, evenly.
        rate: Nats :math:`\epsilon` that the mean KL is held at. The multiplier is one at first.
        rate_step: How far the multiplier's logarithm moves in a training step, at most; it moves
            in proportion to ``(KL - rate) / rate``, up to one.

    Raises:
        ValueError: If a value is out of range, ``capacity`` and ``rate`` are both given, or
            ``first_beta`` is given without ``warmup_steps``.

    References:
        Higgins et al. (2017), beta-VAE, eq. 4. Kingma et al. (2016), Improved variational
        inference with inverse autoregressive flow, eq. 15 (free bits). Burgess et al. (2018),
        Understanding disentangling in beta-VAE, eq. 8 (there the weight is :math:`\gamma`).
        Rezende and Viola (2018), Taming VAEs, section 3 (the multiplier's updates; their
        constraint is on the reconstruction).

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> objective = KLObjective(first_beta=8.0, warmup_steps=100)
        >>> float(VAE((4,), objective=objective).beta)
        8.0
    """

    beta: float | None = None
    _: KW_ONLY
    first_beta: float | None = None
    warmup_steps: int = 0
    free_bits: float = 0.0
    free_bits_per: Literal["unit", "group"] = "unit"
    capacity: float | None = None
    capacity_steps: int = 0
    rate: float | None = None
    rate_step: float = 0.01

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a field is out of range."""
        super().__post_init__()
        if self.beta is not None:
            check_positive(beta=self.beta)
        if self.first_beta is not None:
            check_positive(first_beta=self.first_beta)
            rule = "be None without warmup_steps"
            check(self.warmup_steps > 0, "first_beta", rule, self.first_beta)
        for name in ("warmup_steps", "free_bits", "capacity_steps"):
            check(getattr(self, name) >= 0, name, "be at least 0", getattr(self, name))
        check_choice("free_bits_per", self.free_bits_per, ("unit", "group"))
        nats, rate, step = self.capacity, self.rate, self.rate_step
        check(nats is None or nats >= 0, "capacity", "be at least 0", nats)
        check(rate is None or rate > 0, "rate", "be positive", rate)
        check(nats is None or rate is None, "rate", "be None with a capacity", rate)
        check(0 < step <= 1, "rate_step", "lie above 0, at most at 1", step)

    @property
    def is_weighted_kl(self) -> bool:
        """Whether training pays for the KL divergence itself, with a weight."""
        return self.free_bits == 0 and self.capacity is None and self.rate is None


class LatentCost(nn.Module):
    """What a training objective pays for the latents in the place of their KL divergence.

    Args:
        objective: The objective; its weight ``beta`` is applied elsewhere.

    Example:
        >>> cost = LatentCost(KLObjective(capacity=4.0, capacity_steps=2))
        >>> kl = torch.tensor([[1.0, 2.0]])
        >>> cost(kl), cost.advance(kl), cost(kl)
        (tensor([3.]), None, tensor([1.]))
    """

    step: Tensor
    log_multiplier: Tensor

    def __init__(self, objective: KLObjective) -> None:
        super().__init__()
        self.free_bits, self.per_unit = objective.free_bits, objective.free_bits_per == "unit"
        self.capacity, self.capacity_steps = objective.capacity, objective.capacity_steps
        self.rate, self.rate_step = objective.rate, objective.rate_step
        # Buffers: a resumed run goes on where it stopped.
        if self.capacity is not None:
            self.register_buffer("step", torch.zeros((), dtype=torch.long))
        if self.rate is not None:
            self.register_buffer("log_multiplier", torch.zeros(()))

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
