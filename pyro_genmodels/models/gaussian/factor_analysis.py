"""Factor analysis and probabilistic PCA: linear Gaussian latents, everything in closed form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions.transforms import ReshapeTransform

from pyro_genmodels._checks import (
    check,
    check_choice,
    check_positive,
    check_trailing,
    integers_checked,
)
from pyro_genmodels._typing import EventShape, Float, GivenContext, ScaleName, Tensor
from pyro_genmodels.distributions import ObservedPart, observed_part
from pyro_genmodels.distributions.gaussian import StandardNormal
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.gaussian.observed_factors import ObservedFactors, factor_precision


class FactorAnalysis(GenerativeModel):
    r"""Linear Gaussian latent variables, with the exact posterior for a guide.

    .. math:: z \sim N(0, I), \quad x \sim N(W z + b, \Psi), \quad
        q(z \mid x) = N\big(M^{-1} W^T \Psi^{-1} (x - b),\, M^{-1}\big), \quad
        M = I + W^T \Psi^{-1} W

    So every bound is the exact log-likelihood, which :meth:`log_prob` gives, and training by any
    estimator is maximum likelihood: an oracle for bounds, estimators and encoders. With
    ``missing=True`` all of this is that of the observed part of each example: the rows of W and b,
    and the variances, of what is missing are left out.

    Args:
        event_shape: Sizes of one data point, ``(D,)`` or ``(C, H, W)``, continuous.
        latent_dim: Number of factors.
        noise: Variances :math:`\Psi`: ``"per_dimension"`` (factor analysis), or one that is
            ``"shared"`` (probabilistic PCA).
        missing: Whether data may have missing elements, NaN.

    Raises:
        ValueError: If a size is not positive, or there is no such noise.

    References:
        Tipping and Bishop (1999), Probabilistic principal component analysis, eq. 2-8.
        Rubin and Thayer (1982), EM algorithms for ML factor analysis.

    Example:
        >>> from pyro_genmodels import data
        >>> truth = data.PPCA(6, latent_dim=2)
        >>> model = FactorAnalysis.fit_ppca(truth.sample((20_000,)), latent_dim=2)
        >>> x = truth.sample((1000,)).float()
        >>> bool((truth.log_prob(x) - model.log_prob(x)).mean().abs() < 0.01)
        True
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 5e-3, "batch_size": 256, "max_epochs": 60, "ema_decay": 0.99}
    )

    decodes_vectors: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: EventShape,
        *,
        latent_dim: int = 8,
        noise: Literal["per_dimension", "shared"] = "per_dimension",
        missing: bool = False,
    ) -> None:
        super().__init__(event_shape)
        self.missing = missing
        check_positive(latent_dim=latent_dim)
        check_choice("noise", noise, ("per_dimension", "shared"))
        size = self.event_shape.numel()
        self.latent_dim, self.noise = latent_dim, noise
        # Not zero, a stationary point of the likelihood.
        self.loading = nn.Parameter(torch.randn(size, latent_dim) / size**0.5)
        self.loc = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(() if noise == "shared" else size))

    @classmethod
    @torch.no_grad()
    @integers_checked
    def fit_ppca(cls, x: Float[Tensor, "n ..."], latent_dim: int) -> FactorAnalysis:
        """Return probabilistic PCA's maximum of the likelihood, from the covariance's eigenvalues.

        Args:
            x: Data ``(n, *event)``, none of them missing.
            latent_dim: Number of factors, below the data's dimension.

        Raises:
            ValueError: If the factors are not fewer than dimensions and data points, or ``x`` is
                not finite.
        """
        rule = (
            "be finite: the closed form knows no missing elements, to which "
            "`training.fit(FactorAnalysis(..., missing=True), source)` fits"
        )
        wrong = int((~x.isfinite()).sum())
        check(wrong == 0, "x", rule, f"{wrong} NaN or infinite elements")
        model = cls(x.shape[1:], latent_dim=latent_dim, noise="shared").to(x)
        rows = x.flatten(1).double()
        most = min(len(rows) - 1, rows.shape[1] - 1)
        check(latent_dim <= most, "latent_dim", f"be at most {most} for these data", latent_dim)
        centred = rows - rows.mean(0)
        values, vectors = torch.linalg.eigh(centred.mT @ centred / len(rows))
        variance = values[:-latent_dim].mean()
        lengths = (values[-latent_dim:] - variance).clamp_min(0).sqrt()
        model.loading.copy_(vectors[:, -latent_dim:] * lengths)
        model.loc.copy_(rows.mean(0))
        model.log_scale.copy_(0.5 * variance.log())
        model.standardization.take_as_fitted()
        return model

    @property
    def standardization_scale(self) -> ScaleName | None:
        """One that is shared if the noise is."""
        return "per_dimension" if self.noise == "per_dimension" else "shared"

    @property
    def _scale(self) -> Tensor:
        return self.log_scale.exp().expand(self.loc.shape)

    def distribution(self, context: GivenContext = None) -> Any:
        """Return the distribution over a data point: Gaussian, of low rank plus noise.

        Args:
            context: None; the model is unconditional.

        Raises:
            ValueError: If there is a context.
        """
        self._checked_exact(context)
        self.remember_parameters()
        law = dist.LowRankMultivariateNormal(self.loc, self.loading, self._scale.square())
        if len(self.event_shape) > 1:
            law = dist.TransformedDistribution(
                law, ReshapeTransform(self.loc.shape, self.event_shape)
            )
        if self.missing:
            law = ObservedFactors(law, self.loc, self.loading, self._scale)
        return self.standardization.in_data_units(law, self.dtype)

    def log_prob(self, x: Float[Tensor, "*batch_event"]) -> Float[Tensor, "*batch"]:
        """Return the exact log-density of data, in nats.

        Raises:
            ValueError: If ``x`` does not fit.
        """
        self._checked_data(x)
        x = x if self.standardization.is_set else x.to(self.dtype)
        return self.distribution().log_prob(x)

    def posterior(self, x: Float[Tensor, "*batch_event"]) -> Any:
        """Return the exact posterior of the factors, given what was observed.

        Raises:
            ValueError: If ``x`` does not fit.
        """
        self._checked_data(x)
        return self._posterior(self.standardization.standardized(x, self.dtype))

    def _posterior(self, x: Tensor) -> Any:
        """Return the posterior given what :meth:`infer` sees of data."""
        x = x.flatten(-len(self.event_shape))
        white = self.loading / self._scale.unsqueeze(-1)
        if self.missing:
            filled, seen = observed_part(x)
            centred = (filled - self.loc) * seen
            precision = factor_precision(white, seen)
        else:
            centred = x - self.loc
            identity = torch.eye(self.latent_dim, dtype=white.dtype, device=white.device)
            precision = identity + white.mT @ white
        factor = torch.linalg.cholesky(precision)
        projected = (centred / self._scale) @ white
        loc = torch.cholesky_solve(projected.unsqueeze(-1), factor).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=precision, validate_args=False)

    def law(self) -> Any:
        """Return :meth:`distribution`; this is its former name, and deprecated."""
        warnings.warn("`law` is `distribution` now", DeprecationWarning, stacklevel=2)
        return self.distribution()

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw the factors, and the data given them."""
        with self.latent_scale():
            z = pyro.sample("z", StandardNormal(self.loc, self.latent_dim))
        return pyro.sample("x", self.decode(z), obs=x)

    def decode(self, z: Float[Tensor, "*batch D"], context: GivenContext = None) -> Any:
        """Return the distribution over a data point given the factors.

        Args:
            z: Factors ``(*batch, latent_dim)``.
            context: Not used: the model takes none.

        Raises:
            ValueError: If ``z`` does not fit.
        """
        check_trailing("z", z, (self.latent_dim,))
        mean = (z @ self.loading.mT + self.loc).unflatten(-1, self.event_shape)
        likelihood = dist.Normal(mean, self._scale.reshape(self.event_shape))
        law = likelihood.to_event(len(self.event_shape))
        law = self.standardization.in_data_units(law, self.dtype)
        return ObservedPart(law) if self.missing else law

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Draw the factors from their exact posterior."""
        with self.latent_scale():
            pyro.sample("z", self._posterior(x))
