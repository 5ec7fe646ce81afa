"""Variational autoencoders with one group of Gaussian latent variables."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pyro
import torch
from torch import nn

from pyro_genmodels._checks import check_choice, check_positive, check_trailing
from pyro_genmodels._typing import EventShape, Float, Num, Tensor
from pyro_genmodels.models._base import GenerativeModel
from pyro_genmodels.models._gaussian import DiagonalNormal, StandardNormal
from pyro_genmodels.models.likelihoods import Likelihood, LikelihoodName, make_likelihood
from pyro_genmodels.nets.vae import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

_WIDTHS: dict[str, tuple[int, ...]] = {"mlp": (400,), "conv": (32, 64)}


class _GaussianVAE(GenerativeModel, ABC):
    """What VAE and beta-VAE share: all but the weight of the KL term."""

    _like: Tensor

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None,
        latent_dim: int,
        network: str,
        hidden: Sequence[int] | None,
        activation: str,
        dropout: float,
        likelihood: LikelihoodName | Likelihood,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
        beta: float,
        warmup_steps: int,
    ) -> None:
        super().__init__(
            event_shape,
            num_levels=num_levels,
            num_classes=num_classes,
            context_shape=context_shape,
            beta=beta,
            warmup_steps=warmup_steps,
        )
        check_positive(latent_dim=latent_dim)
        check_choice("network", network, tuple(_WIDTHS))
        self.latent_dim = latent_dim
        self.likelihood = make_likelihood(likelihood, self.event_shape, num_levels)
        widths = _WIDTHS[network] if hidden is None else tuple(hidden)
        options: dict[str, Any] = {"activation": activation, "dropout": dropout}
        options |= {"num_classes": num_classes, "context_shape": context_shape}
        self.encoder = encoder or self._make_encoder(network, widths, options)
        self.decoder = decoder or self._make_decoder(network, widths[::-1], options)
        # A buffer only for its device and dtype, which are the model's; nothing to save.
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype in which the model computes."""
        return self._like.dtype  # the base looks for a parameter, several times a step

    def _make_encoder(
        self, network: str, widths: tuple[int, ...], options: dict[str, Any]
    ) -> nn.Module:
        features = 2 * self.latent_dim
        if network == "mlp":
            return MLPEncoder(self.event_shape, features, hidden=widths, **options)
        return ConvEncoder(self.event_shape, features, channels=widths, **options)

    def _make_decoder(
        self, network: str, widths: tuple[int, ...], options: dict[str, Any]
    ) -> nn.Module:
        shape = self.likelihood.parameter_shape
        if network == "mlp":
            return MLPDecoder(self.latent_dim, shape, hidden=widths, **options)
        return ConvDecoder(self.latent_dim, shape, channels=widths, **options)

    def encode(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None = None
    ) -> DiagonalNormal:
        """Return the posterior over the latent vector: a Gaussian of event shape ``(latent_dim,)``.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the model is conditional.

        Raises:
            ValueError: If ``x`` does not fit, or the encoder's output is not twice ``latent_dim``.
        """
        check_trailing("x", x, self.event_shape)
        return self._posterior(x.to(self.dtype), context)

    def _posterior(self, x: Tensor, context: Tensor | None) -> DiagonalNormal:
        if self.num_levels is not None:
            x = x * (2 / (self.num_levels - 1)) - 1
        features = self.encoder(x) if context is None else self.encoder(x, context)
        if features.shape[-1] != 2 * self.latent_dim:
            check_trailing("encoder(x)", features, (2 * self.latent_dim,))
        # Under autocast the network's output has few digits; the KL needs more.
        loc, log_scale = features.to(self.dtype).chunk(2, dim=-1)
        return DiagonalNormal(loc, log_scale)

    def decode(self, z: Float[Tensor, "*batch D"], context: Tensor | None = None) -> Any:
        """Return the distribution over a data point given its latent vector.

        Args:
            z: Latent vectors ``(*batch, latent_dim)``.
            context: Labels or features, if the model is conditional.

        Raises:
            ValueError: If ``z`` or the decoder's output has another trailing shape.
        """
        if z.shape[-1] != self.latent_dim:
            check_trailing("z", z, (self.latent_dim,))
        return self.likelihood(self.decoder(z) if context is None else self.decoder(z, context))

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw the latent vector from the standard Gaussian, and the data given it."""
        with self.latent_scale():
            z = pyro.sample("z", StandardNormal(self._like, self.latent_dim))
        value: Tensor = pyro.sample("x", self.decode(z, context), obs=x)
        return value

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Draw the latent vector from the encoder's Gaussian."""
        posterior = self._posterior(x, context)
        with self.latent_scale():
            pyro.sample("z", posterior)


class VAE(_GaussianVAE):
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
        encoder: Own network: data (and context, if conditional) to ``(*batch, 2 * latent_dim)``,
            the means before the log-scales.
        decoder: Own network: latents (and context) to
            ``(*batch, *likelihood.parameter_shape)``.
        num_classes: Condition encoder and decoder on labels.
        context_shape: Condition them on vectors or maps.
        warmup_steps: Training steps over which the weight of the KL term rises to one.

    Raises:
        ValueError: If an argument is out of range, or the likelihood does not fit the data.

    References:
        Kingma and Welling (2014), Auto-encoding variational Bayes.
        https://arxiv.org/abs/1312.6114. Sohn et al. (2015) for the conditional form. Lucas et
        al. (2019) for the linear one.

    Example:
        >>> vae = VAE((1, 8, 8), num_levels=17, network="conv")
        >>> vae.sample(4).shape, vae.reconstruct(torch.zeros(3, 1, 8, 8)).shape
        (torch.Size([4, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
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
            num_classes=num_classes,
            context_shape=context_shape,
            beta=1.0,
            warmup_steps=warmup_steps,
        )


class BetaVAE(_GaussianVAE):
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
            num_classes=num_classes,
            context_shape=context_shape,
            beta=beta,
            warmup_steps=warmup_steps,
        )
