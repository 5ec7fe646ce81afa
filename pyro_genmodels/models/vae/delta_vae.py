"""The VAE that cannot give up its latents: a least rate by construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import nn

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._typing import EventShape
from pyro_genmodels.distributions.ar1 import correlation_of, largest_rate_of_sequence, log_scale_of
from pyro_genmodels.models.likelihoods.elementwise import Likelihood, LikelihoodName
from pyro_genmodels.models.vae.gaussian_vae import GaussianVAE
from pyro_genmodels.models.vae.objectives import LatentCost
from pyro_genmodels.models.vae.priors import AR1Prior
from pyro_genmodels.models.vae.vae import VAE


class DeltaVAE(GaussianVAE):
    r"""VAE whose posterior is never nearer to its prior than :math:`\delta` nats.

    So a decoder that could do without latents, an autoregressive one say, pays for them anyway,
    and learns to use what it has paid for. The objective is the ELBO itself. Committed is either

    - a prior that independent Gaussians cannot match: over sequences of n steps, in each of d
      features, the autoregression :math:`z_t \sim N(\alpha z_{t-1}, 1 - \alpha^2)`, from which
      the least KL is

      .. math:: \delta = \tfrac d2 \big((n - 2) \log(1 + \alpha^2) - \log(1 - \alpha^2)\big)

    - or the posterior's variance, the same for all data, under a standard Gaussian prior:

      .. math:: \delta = D \big(\tfrac12 (\sigma^2 - 1) - \log \sigma\big)

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        delta: The least rate in nats, over the whole latent vector.
        commitment: ``"sequence"`` or ``"variance"``.
        num_steps: Steps n of the sequence; ``latent_dim`` is a multiple.
        num_levels: As the others, in :class:`VAE`.
        latent_dim: Number of latent variables.
        network: ``"mlp"`` or ``"conv"``.
        hidden: Widths or channels of the encoder.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden unit in training.
        likelihood: Name of the likelihood, or one.
        encoder: Own network: means before log-scales; only means with ``"variance"``.
        decoder: Own network.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.
        warmup_steps: Training steps over which the weight of the KL term rises to one.

    Raises:
        ValueError: If ``delta`` is not positive, or larger than what even a correlation of almost
            one commits to, or the steps do not divide the latents.

    References:
        Razavi et al. (2019), Preventing posterior collapse with delta-VAEs, section 2 and
        appendix. https://arxiv.org/abs/1901.03416

    Example:
        >>> vae = DeltaVAE((1, 8, 8), num_levels=2, delta=5.0, latent_dim=16, num_steps=8)
        >>> round(vae.prior.correlation, 3)
        0.885
    """

    training_defaults: ClassVar[Mapping[str, Any]] = VAE.training_defaults

    def __init__(
        self,
        event_shape: EventShape,
        *,
        delta: float = 5.0,
        commitment: Literal["sequence", "variance"] = "sequence",
        num_steps: int = 8,
        num_levels: int | None = None,
        latent_dim: int = 32,
        network: Literal["mlp", "conv"] = "mlp",
        hidden: Sequence[int] | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        likelihood: LikelihoodName | Likelihood = "auto",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        warmup_steps: int = 0,
    ) -> None:
        prior, log_scale = _committed(commitment, delta, latent_dim, num_steps)
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
            posterior="diagonal",
            posterior_rank=1,
            posterior_log_scale=log_scale,
            posterior_transforms=(),
            posterior_features=0,
            num_classes=num_classes,
            context_shape=context_shape,
            beta=1.0,
            warmup_steps=warmup_steps,
            latent_cost=LatentCost(),
        )
        self.delta, self.commitment = delta, commitment


def _committed(
    commitment: str, delta: float, latent_dim: int, num_steps: int
) -> tuple[AR1Prior | None, float | None]:
    """Return the prior, or the posterior's log-scale, whose least rate is ``delta``."""
    check_positive(delta=delta, latent_dim=latent_dim)
    check_choice("commitment", commitment, ("sequence", "variance"))
    if commitment == "variance":
        return None, log_scale_of(delta / latent_dim)
    check(num_steps >= 2, "num_steps", "be at least 2", num_steps)
    rule = f"be a multiple of num_steps, {num_steps}"
    check(latent_dim % num_steps == 0, "latent_dim", rule, latent_dim)
    features = latent_dim // num_steps
    largest = features * largest_rate_of_sequence(num_steps)
    rule = f"be at most {largest:.3g}, {features} times what {num_steps} steps can commit to"
    check(delta <= largest, "delta", rule, delta)
    return AR1Prior(correlation_of(delta / features, num_steps), num_steps=num_steps), None
