"""What the VAE and the beta-VAE share: one group of latent variables and an amortised posterior."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_choice, check_positive, check_trailing
from pyro_genmodels._typing import EventShape, Float, Num, ScaleName, Tensor
from pyro_genmodels.distributions.gaussian import StandardNormal
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.base.kl import unit_kl
from pyro_genmodels.models.likelihoods.elementwise import (
    Likelihood,
    LikelihoodName,
    make_likelihood,
)
from pyro_genmodels.models.vae.objectives import LatentCost
from pyro_genmodels.models.vae.posteriors import FlowPosterior, GaussianHead, PosteriorTransforms
from pyro_genmodels.models.vae.priors import LatentPrior
from pyro_genmodels.nets.autoencoders import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from pyro_genmodels.transforms.interop import forget

_WIDTHS: dict[str, tuple[int, ...]] = {"mlp": (400,), "conv": (32, 64)}


class GaussianVAE(GenerativeModel, Abstract):
    """A VAE with Gaussian latents and any weight of the KL term."""

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
        prior: LatentPrior | None,
        posterior: str,
        posterior_rank: int,
        posterior_transforms: PosteriorTransforms,
        posterior_features: int,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
        beta: float,
        warmup_steps: int,
        latent_cost: LatentCost,
        posterior_log_scale: float | None = None,
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
        flow = FlowPosterior(posterior_transforms, num_features=posterior_features)
        self.flow_posterior = flow if flow.transforms else None
        self._head = GaussianHead(
            latent_dim, posterior, posterior_rank, log_scale=posterior_log_scale
        )
        self._encoder_sizes = (self._head.num_features, posterior_features)
        self.prior = prior
        self.latent_cost = None if latent_cost.is_kl else latent_cost
        self._check_units()
        widths = _WIDTHS[network] if hidden is None else tuple(hidden)
        options: dict[str, Any] = {"activation": activation, "dropout": dropout}
        options |= {"num_classes": num_classes, "context_shape": context_shape}
        self.encoder = encoder or self._make_encoder(network, widths, options)
        self.decoder = decoder or self._make_decoder(network, widths[::-1], options)
        # A buffer only for its device and dtype, which are the model's; nothing to save.
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    def _check_units(self) -> None:
        """Raise ``ValueError`` if free bits are asked of units that the posterior has not."""
        cost = self.latent_cost
        if cost is not None and cost.free_bits > 0 and cost.per_unit:
            apart = self._head.covariance == "diagonal" and self.flow_posterior is None
            apart = apart and self.prior is None
            rule = "be 'group' unless posterior and prior are diagonal Gaussians"
            check(apart, "free_bits_per", rule, "'unit'")

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype in which the model computes."""
        return self._like.dtype  # the base looks for a parameter, several times a step

    def _make_encoder(
        self, network: str, widths: tuple[int, ...], options: dict[str, Any]
    ) -> nn.Module:
        features = sum(self._encoder_sizes)
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

    def __getstate__(self) -> dict[str, Any]:
        if self.flow_posterior is not None:
            forget(self.flow_posterior.transforms)
        return super().__getstate__()

    def encode(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None = None
    ) -> TorchDistributionMixin:
        """Return the posterior over the latent vector, of event shape ``(latent_dim,)``.

        It is a Gaussian, or what ``posterior_transforms`` make of one.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the model is conditional.

        Raises:
            ValueError: If ``x`` does not fit, or the encoder's output has another size than twice
                ``latent_dim`` plus ``posterior_features``.
        """
        check_trailing("x", x, self.event_shape)
        self._check_context_values(context)
        return self._posterior(self.standardization.standardized(x, self.dtype), context)

    def _posterior(self, x: Tensor, context: Tensor | None) -> TorchDistributionMixin:
        if self.num_levels is not None:
            x = x * (2 / (self.num_levels - 1)) - 1
        return self.posterior_of_scaled(x, context)

    def posterior_of_scaled(self, x: Tensor, context: Tensor | None) -> TorchDistributionMixin:
        """Return the posterior at what the encoder sees: scaled to [-1, 1], or standardised."""
        features = self.encoder(x) if context is None else self.encoder(x, context)
        if features.shape[-1] != sum(self._encoder_sizes):
            check_trailing("encoder(x)", features, (sum(self._encoder_sizes),))
        # Under autocast the network's output has few digits; the KL needs more.
        gaussian_features, extra = features.to(self.dtype).split(self._encoder_sizes, dim=-1)
        gaussian: TorchDistributionMixin = self._head(gaussian_features)
        return gaussian if self.flow_posterior is None else self.flow_posterior(gaussian, extra)

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
        self._check_context_values(context)
        law = self.likelihood(self.decoder(z) if context is None else self.decoder(z, context))
        return self.standardization.in_data_units(law, self.dtype)

    @property
    def standardization_scale(self) -> ScaleName | None:
        """That of the likelihood."""
        return self.likelihood.standardization_scale

    @property
    def like(self) -> Float[Tensor, ""]:
        """A tensor of the model's dtype and device."""
        return self._like

    def prior_law(self, context: Tensor | None = None) -> Any:
        """Return the distribution of the latent vector before any data.

        Args:
            context: Labels or features, if the model is conditional and its prior is.
        """
        self._check_context_values(context)
        if self.prior is None:
            return StandardNormal(self._like, self.latent_dim)
        return self.prior(self, context)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw the latent vector from its prior, and the data given it."""
        with self.latent_scale(), self._masked():
            z = pyro.sample("z", self.prior_law(context))
        value: Tensor = pyro.sample("x", self.decode(z, context), obs=x)
        return value

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Draw the latent vector from the posterior that the encoder gives."""
        posterior = self._posterior(x, context)
        with self.latent_scale():
            with self._masked():
                z = pyro.sample("z", posterior)
            if self.latent_cost is not None and not self.is_bounding:
                batch_dim = x.dim() - len(self.event_shape)
                self._pay(self.latent_cost, posterior, z, context, batch_dim)

    @property
    def can_be_traced(self) -> bool:
        """Whether the likelihood is not autoregressive, and training moves no weight of the KL."""
        cost = self.latent_cost
        # A trace drops a change that nothing in it reads.
        moves = cost is not None and (cost.capacity is not None or cost.rate is not None)
        autoregressive = getattr(self.likelihood, "net", None) is not None
        return not autoregressive and not (moves and self.training)

    def beside_elbo(self) -> list[str]:
        """Name also what the latents cost in the place of their KL divergence."""
        cost = self.latent_cost
        return super().beside_elbo() + ([] if cost is None else cost.parts)

    def _masked(self) -> AbstractContextManager[object]:
        """Take the latent site out of the objective, if a factor stands for it."""
        masked: AbstractContextManager[object] = nullcontext()
        if self.latent_cost is not None and not self.is_bounding:
            masked = poutine.mask(mask=False)
        return masked

    def _pay(
        self,
        cost: LatentCost,
        posterior: Any,
        z: Tensor,
        context: Tensor | None,
        batch_dim: int,
    ) -> None:
        kl = unit_kl(posterior, self.prior_law(context), z)
        # A minibatch is all of the batch's dimensions; those to their left are particles.
        *left, units = kl.shape
        minibatch = kl.reshape(*left[: len(left) - batch_dim], -1, units)
        # In a guide a factor's sign turns: this one lowers the ELBO by the cost.
        pyro.factor("latent_cost", cost(minibatch).reshape(left), has_rsample=True)
        if self.training and torch.is_grad_enabled():
            cost.advance(kl)
