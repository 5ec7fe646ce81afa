"""The variational autoencoder with one group of Gaussian latent variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import nn

from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.likelihoods.elementwise import Likelihood, LikelihoodName
from pyro_genmodels.models.vae.gaussian_vae import GaussianVAE
from pyro_genmodels.models.vae.objectives import LatentCost
from pyro_genmodels.models.vae.posteriors import PosteriorTransforms
from pyro_genmodels.models.vae.priors import LatentPrior


class VAE(GaussianVAE):
    r"""Variational autoencoder: Gaussian latents, amortised Gaussian posterior.

    .. math:: z \sim N(0, I), \quad x \sim p(x \mid f(z)), \quad
        q(z \mid x) = N(\mu(x), \mathrm{diag}\,\sigma^2(x))

    The networks see discrete data scaled to [-1, 1], continuous data as they are or, after
    :meth:`standardize`, standardised. With
    ``hidden=()`` both networks are linear: over continuous data with a Gaussian likelihood of
    shared scale this is probabilistic PCA, whose posterior is of the guide's form.

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        num_levels: Number of data levels, ``None`` for continuous data.
        latent_dim: Number of latent variables.
        network: ``"mlp"``, or ``"conv"`` for images of any size.
        hidden: Widths of the encoder's hidden layers, or its channels from full size downwards;
            the decoder has them reversed. ``(400,)`` or ``(32, 64)`` by default.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden unit in training.
        likelihood: Name of the likelihood, or one; ``"auto"`` goes by ``num_levels``: Gaussian,
            Bernoulli or discretised logistic.
        encoder: Own network: data (and context, if conditional) to
            ``(*batch, 2 * latent_dim + posterior_features)``, the means before the log-scales;
            between these and the features what correlates the latents, if anything.
        decoder: Own network: latents (and context) to
            ``(*batch, *likelihood.parameter_shape)``.
        prior: Law of the latents, a standard Gaussian by default: :class:`FlowPrior`,
            :class:`VampPrior`, :class:`AR1Prior`, or an own :class:`LatentPrior`.
        posterior: Covariance of the encoder's Gaussian: ``"diagonal"``; ``"full"``, from
            ``latent_dim * (latent_dim - 1) / 2`` more outputs; or ``"low_rank"``, diagonal plus
            the square of a ``latent_dim`` by ``posterior_rank`` matrix, given row by row.
        posterior_rank: Columns of that matrix.
        posterior_transforms: What the encoder's Gaussian passes through, in the order of sampling:
            this package's transforms, Pyro's or torch's, plain or conditional. They are evaluated
            from noise to latents: Pyro's ``affine_autoregressive`` is then the inverse
            autoregressive flow. The KL term is estimated from the draws.
        posterior_features: Outputs that the encoder gives beside means and log-scales, behind
            them; conditional posterior transforms take them.
        num_classes: Condition encoder and decoder on labels.
        context_shape: Condition them on vectors or maps.
        warmup_steps: Training steps over which the weight of the KL term rises to one.
        free_bits: Nats below which the KL of a unit, averaged over the minibatch, costs no less in
            training: no unit gains by giving up what it carries up to there.
        free_bits_per: ``"unit"``, or ``"group"`` for all of them together.

    Raises:
        ValueError: If an argument is out of range, or the likelihood does not fit the data.

    References:
        Kingma and Welling (2014), Auto-encoding variational Bayes.
        https://arxiv.org/abs/1312.6114. Sohn et al. (2015) for the conditional form. Lucas et
        al. (2019) for the linear one. Kingma et al. (2016), Improved variational inference with
        inverse autoregressive flow (and free bits, eq. 15). https://arxiv.org/abs/1606.04934

    Example:
        >>> import torch
        >>> vae = VAE((1, 8, 8), num_levels=17, network="conv")
        >>> vae.sample(4).shape, vae.reconstruct(torch.zeros(3, 1, 8, 8)).shape
        (torch.Size([4, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
        >>> from pyro.distributions.transforms import affine_autoregressive
        >>> vae = VAE((5,), latent_dim=3, posterior_transforms=affine_autoregressive(3))
        >>> vae.encode(torch.zeros(2, 5)).rsample().shape
        torch.Size([2, 3])
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-3, "batch_size": 64, "max_epochs": 120, "ema_decay": 0.99}
    )

    def __init__(
        self,
        event_shape: EventShape,
        *,
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
        warmup_steps: int = 0,
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
            beta=1.0,
            warmup_steps=warmup_steps,
            latent_cost=LatentCost(free_bits=free_bits, free_bits_per=free_bits_per),
        )
