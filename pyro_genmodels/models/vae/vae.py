"""The variational autoencoder with one group of Gaussian latent variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin

from pyro_genmodels._checks import check, check_positive, check_trailing
from pyro_genmodels._typing import EventShape, Float, GivenContext, Num, Tensor
from pyro_genmodels.distributions import with_mask
from pyro_genmodels.distributions.gaussian import StandardNormal
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.base.kl import unit_kl
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.models.likelihoods.elementwise import (
    HasLikelihood,
    Likelihood,
    LikelihoodName,
    make_likelihood,
)
from pyro_genmodels.models.vae.network import VAENetwork
from pyro_genmodels.models.vae.objectives import KLObjective, LatentCost
from pyro_genmodels.models.vae.posteriors import (
    Covariance,
    FlowPosterior,
    GaussianHead,
    GaussianPosterior,
)
from pyro_genmodels.models.vae.priors import LatentPrior
from pyro_genmodels.transforms.interop import forget


class VAE(HasLikelihood, GenerativeModel):
    r"""Variational autoencoder: Gaussian latents, amortised Gaussian posterior.

    .. math:: z \sim N(0, I), \quad x \sim p(x \mid f(z)), \quad
        q(z \mid x) = N(\mu(x), \mathrm{diag}\,\sigma^2(x))

    The networks see discrete data scaled to [-1, 1], continuous data as they are or, after
    :meth:`standardize`, standardised. With ``network=VAENetwork(hidden=())`` both networks are
    linear: over continuous data with a Gaussian likelihood of shared scale this is probabilistic
    PCA, whose posterior is of the guide's form.

    With ``missing=True`` data may have elements that were not observed, NaN. The bound is then one
    on the log-probability of the observed part, zero or less where nothing was observed:

    .. math:: \log p(x_\text{obs}) \ge \mathbb{E}_{q(z \mid x_\text{obs})}
        \big[\log p(x_\text{obs} \mid z) - \log q(z \mid x_\text{obs}) + \log p(z)\big]

    The encoder sees zeros for what is missing (the mean, of standardised data) and, as further
    channels or entries, which elements are there. Draws and reconstructions are whole;
    :meth:`impute` draws what is missing.

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        num_levels: Number of data levels, ``None`` for continuous data.
        latent_dim: Number of latent variables.
        network: Kind and sizes of encoder and decoder: ``"mlp"``, ``"conv"``, or ``"auto"``,
            convolutional for images with sides of 4 or more; or a :class:`VAENetwork`, which may
            also have own networks.
        likelihood: Name of the likelihood, or one; ``"auto"`` goes by ``num_levels``: Gaussian,
            Bernoulli or discretised logistic. Others by name are ``"categorical"``, and of counts
            ``"poisson"``, ``"negative_binomial"`` and ``"zero_inflated_negative_binomial"``;
            tables take a :class:`Columns`.
        prior: Distribution of the latents, a standard Gaussian by default: :class:`FlowPrior`,
            :class:`MixturePrior`, :class:`ModelPrior`, :class:`VampPrior`, :class:`AR1Prior`, or an
            own :class:`LatentPrior`.
        posterior: Form of the posterior: ``"diagonal"``, ``"full"`` or ``"low_rank"`` covariance,
            or a :class:`GaussianPosterior`, which may also have transforms.
        objective: Weight of the KL term in training, its warm-up, and what may stand in its place:
            a :class:`KLObjective`, or the weight alone. The ELBO by default.
        num_classes: Condition encoder and decoder on labels.
        context_shape: Condition them on vectors or maps.
        missing: Whether data may have missing elements, NaN. An autoregressive likelihood does not
            give the probability of the others, and is refused.

    Raises:
        ValueError: If an argument is out of range, or the likelihood does not fit the data.

    References:
        Kingma and Welling (2014), Auto-encoding variational Bayes.
        https://arxiv.org/abs/1312.6114. Sohn et al. (2015) for the conditional form. Lucas et
        al. (2019) for the linear one. Kingma et al. (2016), Improved variational inference with
        inverse autoregressive flow (and free bits, eq. 15). https://arxiv.org/abs/1606.04934
        Nazabal et al. (2020), Handling incomplete heterogeneous data using VAEs (missing
        elements). Collier et al. (2020), VAEs in the presence of missing data (the mask).

    Example:
        >>> import torch
        >>> vae = VAE((1, 8, 8), num_levels=17, network="conv")
        >>> vae.sample(4).shape, vae.reconstruct(torch.zeros(3, 1, 8, 8)).shape
        (torch.Size([4, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
        >>> float(VAE((5,), posterior="full", objective=KLObjective(beta=4.0)).beta)
        4.0
    """

    decodes_vectors: ClassVar[bool] = True

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "learning_rate": 1.5e-3,
            "schedule": "cosine",
            "batch_size": 32,
            "max_epochs": 90,
            "ema_decay": 0.99,
        }
    )

    default_beta: ClassVar[float] = 1.0
    """Weight of the KL term where the objective gives none."""

    _like: Tensor

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None = None,
        latent_dim: int = 32,
        network: Literal["auto", "mlp", "conv"] | VAENetwork = "auto",
        likelihood: LikelihoodName | Likelihood = "auto",
        prior: LatentPrior | None = None,
        posterior: Covariance | GaussianPosterior = "diagonal",
        objective: float | KLObjective | None = None,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        missing: bool = False,
    ) -> None:
        objective, posterior = KLObjective.of(objective), GaussianPosterior.of(posterior)
        network = VAENetwork.of(network)
        beta = self.default_beta if objective.beta is None else objective.beta
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        warmup = objective.warmup_steps
        super().__init__(
            event_shape, num_levels=num_levels, beta=beta, warmup_steps=warmup, **context
        )
        if objective.first_beta is not None:
            start = objective.first_beta / beta
            self.latent_scale = LatentScale(beta, warmup_steps=warmup, start=start)
        check_positive(latent_dim=latent_dim)
        self.latent_dim = latent_dim
        self.likelihood = make_likelihood(likelihood, self.event_shape, num_levels, context_shape)
        self.missing = missing
        given, rule = type(self.likelihood).__name__, "have independent elements with missing=True"
        check(not missing or self.likelihood.has_marginals, "likelihood", rule, given)
        flow = FlowPosterior(posterior.transforms, num_features=posterior.features)
        self.flow_posterior = flow if flow.transforms else None
        self._head = GaussianHead(latent_dim, posterior)
        self._encoder_sizes = (self._head.num_features, posterior.features)
        self.prior = prior
        self.latent_cost = None if objective.is_weighted_kl else LatentCost(objective)
        self._check_units()
        channels, *rest = self.likelihood.input_shape
        shape = (channels + self.event_shape[0] * missing, *rest)
        self.encoder = network.make_encoder(shape, sum(self._encoder_sizes), **context)
        parameters = self.likelihood.parameter_shape
        self.decoder = network.make_decoder(latent_dim, parameters, **context)
        # A buffer only for its device and dtype, which are the model's; nothing to save.
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    @property
    def beta(self) -> Tensor | float:
        """The weight of the KL term now, warm-up and learned multiplier included."""
        multiplier = 1.0 if self.latent_cost is None else self.latent_cost.multiplier
        return self.latent_scale.value * multiplier

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

    def __getstate__(self) -> dict[str, Any]:
        if self.flow_posterior is not None:
            forget(self.flow_posterior.transforms)
        return super().__getstate__()

    def encode(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> TorchDistributionMixin:
        """Return the posterior over the latent vector, of event shape ``(latent_dim,)``.

        It is a Gaussian, or what the transforms of ``posterior`` make of one.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the model is conditional.

        Raises:
            ValueError: If ``x`` does not fit, or the encoder's output has another size than twice
                ``latent_dim`` plus ``posterior.features``.
        """
        self._checked_data(x)
        context = self._given(context)
        return self._posterior(self.standardization.standardized(x, self.dtype), context)

    def _posterior(self, x: Tensor, context: Tensor | None) -> TorchDistributionMixin:
        if not self.missing:
            return self.posterior_of_scaled(self.encoder_input(x, context), context)
        scaled, seen = self.observed_input(x, context)
        return self.posterior_of_scaled(scaled, context, seen)

    def scaled(self, x: Num[Tensor, "*batch_event"], context: GivenContext = None) -> Tensor:
        """Return what the encoder sees of data, without the mask, for :meth:`posterior_of_scaled`.

        Args:
            x: Data ``(*batch, *event)``.
            context: Size factors, where the likelihood takes them.

        Returns:
            Values ``(*batch, *input_shape)``: scaled to [-1, 1], standardised, or what else the
            likelihood makes of data, with zeros for missing elements.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        self._checked_data(x)
        context = self._given(context)
        if context is not None:
            self.check_context_batch(context, tuple(x.shape[: x.dim() - len(self.event_shape)]))
        x = self.standardization.standardized(x, self.dtype)
        if self.missing:
            return self.observed_input(x, context)[0]
        return self.encoder_input(x, context)

    def posterior_of_scaled(
        self, x: Tensor, context: Tensor | None, seen: Tensor | None = None
    ) -> TorchDistributionMixin:
        """Return the posterior at what the encoder sees: scaled to [-1, 1], or standardised.

        Args:
            x: That, without the mask.
            context: As in :meth:`encode`.
            seen: Which elements are there, of a model with ``missing=True``; all by default.
        """
        if self.missing:
            x = with_mask(x, self.event_shape, seen)
        context = self._network_context(context)
        features = self.encoder(x) if context is None else self.encoder(x, context)
        if features.shape[-1] != sum(self._encoder_sizes):
            check_trailing("encoder(x)", features, (sum(self._encoder_sizes),))
        # Under autocast the network's output has few digits; the KL needs more.
        gaussian_features, extra = features.to(self.dtype).split(self._encoder_sizes, dim=-1)
        gaussian: TorchDistributionMixin = self._head(gaussian_features)
        return gaussian if self.flow_posterior is None else self.flow_posterior(gaussian, extra)

    def decode(self, z: Float[Tensor, "*batch D"], context: GivenContext = None) -> Any:
        """Return the distribution over a data point given its latent vector.

        Args:
            z: Latent vectors ``(*batch, latent_dim)``.
            context: Labels or features, if the model is conditional.

        Raises:
            ValueError: If ``z`` or the decoder's output has another trailing shape.
        """
        if z.shape[-1] != self.latent_dim:
            check_trailing("z", z, (self.latent_dim,))
        context = self._given(context)
        seen = self._network_context(context)
        decoded = self.decoder(z) if seen is None else self.decoder(z, seen)
        law = self.likelihood(decoded, self._likelihood_context(context))
        law = self.standardization.in_data_units(law, self.dtype)
        return self.likelihood.observed_part(law) if self.missing else law

    @property
    def like(self) -> Float[Tensor, ""]:
        """A tensor of the model's dtype and device."""
        return self._like

    def prior_law(self, context: GivenContext = None) -> Any:
        """Return the distribution of the latent vector before any data.

        Args:
            context: Labels or features, if the model is conditional and its prior is.
        """
        context = self._given(context)
        if self.prior is None:
            return StandardNormal(self._like, self.latent_dim)
        return self.prior(self, context)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw the latent vector from its prior, and the data given it."""
        with self.latent_scale(), self._masked():
            z = pyro.sample("z", self.prior_law(context))
        return pyro.sample("x", self.decode(z, context), obs=x)

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
