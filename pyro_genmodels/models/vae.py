"""Variational autoencoders with one group of Gaussian latent variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import nn

from pyro_genmodels._typing import EventShape
from pyro_genmodels.models._flow_posterior import PosteriorTransforms
from pyro_genmodels.models._gaussian_vae import GaussianVAE
from pyro_genmodels.models.likelihoods import Likelihood, LikelihoodName


class VAE(GaussianVAE):
    r"""Variational autoencoder: Gaussian latents, amortised diagonal Gaussian posterior.

    .. math:: z \sim N(0, I), \quad x \sim p(x \mid f(z)), \quad
        q(z \mid x) = N(\mu(x), \mathrm{diag}\,\sigma^2(x))

    The networks see discrete data scaled to [-1, 1], continuous data as they are. With
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
            ``(*batch, 2 * latent_dim + posterior_features)``, the means before the log-scales.
        decoder: Own network: latents (and context) to
            ``(*batch, *likelihood.parameter_shape)``.
        posterior_transforms: What the encoder's Gaussian passes through, in the order of sampling:
            this package's transforms, Pyro's or torch's, plain or conditional. They are evaluated
            from noise to latents: Pyro's ``affine_autoregressive`` is then the inverse
            autoregressive flow. The KL term is estimated from the draws.
        posterior_features: Outputs that the encoder gives beside means and log-scales, behind
            them; conditional posterior transforms take them.
        num_classes: Condition encoder and decoder on labels.
        context_shape: Condition them on vectors or maps.
        warmup_steps: Training steps over which the weight of the KL term rises to one.

    Raises:
        ValueError: If an argument is out of range, or the likelihood does not fit the data.

    References:
        Kingma and Welling (2014), Auto-encoding variational Bayes.
        https://arxiv.org/abs/1312.6114. Sohn et al. (2015) for the conditional form. Lucas et
        al. (2019) for the linear one. Kingma et al. (2016), Improved variational inference with
        inverse autoregressive flow. https://arxiv.org/abs/1606.04934

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
        posterior_transforms: PosteriorTransforms = (),
        posterior_features: int = 0,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        warmup_steps: int = 0,
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
            posterior_transforms=posterior_transforms,
            posterior_features=posterior_features,
            num_classes=num_classes,
            context_shape=context_shape,
            beta=1.0,
            warmup_steps=warmup_steps,
        )


class BetaVAE(GaussianVAE):
    r"""VAE whose training weighs the KL term by :math:`\beta`, to limit what the latents carry.

    .. math:: E_{q(z \mid x)}[\log p(x \mid z)] - \beta\, KL(q(z \mid x) \| p(z))

    With beta other than one that is no bound on the likelihood: ``log_weights`` and the metrics
    give the bounds, at beta one.

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        beta: Weight of the KL term.
        warmup_steps: Training steps over which the weight rises to ``beta``.
        num_levels: As the others, in :class:`VAE`.
        latent_dim: Number of latent variables.
        network: ``"mlp"`` or ``"conv"``.
        hidden: Widths or channels of the encoder.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden unit in training.
        likelihood: Name of the likelihood, or one.
        encoder: Own network.
        decoder: Own network.
        posterior_transforms: Transforms of the encoder's Gaussian.
        posterior_features: What the encoder gives to those that are conditional.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.

    Raises:
        ValueError: As :class:`VAE`, or if ``beta`` is not positive.

    References:
        Higgins et al. (2017), beta-VAE: learning basic visual concepts with a constrained
        variational framework, eq. 4. https://openreview.net/forum?id=Sy2fzU9gl

    Example:
        >>> BetaVAE((1, 8, 8), num_levels=2, beta=4.0).latent_scale.beta
        4.0
    """

    training_defaults: ClassVar[Mapping[str, Any]] = VAE.training_defaults

    def __init__(
        self,
        event_shape: EventShape,
        *,
        beta: float = 4.0,
        warmup_steps: int = 0,
        num_levels: int | None = None,
        latent_dim: int = 32,
        network: Literal["mlp", "conv"] = "mlp",
        hidden: Sequence[int] | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        likelihood: LikelihoodName | Likelihood = "auto",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        posterior_transforms: PosteriorTransforms = (),
        posterior_features: int = 0,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
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
            posterior_transforms=posterior_transforms,
            posterior_features=posterior_features,
            num_classes=num_classes,
            context_shape=context_shape,
            beta=beta,
            warmup_steps=warmup_steps,
        )
