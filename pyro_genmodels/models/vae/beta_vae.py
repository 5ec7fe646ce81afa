"""VAEs whose training limits what the latents carry: by a weight, a capacity or a constraint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import EventShape, Tensor
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.models.likelihoods.elementwise import Likelihood, LikelihoodName
from pyro_genmodels.models.vae.gaussian_vae import GaussianVAE
from pyro_genmodels.models.vae.objectives import LatentCost
from pyro_genmodels.models.vae.posteriors import PosteriorTransforms
from pyro_genmodels.models.vae.priors import LatentPrior
from pyro_genmodels.models.vae.vae import VAE


class BetaVAE(GaussianVAE):
    r"""VAE whose training weighs the KL term by :math:`\beta`, to limit what the latents carry.

    .. math:: E_{q(z \mid x)}[\log p(x \mid z)] - \beta\, KL(q(z \mid x) \| p(z))

    With a ``capacity`` C it is drawn to that many nats for each example instead, and with a
    ``rate`` :math:`\epsilon` beta is the Karush-Kuhn-Tucker multiplier that keeps the KL at
    :math:`\epsilon` nats on average, learned in training:

    .. math:: E[\log p(x \mid z)] - \beta\, |KL - C|, \qquad
        \max_\theta \min_{\beta > 0} E[\log p(x \mid z)] - \beta\, (KL - \epsilon)

    Nothing of this is a bound on the likelihood: ``log_weights`` and the metrics give the bounds,
    at beta one. A step is an evaluation of the guide in training, as for the warm-up.

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        beta: Weight of the KL term, or of ``|KL - C|``; with a rate, its first value.
        capacity: Nats C.
        capacity_steps: Training steps over which C rises from zero, evenly.
        rate: Nats :math:`\epsilon`.
        rate_step: How far the multiplier's logarithm moves in a step, at most; it moves in
            proportion to ``(KL - rate) / rate``, up to one.
        warmup_steps: Training steps over which the weight moves to ``beta``, evenly.
        first_beta: Where it moves from, by default nearly zero. From above, units are taken into
            use one after another, those that save most first: on sprites both positions, which
            then keep to axes of their own (see ``docs/benchmarks.md``).
        num_levels: As the others, in :class:`VAE`.
        latent_dim: Number of latent variables.
        network: ``"mlp"`` or ``"conv"``.
        hidden: Widths or channels of the encoder.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden unit in training.
        likelihood: Name of the likelihood, or one.
        encoder: Own network.
        decoder: Own network.
        prior: Law of the latents.
        posterior: Covariance of the encoder's Gaussian.
        posterior_rank: Rank, if it is low.
        posterior_transforms: Transforms of the encoder's Gaussian.
        posterior_features: What the encoder gives to those that are conditional.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.
        free_bits: Nats that cost nothing, before capacity or rate are compared.
        free_bits_per: ``"unit"`` or ``"group"``.

    Raises:
        ValueError: As :class:`VAE`; if ``beta``, ``first_beta`` or ``rate`` is not positive, there
            is a capacity and a rate, or a first beta without warm-up.

    References:
        Higgins et al. (2017), beta-VAE: learning basic visual concepts with a constrained
        variational framework, eq. 4. https://openreview.net/forum?id=Sy2fzU9gl. Burgess et al.
        (2018), Understanding disentangling in beta-VAE, eq. 8. https://arxiv.org/abs/1804.03599
        (there the weight is :math:`\gamma`). Rezende and Viola (2018), Taming VAEs.
        https://arxiv.org/abs/1810.00597, whose constraint is on the reconstruction.

    Example:
        >>> BetaVAE((1, 8, 8), num_levels=2, beta=4.0).latent_scale.beta
        4.0
        >>> float(BetaVAE((1, 8, 8), num_levels=2, first_beta=8.0, warmup_steps=100).beta)
        8.0
        >>> vae = BetaVAE((1, 8, 8), num_levels=2, beta=1.0, rate=5.0)
        >>> float(vae.beta)
        1.0
    """

    training_defaults: ClassVar[Mapping[str, Any]] = VAE.training_defaults

    def __init__(
        self,
        event_shape: EventShape,
        *,
        beta: float = 4.0,
        capacity: float | None = None,
        capacity_steps: int = 0,
        rate: float | None = None,
        rate_step: float = 0.01,
        warmup_steps: int = 0,
        first_beta: float | None = None,
        num_levels: int | None = None,
        latent_dim: int = 32,
        network: Literal["mlp", "conv"] = "mlp",
        hidden: Sequence[int] | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        likelihood: LikelihoodName | Likelihood = "auto",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: LatentPrior | None = None,
        posterior: Literal["diagonal", "full", "low_rank"] = "diagonal",
        posterior_rank: int = 1,
        posterior_transforms: PosteriorTransforms = (),
        posterior_features: int = 0,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        free_bits: float = 0.0,
        free_bits_per: Literal["unit", "group"] = "unit",
    ) -> None:
        super().__init__(
            event_shape,
            num_levels=num_levels,
            latent_dim=latent_dim,
            network=network,
            hidden=hidden,
            activation=activation,
            dropout=dropout,
            likelihood=likelihood,
            encoder=encoder,
            decoder=decoder,
            prior=prior,
            posterior=posterior,
            posterior_rank=posterior_rank,
            posterior_transforms=posterior_transforms,
            posterior_features=posterior_features,
            num_classes=num_classes,
            context_shape=context_shape,
            beta=beta,
            warmup_steps=warmup_steps,
            latent_cost=LatentCost(
                free_bits=free_bits,
                free_bits_per=free_bits_per,
                capacity=capacity,
                capacity_steps=capacity_steps,
                rate=rate,
                rate_step=rate_step,
            ),
        )
        if first_beta is not None:
            check_positive(first_beta=first_beta)
            check(warmup_steps > 0, "first_beta", "be None without warmup_steps", first_beta)
            start = first_beta / beta
            self.latent_scale = LatentScale(beta, warmup_steps=warmup_steps, start=start)

    @property
    def beta(self) -> Tensor | float:
        """The weight of the KL term now, warm-up and learned multiplier included."""
        multiplier = 1.0 if self.latent_cost is None else self.latent_cost.multiplier
        return self.latent_scale.value * multiplier
