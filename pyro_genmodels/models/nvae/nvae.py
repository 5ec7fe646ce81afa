"""NVAE: a deep hierarchy of Gaussian maps over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, ClassVar

import pyro
from pyro import poutine

from pyro_genmodels._checks import check, check_positive, check_trailing
from pyro_genmodels._typing import EventShape, Float, GivenContext, Num, Tensor
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.base.kl import divergence
from pyro_genmodels.models.base.plates import central_value
from pyro_genmodels.models.likelihoods.elementwise import (
    HasLikelihood,
    Likelihood,
    LikelihoodName,
    make_likelihood,
)
from pyro_genmodels.models.likelihoods.logistic_mixture import LogisticMixtureLikelihood
from pyro_genmodels.models.nvae.batch_norm import reestimate
from pyro_genmodels.models.nvae.hierarchy import Hierarchy, Step
from pyro_genmodels.models.nvae.objective import NVAEObjective, WeightRegularizer, add_divergences
from pyro_genmodels.nets.nvae import NVAENetwork


class NVAE(HasLikelihood, GenerativeModel):
    r"""Hierarchy of groups of Gaussian maps, drawn from the coarsest scale to the finest.

    .. math:: z_1 \sim N(0, 1.01^2), \quad z_l \sim p(z_l \mid z_{<l}), \quad
        x \sim p(x \mid z_{1:L}), \quad q(z_l \mid x, z_{<l}) =
        N(\mu_l + \Delta\mu_l(x),\; \sigma_l \, \Delta\sigma_l(x))

    The posterior is relative to the prior (eq. 2), and with flows is what autoregressive shifts
    make of that. Its mean and log-scale, the prior's shift included, are softly clamped to +-5, and
    0.01 is added to every scale: hence the first prior's. Sites are ``z_1`` (the top) to ``z_L``.
    The top-down pass is the guide's, and serves the model.

    In training, while the KL terms' weight rises, they are balanced between groups; spectral norms
    of the convolutions and scales of the batch norms are penalised. In eval mode, and in
    :meth:`bounding`, there is neither.

    Batch norm makes likelihoods in training depend on the batch. For sampling at a low temperature
    see :meth:`reestimate_batch_norm`.

    Args:
        event_shape: Sizes of one image, ``(C, H, W)``; the towers see it padded.
        num_levels: Number of data levels, ``None`` for continuous data.
        network: Sizes of both towers: an :class:`NVAENetwork`, or its ``num_groups`` alone.
        likelihood: Name of the likelihood, or one; ``"auto"`` is Bernoulli for two levels, a
            mixture of ten discretised logistics for more, and Gaussian for continuous data.
        objective: Weights of the training: an :class:`NVAEObjective`, or its ``beta`` alone.
        num_classes: Condition both towers on labels.
        context_shape: Condition them on vectors or maps.

    Raises:
        ValueError: If an argument is out of range, or the likelihood does not fit the data.

    References:
        Vahdat and Kautz (2020), NVAE: a deep hierarchical variational autoencoder.
        https://arxiv.org/abs/2007.03898

    Example:
        >>> from pyro_genmodels.models import NVAENetwork
        >>> network = NVAENetwork((1, 2), channels=4, latent_channels=2)
        >>> nvae = NVAE((1, 7, 9), num_levels=2, network=network)
        >>> nvae.latent_shapes
        [(2, 2, 3), (2, 4, 6), (2, 4, 6)]
        >>> nvae.sample(5, temperature=0.7).shape
        torch.Size([5, 1, 7, 9])
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "optimizer": "adamax",
            "learning_rate": 1e-2,
            "epsilon": 1e-3,
            "weight_decay": 3e-4,
            "schedule": "cosine",
            "final_learning_rate": 1e-4,
            "batch_size": 64,
            "max_epochs": 200,
        }
    )

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None = None,
        network: Sequence[int] | NVAENetwork = (2, 3),
        likelihood: LikelihoodName | Likelihood = "auto",
        objective: float | NVAEObjective = 1.0,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        network, objective = NVAENetwork.of(network), NVAEObjective.of(objective)
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(
            event_shape,
            num_levels=num_levels,
            beta=objective.beta,
            warmup_steps=objective.warmup_steps,
            **context,
        )
        check(len(self.event_shape) == 3, "event_shape", "be (C, H, W)", tuple(event_shape))
        self.balancing, self._temperature = objective.balancing, 1.0
        self.likelihood = self._make_likelihood(likelihood)
        channels = self.likelihood.parameter_shape[0]
        self.hierarchy = Hierarchy(network, self.event_shape, channels, **context)
        self.regularizer = WeightRegularizer(self.hierarchy, objective)

    def _make_likelihood(self, likelihood: LikelihoodName | Likelihood) -> Likelihood:
        levels = self.num_levels
        if likelihood == "auto" and levels is not None and levels > 2:
            return LogisticMixtureLikelihood(self.event_shape, levels)
        return make_likelihood(likelihood, self.event_shape, levels)

    @property
    def site_names(self) -> list[str]:
        """``z_1`` for the top, and so on."""
        return [f"z_{group + 1}" for group in range(len(self.latent_shapes))]

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Shape of each group's map, from the top."""
        return self.hierarchy.latent_shapes

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Draw the groups from their posteriors, top down; add the training's terms."""
        features = self._features(x, context)
        record = self.shared_pass.begin(x, context, self._temperature)
        latents, divergences = list[Tensor](), list[Tensor]()
        step: Step | None = None
        with self.latent_scale():
            for group, name in enumerate(self.site_names):
                step = self._next(step, latents, context)
                record.add_work(step)
                posterior = self.hierarchy.posterior(group, features[group], step)
                latents.append(self._drawn_site(name, posterior))
                record.add_latent(latents[-1])
                if self._balances:
                    divergences.append(divergence(posterior, step.prior, latents[-1]))
        if divergences:
            add_divergences(divergences, self.hierarchy.sizes.num_groups, self.latent_scale)
        if self.training and not self.is_bounding:
            progress = self.latent_scale.value / self.latent_scale.beta
            self.regularizer.add(progress, x.shape[:-3])

    def _features(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        # Padded before it is scaled: the margin is the level 0, not the middle of the range.
        padded = self.hierarchy.padded(x)
        return self.hierarchy.features(self.encoder_input(padded, context), context)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw the groups from their priors, top down, and the data given all of them."""
        record = self.shared_pass.take(x, context, self._temperature)
        latents = list[Tensor]()
        step: Step | None = None
        with self.latent_scale():
            for name in self.site_names:
                found: Step | None = self.shared_pass.look_up(record, latents)
                step = self._next(step, latents, context) if found is None else found
                latents.append(self._drawn_site(name, step.prior))
        assert step is not None  # there is a group
        decoded = self.hierarchy.decoded(step, latents[-1])
        return pyro.sample("x", self.likelihood(decoded), obs=x)

    def draw_latents(self, context: GivenContext = None) -> Any:
        """Draw the groups from their priors as sites of the program around this call.

        So the model is a prior in a larger program, which gives what is known of the data a
        likelihood of its own: some pixels, or noisy ones. Sites are named as in :meth:`model`.

        Args:
            context: Labels or features, if the model is conditional.

        Returns:
            The distribution over data given the draws.

        Raises:
            ValueError: If the context does not fit.

        Example:
            >>> nvae = NVAE((1, 8, 8), num_levels=2).eval().requires_grad_(False)
            >>> def noisy(x=None):
            ...     pixels = pyro.distributions.Normal(nvae.draw_latents().mean, 0.1)
            ...     return pyro.sample("noisy", pixels.to_event(3), obs=x)
            >>> noisy().shape
            torch.Size([1, 8, 8])
        """
        _, context, _ = self._checked(None, context)
        return self._law_given(self._top_down(pyro.sample, context))

    def encode(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None, *, sample: bool = False
    ) -> list[Tensor]:
        """Return a map of latents for every group, which :meth:`decode` takes.

        A group's posterior depends on the maps above it, so it is known only once these are: by
        default each map is its posterior's mean given the means above (with flows, what they make
        of the Gaussian's mean).

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the model is conditional.
            sample: Draw every map from its posterior instead, given the draws above.

        Returns:
            Maps ``(*batch, *latent_shapes[l])``, from the top; differentiable.

        Raises:
            ValueError: If ``x`` or the context does not fit.

        Example:
            >>> import torch
            >>> nvae, x = NVAE((1, 8, 8), num_levels=2).eval(), torch.zeros(3, 1, 8, 8)
            >>> latents = nvae.encode(x)
            >>> latents[0].shape, nvae.decode(latents).mean.shape
            (torch.Size([3, 8, 2, 2]), torch.Size([3, 1, 8, 8]))
        """
        _, context, _ = self._checked_alone(x, context)
        seen = self.standardization.standardized(x, self.dtype)
        latents, step = list[Tensor](), None
        for group, features in enumerate(self._features(seen, context)):
            step = self._next(step, latents, context)
            posterior = self.hierarchy.posterior(group, features, step)
            latents.append(posterior.rsample() if sample else central_value(posterior))
        return latents

    def decode(self, latents: Sequence[Tensor], context: GivenContext = None) -> Any:
        """Return the distribution over data given all groups.

        Args:
            latents: Maps ``(*batch, *latent_shapes[l])`` of every group, from the top.
            context: Labels or features, if the model is conditional.

        Raises:
            ValueError: If the number of maps or a shape is another, or the context does not fit.
        """
        _, context, _ = self._checked(None, context)
        names = self.site_names
        check(len(latents) == len(names), "latents", f"be {len(names)} maps", len(latents))
        given = dict(zip(names, latents, strict=True))
        for name, shape in zip(names, self.latent_shapes, strict=True):
            check_trailing(name, given[name], shape)
        return self._law_given(self._top_down(lambda name, _: given[name], context))

    def _law_given(self, decoded: Tensor) -> Any:
        return self.standardization.in_data_units(self.likelihood(decoded), self.dtype)

    def sample(
        self, num_samples: int = 1, context: GivenContext = None, *, temperature: float = 1.0
    ) -> Float[Tensor, "num_samples *batch_event"]:
        """Draw data from the model, in eval mode.

        Args:
            num_samples: Number of draws (for each context).
            context: Labels or features ``(*batch, ...)``, if the model is conditional.
            temperature: Factor of all priors' scales. Below one, less varied and often better
                looking images, and no draws from the model.

        Returns:
            Data ``(num_samples, *batch, *event)``.

        Raises:
            ValueError: If a number is not positive or the context does not fit.
        """
        with self._at(temperature):
            return super().sample(num_samples, context)

    def reestimate_batch_norm(
        self,
        num_iterations: int = 500,
        *,
        temperature: float = 1.0,
        batch_size: int = 64,
        context: GivenContext = None,
    ) -> int:
        """Let the decoder's batch norms take their statistics from samples, in place.

        In training they come from posterior draws. At a low temperature the decoder sees others,
        and its images improve with their statistics. The model's likelihoods change too: bounds
        are to be measured before, or on a copy.

        Args:
            num_iterations: Batches that are drawn.
            temperature: Temperature of the sampling to come.
            batch_size: Draws a batch, for each context.
            context: Contexts ``(*batch, ...)``, if the model is conditional.

        Returns:
            How many batches were left out, for a number in them that is not finite.

        Raises:
            ValueError: If a number is not positive or the context does not fit.
        """
        check_positive(num_iterations=num_iterations, batch_size=batch_size)
        _, context, batch = self._checked(None, context)
        # A batch that is not finite is left out, not an error.
        with self._at(temperature), pyro.validation_enabled(False):
            return reestimate(
                self.hierarchy.decoder,
                lambda: self._drawn((batch_size, *batch), context),
                num_iterations,
            )

    def _drawn(self, batch: tuple[int, ...], context: Tensor | None) -> Tensor:
        """Return the likelihood's numbers given draws from the priors, without a program."""
        return self._top_down(lambda _, prior: prior.expand(batch).rsample(), context)

    def _top_down(self, choose: Callable[[str, Any], Tensor], context: Tensor | None) -> Tensor:
        """Return the likelihood's numbers given latents, each chosen by its name and prior."""
        step: Step | None = None
        latents: list[Tensor] = []
        for name in self.site_names:
            step = self._next(step, latents, context)
            latents.append(choose(name, step.prior))
        assert step is not None  # there is a group
        return self.hierarchy.decoded(step, latents[-1])

    def _next(self, step: Step | None, latents: list[Tensor], context: Tensor | None) -> Step:
        """Return what is known before the group that follows these latents."""
        if step is None:
            return self.hierarchy.first_step(context, self._temperature)
        return self.hierarchy.next_step(len(latents), step, latents[-1], self._temperature)

    def beside_elbo(self) -> list[str]:
        """Name also the penalty of spectral and batch norms."""
        weight = self.regularizer.weight
        return super().beside_elbo() + ([f"regularization {weight:g}"] if weight else [])

    @contextmanager
    def _at(self, temperature: float) -> Iterator[None]:
        check_positive(temperature=temperature)
        before, self._temperature = self._temperature, temperature
        try:
            yield
        finally:
            self._temperature = before

    @property
    def _balances(self) -> bool:
        """Whether the KL terms' weights depend on their values: then they are one factor."""
        # Also after the warm-up, where they are all one: to know would be to ask the device.
        warms_up = self.balancing and self.latent_scale.warmup_steps > 0
        return warms_up and self.training and not self.is_bounding

    def _drawn_site(self, name: str, distribution: Any) -> Tensor:
        """Draw a group; balanced KL terms are a factor of their own, and the site has none."""
        with poutine.mask(mask=False) if self._balances else nullcontext():
            z: Tensor = pyro.sample(name, distribution)
        return z
