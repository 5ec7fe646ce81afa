"""Priors of latent vectors beyond the standard Gaussian."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import Transform

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import (
    check,
    check_event_shape,
    check_finite,
    check_positive,
    check_trailing,
)
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import EventShape, Num, Tensor
from pyro_genmodels.distributions import Mixture
from pyro_genmodels.distributions.ar1 import AR1Normal
from pyro_genmodels.distributions.gaussian import StandardNormal
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.nets.layers import set_values
from pyro_genmodels.transforms.interop import FlowDensity, as_list, forget, modules

PriorTransforms: TypeAlias = Transform | Sequence[Transform]


class LatentPrior(Configured, nn.Module, Abstract):
    """The law of a VAE's latent vector before any data are seen.

    A part of the VAE, which trains and saves it. Where its KL divergence from the posterior has no
    closed form, every estimator takes it at the draw.
    """

    @abstractmethod
    def forward(self, vae: Any, context: Tensor | None) -> Any:
        """Return the distribution of event shape ``(vae.latent_dim,)``.

        Args:
            vae: The model whose prior it is.
            context: What the model is conditioned on, if anything.
        """


class FlowPrior(LatentPrior):
    r"""What transforms make of the standard Gaussian.

    .. math:: z = f_T \circ \dots \circ f_1(\epsilon), \quad \epsilon \sim N(0, I)

    Args:
        transforms: Transforms of vectors in the order of sampling: this package's, Pyro's or
            torch's. They must go both ways, as a coupling does: latents are scored.

    Raises:
        ValueError: If there is none.

    References:
        Chen et al. (2017), Variational lossy autoencoder, section 3.2.
        https://arxiv.org/abs/1611.02731

    Example:
        >>> from pyro_genmodels import models, transforms
        >>> prior = FlowPrior(transforms.affine_coupling(4))
        >>> models.VAE((6,), latent_dim=4, prior=prior).sample(3).shape
        torch.Size([3, 6])
    """

    def __init__(self, transforms: PriorTransforms) -> None:
        super().__init__()
        self.transforms = as_list(transforms)
        check(len(self.transforms) > 0, "transforms", "be one transform or more", "none")
        self.parts = modules(self.transforms)

    def forward(self, vae: Any, context: Tensor | None) -> Any:
        """Return the transformed Gaussian."""
        # Pyro's transforms remember what they saw: after a step the same latents score anew.
        forget(self.transforms)
        return FlowDensity(StandardNormal(vae.like, vae.latent_dim), self.transforms)

    def __getstate__(self) -> dict[str, Any]:
        forget(self.transforms)
        return dict(self.__dict__)


class VampPrior(LatentPrior):
    r"""The mixture of the posteriors at learned pseudo-inputs.

    .. math:: p(z) = \frac{1}{K} \sum_{k=1}^{K} q(z \mid u_k)

    Args:
        event_shape: Sizes of what the encoder sees of one data point: the model's
            ``input_shape``.
        num_components: Number K of pseudo-inputs. They are on the scale that the encoder sees:
            discrete data in [-1, 1], continuous data standardised where the model was, logarithms
            of counts, categories one-hot.

    Raises:
        ValueError: If a size is not positive.

    References:
        Tomczak and Welling (2018), VAE with a VampPrior, eq. 9. https://arxiv.org/abs/1705.07120

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> vae = VAE((6,), latent_dim=4, prior=VampPrior((6,), num_components=5))
        >>> vae.prior.initialize(torch.randn(100, 6), vae=vae)
        >>> vae.sample(3).shape
        torch.Size([3, 6])
    """

    def __init__(self, event_shape: EventShape, *, num_components: int = 100) -> None:
        super().__init__()
        check_positive(num_components=num_components)
        self.event_shape = check_event_shape(event_shape)
        self.num_components = num_components
        self.pseudo_inputs = nn.Parameter(0.5 * torch.randn(num_components, *self.event_shape))

    @torch.no_grad()
    def initialize(
        self,
        x: Num[Tensor, "n ..."],
        num_levels: int | None = None,
        *,
        vae: Any = None,
        context: Tensor | None = None,
    ) -> None:
        """Set the pseudo-inputs to data points: the first ones, over again if there are too few.

        Frozen ones keep their values.

        Args:
            x: Data ``(n, *event)`` as the model takes them. Without ``vae`` they are what its
                encoder sees, but for levels, which are scaled: neither counts nor categories,
                none missing, and standardised where the model was.
            num_levels: Number of levels of discrete data, without ``vae``.
            vae: The model whose prior it is, after its ``standardize``: logarithms of counts,
                one-hot categories, standardised data, and zeros for missing elements are then made
                as for its encoder.
            context: Size factors of the data ``(n, ...)``, where the likelihood takes them.

        Raises:
            ValueError: If an argument does not fit, or ``x`` is not finite without ``vae``.
        """
        if vae is None:
            check_trailing("x", x, self.event_shape)
            check_finite("x", x)
            check(context is None, "context", "be left out without vae", "a context")
            scaled = x if num_levels is None else x * (2 / (num_levels - 1)) - 1
        else:
            check(num_levels is None, "num_levels", "be left out with vae", num_levels)
            self._check_fits(vae)
            scaled = vae.scaled(x, context)
        rows = scaled[torch.arange(self.num_components, device=x.device) % len(x)]
        set_values(self.pseudo_inputs, rows.to(self.pseudo_inputs))

    def _check_fits(self, vae: Any) -> None:
        shape = tuple(vae.input_shape)
        rule = f"have pseudo-inputs of shape {shape}"
        check(shape == tuple(self.event_shape), "prior", rule, tuple(self.event_shape))

    def forward(self, vae: Any, context: Tensor | None) -> Any:
        """Return the mixture; over a batch of contexts each has its own."""
        self._check_fits(vae)
        if context is not None:
            context = context.unsqueeze(-1 - (vae.context_event_dim or 0))
        components = vae.posterior_of_scaled(self.pseudo_inputs, context)
        logits = torch.zeros(components.batch_shape, dtype=vae.dtype, device=vae.like.device)
        mixing = dist.Categorical(logits=logits, validate_args=False)
        return dist.MixtureSameFamily(mixing, components, validate_args=False)


class MixturePrior(LatentPrior):
    r"""A mixture of diagonal Gaussians, whose weights, means and scales are learned.

    .. math:: p(z) = \sum_{k=1}^{K} w_k\, N\big(z; \mu_k, \mathrm{diag}\, \sigma_k^2\big)

    Args:
        latent_dim: Number of latent variables, the model's.
        num_components: Number K of Gaussians.

    Raises:
        ValueError: If a size is not positive.

    References:
        Dilokthanakul et al. (2016), Deep unsupervised clustering with Gaussian mixture variational
        autoencoders. https://arxiv.org/abs/1611.02648. Here the components' parameters are plain
        ones, and the component is summed out.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> VAE((6,), latent_dim=4, prior=MixturePrior(4, num_components=5)).sample(3).shape
        torch.Size([3, 6])
    """

    def __init__(self, latent_dim: int, *, num_components: int = 10) -> None:
        super().__init__()
        check_positive(latent_dim=latent_dim, num_components=num_components)
        self.latent_dim, self.num_components = latent_dim, num_components
        self.logits = nn.Parameter(torch.zeros(num_components))
        # Apart, so that they do not stay equal.
        self.loc = nn.Parameter(torch.randn(num_components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(num_components, latent_dim))

    def components(self) -> Any:
        """Return the Gaussians, a distribution with batch shape ``(K,)``."""
        law = dist.Normal(self.loc, self.log_scale.exp(), validate_args=False)
        return law.to_event(1)

    def forward(self, vae: Any, context: Tensor | None) -> Any:
        """Return the mixture."""
        rule = f"be a mixture of {vae.latent_dim} latent variables, the model's"
        check(self.latent_dim == vae.latent_dim, "prior", rule, self.latent_dim)
        return Mixture(self.logits, self.components(), validate_args=False)


class ModelPrior(LatentPrior):
    """The distribution of any exact model of vectors: a mixture, a flow, a Gaussian.

    Args:
        model: The model, of continuous data ``(latent_dim,)``. If it is conditional, it gets the
            context of the VAE.

    Raises:
        ValueError: If its data are levels or no vectors.

    Example:
        >>> from pyro_genmodels import models
        >>> prior = ModelPrior(models.maf((4,), hidden=(16,)))
        >>> models.VAE((6,), latent_dim=4, prior=prior).sample(3).shape
        torch.Size([3, 6])
    """

    def __init__(self, model: GenerativeModel) -> None:
        super().__init__()
        fits = model.num_levels is None and len(model.event_shape) == 1
        given = f"{type(model).__name__} of {tuple(model.event_shape)}"
        check(fits, "model", "be a model of continuous vectors", given)
        self.model = model

    def forward(self, vae: Any, context: Tensor | None) -> Any:
        """Return the model's distribution."""
        size, expected = tuple(self.model.event_shape), (vae.latent_dim,)
        check(size == expected, "prior", f"be a model of vectors {expected}", size)
        given = None if self.model.context_event_dim is None else context
        return self.model.distribution(given)


class AR1Prior(LatentPrior):
    r"""A stationary first-order autoregression over the steps of a latent sequence.

    .. math:: z_1 \sim N(0, I), \quad z_t \sim N(\alpha z_{t-1}, 1 - \alpha^2)

    Args:
        correlation: The :math:`\alpha` of all features.
        num_steps: Number of steps; the latent vector is their features, step by step.

    Raises:
        ValueError: If the correlation is not from 0 to 1, or there is no step.

    References:
        Razavi et al. (2019), Preventing posterior collapse with delta-VAEs, eq. 2.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> VAE((6,), latent_dim=8, prior=AR1Prior(0.9, num_steps=4)).sample(3).shape
        torch.Size([3, 6])
    """

    def __init__(self, correlation: float, *, num_steps: int) -> None:
        super().__init__()
        check(0 <= correlation < 1, "correlation", "be at least 0 and below 1", correlation)
        check_positive(num_steps=num_steps)
        self.correlation, self.num_steps = correlation, num_steps

    def forward(self, vae: Any, context: Tensor | None) -> Any:
        """Return the law of the sequence, flattened."""
        return AR1Normal(vae.like, vae.latent_dim, self.correlation, self.num_steps)
