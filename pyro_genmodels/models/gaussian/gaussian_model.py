"""Gaussians, one or one for each label: exact, with any form of covariance."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions.transforms import ReshapeTransform

from pyro_genmodels._checks import check, check_choice, check_positive, integers_checked
from pyro_genmodels._typing import EventShape, Float, GivenContext, Num, ScaleName, Tensor
from pyro_genmodels.distributions import (
    IndependentElements,
    ObservedPart,
    Rescaled,
    WhitenedNormal,
    inverse_triangular,
)
from pyro_genmodels.models.base.generative_model import DensityModel
from pyro_genmodels.models.gaussian.class_scores import (
    dense_scores,
    diagonal_scores,
    factor_scores,
)
from pyro_genmodels.models.gaussian.observed_factors import ObservedFactors
from pyro_genmodels.models.gaussian.observed_normal import ObservedNormal
from pyro_genmodels.nets.layers import check_context

CovarianceName = Literal["full", "tied", "diagonal", "spherical", "low_rank"]
Moments = tuple[Tensor, Tensor | tuple[Tensor, Tensor]]


class GaussianModel(DensityModel):
    r"""Data are Gaussian, given their label if there are labels: :math:`x \sim N(\mu_y, \Sigma_y)`.

    The density is exact, and so is the marginal of what was observed of data with missing elements.
    A dense covariance is given by regressions of each element on those before it, any values of
    which are possible: with their scales :math:`s` and coefficients :math:`B`, strictly lower
    triangular, :math:`\operatorname{diag}(s)^{-1} (I + B)(x - \mu)` is white. At the start
    elements are independent with the variance of standardised data, and the means of several labels
    differ at random, which a mixture needs.

    Of data with levels the density is that of dequantised values, and the ELBO a bound, as a flow's
    is.

    Args:
        event_shape: Sizes of one data point; of an image all elements together are one Gaussian.
        covariance: ``"full"``, one for each label; ``"tied"``, one for all labels;
            ``"diagonal"``, independent elements; ``"spherical"``, one variance for all elements;
            ``"low_rank"``, :math:`W W^T + \Psi` with ``rank`` columns and a diagonal, as of factor
            analysis.
        rank: Number of columns of a low-rank covariance, and of no other.
        num_levels: Data are the integers ``0 .. num_levels - 1``; ``None`` for continuous data.
        num_classes: The context is a label below this number.
        missing: Whether data may have missing elements, NaN; of continuous data.

    Raises:
        ValueError: If a size is impossible, there is no such covariance, a rank is missing or not
            wanted, or data with levels are to have missing elements.

    References:
        Pourahmadi (1999), Joint mean-covariance models, Biometrika 86 (the regressions).

    Example:
        >>> model = GaussianModel((2,), covariance="diagonal", num_classes=3)
        >>> x, labels = torch.zeros(5, 2), torch.tensor([0, 1, 2, 0, 1])
        >>> model.distribution(labels).log_prob(x).shape, model.class_log_probs(x).shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-2, "batch_size": 256, "max_epochs": 60, "ema_decay": 0.99}
    )

    imputes: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: EventShape,
        *,
        covariance: CovarianceName = "full",
        rank: int | None = None,
        num_levels: int | None = None,
        num_classes: int | None = None,
        missing: bool = False,
    ) -> None:
        super().__init__(event_shape, num_levels=num_levels, num_classes=num_classes)
        check_choice("covariance", covariance, get_args(CovarianceName))
        wanted = covariance == "low_rank"
        rule = "be given for a low-rank covariance, and for no other"
        check(wanted == (rank is not None), "rank", rule, f"{rank} with covariance={covariance!r}")
        check(not (missing and num_levels), "missing", "be False of data with levels", missing)
        self.covariance, self.rank, self.missing = covariance, rank, missing
        size, classes = self.event_shape.numel(), num_classes or 1
        start = torch.zeros(1, size) if classes == 1 else torch.randn(classes, size) / size**0.5
        self.loc = nn.Parameter(start)
        own = 1 if covariance == "tied" else classes
        self.log_scale = nn.Parameter(torch.zeros(own, 1 if covariance == "spherical" else size))
        if covariance in ("full", "tied") and size > 1:
            # In a row: a matrix would hold more numbers than there are parameters.
            self.coefficients = nn.Parameter(torch.zeros(own, size * (size - 1) // 2))
        if rank is not None:
            check_positive(rank=rank)
            check(rank <= size, "rank", f"be at most {size}, the data's elements", rank)
            # Not zero, a stationary point of the likelihood.
            self.loading = nn.Parameter(torch.randn(classes, size, rank) / size**0.5)

    @property
    def standardization_scale(self) -> ScaleName | None:
        """One that is shared by all elements if the variance is."""
        kind = super().standardization_scale
        return "shared" if kind is not None and self.covariance == "spherical" else kind

    def density(self, context: GivenContext = None) -> Any:
        """Return the Gaussian of data, or of dequantised data, in their units.

        Args:
            context: Labels ``(*batch,)``, if the model is conditional.

        Raises:
            ValueError: If the context does not fit.
        """
        self.remember_parameters()
        labels = self._given(context)
        check_context(labels, num_classes=self.num_classes)
        law = self._law(labels)
        if self.num_levels is None:
            return self.standardization.in_data_units(law, self.dtype)
        return Rescaled(law, *self._units(), dtype=self.dtype)

    def _law(self, context: Tensor | None) -> Any:
        """Return the Gaussian of what the model sees: of the observed part, if some may miss."""
        loc, log_scale = self._of(self.loc, context), self._of(self.log_scale, context)
        shape = self.event_shape
        if self.covariance in ("full", "tied"):
            law = WhitenedNormal(loc, self._of(self._whitening(), context), event_shape=shape)
            return ObservedNormal(law) if self.missing else law
        if self.rank is None:
            scale = log_scale.exp().expand(loc.shape)
            loc, scale = (t.unflatten(-1, shape) for t in (loc, scale))
            law = IndependentElements(dist.Normal(loc, scale), len(shape))
            return ObservedPart(law) if self.missing else law
        loading, scale = self._of(self.loading, context), log_scale.exp()
        law = dist.LowRankMultivariateNormal(loc, loading, scale.square())
        if len(shape) > 1:
            law = dist.TransformedDistribution(law, ReshapeTransform(loc.shape[-1:], shape))
        return ObservedFactors(law, loc, loading, scale) if self.missing else law

    def _of(self, parameters: Tensor, context: Tensor | None) -> Tensor:
        """Return the parameters of each label; those that all share, once."""
        if context is None or len(parameters) < self.loc.shape[0]:
            return parameters[0]
        return parameters[context.long()]

    def _whitening(self) -> Float[Tensor, "K D D"]:
        """Return the matrices that make errors white: regressions, over their scales."""
        size = self.loc.shape[1]
        regressions = torch.eye(size, dtype=self.loc.dtype, device=self.loc.device)
        if size > 1:
            rows, columns = torch.tril_indices(size, size, -1, device=self.loc.device)
            own = self.coefficients.shape[0]
            below = self.loc.new_zeros(own, size, size)
            below = below.index_put((torch.arange(own)[:, None], rows, columns), self.coefficients)
            regressions = regressions + below
        return regressions * (-self.log_scale).exp().unsqueeze(-1)

    def _units(self) -> tuple[Tensor, Tensor]:
        """Return shift and scale of the data's elements, in float64.

        Data with levels have their middle, and half of that for a scale.
        """
        shape, levels = self.event_shape, self.num_levels
        if levels is not None:
            half = self.loc.new_full(shape, levels / 2, dtype=torch.float64)
            return half, half / 2
        units = self.standardization
        if units.shift is None or units.scale is None:
            ones = self.loc.new_ones(shape, dtype=torch.float64)
            return 0 * ones, ones
        return units.shift.expand(shape), units.scale.expand(shape)

    @integers_checked
    def class_log_probs(
        self,
        x: Num[Tensor, "*batch_event"],
        context: Tensor | None = None,
        *,
        chunk_size: int | None = None,
    ) -> Float[Tensor, "*batch K"]:
        r"""Return :math:`\log p(x \mid y)` of every label y.

        By products of matrices, without a copy of the data for each label.

        Args:
            x: Data ``(*batch, *event)``.
            context: ``None``: the model takes labels alone.
            chunk_size: Labels that are evaluated at once; by default as many as fit into some
                megabytes.

        Raises:
            ValueError: If the model has no labels or data with levels, or ``x`` does not fit.
        """
        dense = self.covariance not in ("diagonal", "spherical")
        if self.num_classes is None or context is not None or (self.missing and dense):
            return super().class_log_probs(x, context, chunk_size=chunk_size)
        self._check_continuous()
        self._checked_exact(x.new_zeros((), dtype=torch.long))
        self._checked_data(x)
        self.remember_parameters()
        rows = self.standardization.standardized(x, self.dtype).flatten(-len(self.event_shape))
        flat = rows.reshape(-1, rows.shape[-1])
        nats = self._class_scores(flat, chunk_size).reshape(*rows.shape[:-1], -1)
        logs = self.standardization.log_scale(rows)
        if not self.missing:
            return nats - logs.expand(rows.shape[-1:]).sum()
        observed = torch.where(rows.isnan(), torch.zeros_like(logs), logs).sum(-1)
        return nats - observed.unsqueeze(-1)

    def _class_scores(self, rows: Tensor, chunk_size: int | None) -> Tensor:
        loc: Tensor = self.loc
        log_scale = self.log_scale.expand(-1, loc.shape[1])
        if self.covariance == "full":
            return dense_scores(rows, loc, self._whitening(), chunk_size=chunk_size)
        if self.covariance == "low_rank":
            return factor_scores(rows, loc, self.loading, log_scale, chunk_size=chunk_size)
        if self.covariance != "tied":
            options = {"missing": self.missing, "chunk_size": chunk_size}
            return diagonal_scores(rows, loc, log_scale, **options)  # type: ignore[arg-type]
        whiten, middle = self._whitening()[0].mT, loc.detach().mean(0)
        rows, loc = (rows - middle) @ whiten, (loc - middle) @ whiten
        ones = torch.zeros_like(loc)
        return diagonal_scores(rows, loc, ones, chunk_size=chunk_size) - self.log_scale.sum()

    def _completed(
        self, x: Tensor, context: Tensor | None, batch: tuple[int, ...]
    ) -> Float[Tensor, "*batch_event"]:
        law = self._law(context).expand(torch.Size(batch))
        if isinstance(law, ObservedPart):
            drawn = law.sample()
        else:
            drawn = law.conditional_sample(self.standardization.standardized(x, self.dtype))
        shift, scale = self._units()
        return shift + scale * drawn

    @torch.no_grad()
    def moments(self) -> Moments:
        """Return means and covariances in the units of the data, in float64.

        Of data with levels they are those of dequantised values, half a level above.

        Returns:
            Means ``(K, D)``, K the number of labels or 1, D the number of a data point's elements;
            and covariances ``(K, D, D)``, of ``"tied"`` ``(D, D)``; variances ``(K, D)`` of
            ``"diagonal"``, ``(K,)`` of ``"spherical"``; of ``"low_rank"`` a pair of loadings
            ``(K, D, rank)`` and variances of the noise ``(K, D)``.

        Example:
            >>> means, covariances = GaussianModel((2,), num_classes=3).moments()
            >>> means.shape, covariances.shape
            (torch.Size([3, 2]), torch.Size([3, 2, 2]))
        """
        shift, scale = (t.flatten() for t in self._units())
        means = shift + scale * self.loc.double()
        variances = (2 * self.log_scale.double()).exp()
        if self.covariance == "diagonal":
            return means, scale.square() * variances
        if self.covariance == "spherical":
            return means, scale[0].square() * variances[:, 0]
        if self.covariance == "low_rank":
            loading = scale.unsqueeze(-1) * self.loading.double()
            return means, (loading, scale.square() * variances)
        factor = scale.unsqueeze(-1) * inverse_triangular(self._whitening().double())
        covariances = factor @ factor.mT
        return means, covariances[0] if self.covariance == "tied" else covariances

    @torch.no_grad()
    def set_moments(self, means: Tensor, covariances: Any) -> None:
        """Set means and covariances, in the units and shapes of :meth:`moments`.

        Args:
            means: Means ``(K, D)``.
            covariances: Covariances, variances, or a pair of loadings and variances.

        Raises:
            ValueError: If a shape does not fit, a number is not finite, or a covariance or variance
                not positive.

        Example:
            >>> model = GaussianModel((1,), covariance="spherical")
            >>> model.set_moments(torch.tensor([[2.0]]), torch.tensor([1.0]))
            >>> model.moments()
            (tensor([[2.]], dtype=torch.float64), tensor([1.], dtype=torch.float64))
        """
        shift, scale = (t.flatten() for t in self._units())
        classes, size = self.loc.shape
        means = self._moment("means", means, (classes, size))
        if self.covariance in ("full", "tied"):
            own = () if self.covariance == "tied" else (classes,)
            given = self._moment("covariances", covariances, (*own, size, size))
            self._set_dense(given.reshape(-1, size, size) / (scale.unsqueeze(-1) * scale))
        elif self.covariance == "low_rank":
            check(len(covariances) == 2, "covariances", "be loadings and variances", "others")
            loading, noise = covariances
            loading = self._moment("covariances[0]", loading, tuple(self.loading.shape))
            self._set_variances(self._moment("covariances[1]", noise, (classes, size)), scale)
            self.loading.copy_(loading / scale.unsqueeze(-1))
        else:
            own = () if self.covariance == "spherical" else (size,)
            given = self._moment("covariances", covariances, (classes, *own))
            self._set_variances(given.reshape(self.log_scale.shape), scale)
        self.loc.copy_((means - shift) / scale)
        self.standardization.take_as_fitted()

    def _moment(self, argument: str, value: Any, shape: tuple[int, ...]) -> Tensor:
        value = torch.as_tensor(value, dtype=torch.float64, device=self.loc.device)
        check(tuple(value.shape) == shape, argument, f"have shape {shape}", tuple(value.shape))
        wrong = int((~value.isfinite()).sum())
        check(wrong == 0, argument, "be finite", f"{wrong} NaN or infinite numbers")
        return value

    def _set_variances(self, variances: Tensor, scale: Tensor) -> None:
        _check_positive_each(variances > 0)
        own = scale[: variances.shape[1]]  # one of them, if all are the same
        self.log_scale.copy_(0.5 * variances.log() - own.log())

    def _set_dense(self, covariances: Float[Tensor, "K D D"]) -> None:
        factor, info = torch.linalg.cholesky_ex(covariances)
        _check_positive_each(info == 0)
        scales = factor.diagonal(dim1=-2, dim2=-1)
        self.log_scale.copy_(scales.log())
        size = covariances.shape[-1]
        if size > 1:
            rows, columns = torch.tril_indices(size, size, -1, device=factor.device)
            regressions = scales.unsqueeze(-1) * inverse_triangular(factor)
            self.coefficients.copy_(regressions[:, rows, columns])

    def em_family(self, x: Num[Tensor, "n *event"], **options: Any) -> Any:
        """Return the data and parameters that expectation-maximisation goes through.

        Args:
            x: Data ``(n, *event)``, NaN where an element is missing, if the model has ``missing``.
            **options: Of :class:`pyro_genmodels.models.em.GaussianFamily`: ``weights`` of the rows
                and ``priors``, by default weak ones.

        Raises:
            ValueError: If data have levels, for which expectation-maximisation would need the
                dequantised values, or ``x`` does not fit.
        """
        if self.num_levels is not None:
            return super().em_family(x, **options)
        from pyro_genmodels.models.em.gaussian_family import GaussianFamily
        from pyro_genmodels.models.em.priors import GaussianPriors

        options = {"priors": GaussianPriors(), **options}

        rows = self._checked_data(x).flatten(1).double()
        return GaussianFamily(
            rows,
            self.loc.shape[0],
            self.covariance,
            rank=self.rank,
            read=self.moments,
            write=self.set_moments,
            **options,
        )


def _check_positive_each(holds: Tensor) -> None:
    wrong = (~holds).flatten(1).any(-1) if holds.dim() > 1 else ~holds
    names = [f"component {index}" for index in wrong.nonzero().flatten().tolist()]
    check(not names, "covariances", "be positive, or positive definite", ", ".join(names))
