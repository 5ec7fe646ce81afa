"""Base of the covariances of Gaussian components: their shapes, priors and proper ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NoReturn

import torch

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.em.gaussian.patterns import Moments, pattern_moments
from pyro_genmodels.models.em.gaussian.rows import Rows
from pyro_genmodels.models.em.priors import GaussianPriors

# Above this ratio of squared mean to variance, sums of squares lose digits that matter.
FAR = 1e5
_BLOCK = 2**18  # Elements of intermediate results, which then stay in a cache.


class CollapsedComponentError(ValueError):
    """A component's covariance became singular, where the likelihood has no maximum."""


class Covariances(ABC):
    """Means and covariances of K components, in the units of :class:`Rows`.

    Attributes:
        means: Means ``(K, D)``.
        parameters: Covariances, or what they are made of, by name.
    """

    def __init__(self, rows: Rows, num_components: int, priors: GaussianPriors | None) -> None:
        self.rows, self.num_components, self.priors = rows, num_components, priors
        self.means = rows.values.new_zeros(num_components, rows.num_dimensions)
        self.parameters: dict[str, Tensor] = {}

    @abstractmethod
    def start(self, variances: Float[Tensor, " D"], generator: torch.Generator) -> None:
        """Set all covariances to a start with these variances per dimension."""

    @abstractmethod
    def scores(self) -> Float[Tensor, "K N"]:
        """Return log-densities of the rows, without what ``rows.log_volume`` holds."""

    @abstractmethod
    def maximise(self, responsibilities: Float[Tensor, "K N"]) -> None:
        """Set the parameters to the maximum of the expected log-likelihood and prior."""

    @abstractmethod
    def log_prior(self) -> float:
        """Return the log-density of the priors, 0 without."""

    @abstractmethod
    def num_parameters(self) -> int:
        """Return the number of free parameters of the covariances."""

    @abstractmethod
    def to_data_units(self) -> Any:
        """Return the covariances in the data's units and shape of :class:`GaussianFamily`."""

    @abstractmethod
    def set_from_data_units(self, covariances: Any) -> None:
        """Set the covariances to some in the data's units."""

    def _moments(
        self, responsibilities: Float[Tensor, "K N"], covariances: Float[Tensor, "K D D"]
    ) -> Moments:
        """Return the moments of the rows, completed by what the given covariances expect."""
        if self.rows.patterns:
            return pattern_moments(self.rows, self.means, covariances, responsibilities)
        values = self.rows.values
        counts = responsibilities.sum(1)
        divisor = counts.clamp_min(self.rows.empty)[:, None]
        means = responsibilities @ values.mT / divisor
        scatter = values.new_zeros(*means.shape, means.shape[1])
        roots = responsibilities.sqrt()
        for block in self._blocks():
            for k in range(self.num_components):
                # From the new means, not from zero: where they are far, no digits are lost.
                offset = (values[:, block] - means[k, :, None]).mul_(roots[k, block])
                scatter[k].addmm_(offset, offset.mT)
        return Moments(counts, means, scatter / divisor[..., None])

    def _kept(self, counts: Tensor, new: Tensor, old: Tensor) -> Tensor:
        """Return new parameters of components that have rows, old ones of the others."""
        full = (counts > self.rows.empty).reshape(-1, *[1] * (new.dim() - 1))
        return new.where(full, old)

    @property
    def _strength(self) -> float:
        return self.priors.strength if self.priors else 0.0

    @property
    def _variance(self) -> float:
        return self.priors.scale**2 if self.priors else 0.0

    @property
    def _mean_strength(self) -> float:
        return self.priors.mean_strength if self.priors else 0.0

    def _posterior_means(self, counts: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means by their prior, and what to add to squared offsets per component.

        Squared offsets of the rows from their own mean; what is added times the outer product of
        that mean is the rest of the normal prior's part in the covariance.
        """
        if not self._mean_strength:
            return means, torch.zeros_like(counts)
        share = counts / (counts + self._mean_strength)
        return means * share[:, None], share * self._mean_strength

    def _log_prior(self, log_dets: Tensor, traces: Tensor, mean_quadratics: Tensor) -> float:
        """Return the log-density from sums over covariances, and over means.

        Args:
            log_dets: Log-determinants of the covariances, ``(K,)``, of a tied one ``()``.
            traces: Traces of their inverses.
            mean_quadratics: Squared Mahalanobis norms of the means.
        """
        if self.priors is None:
            return 0.0
        spread = self._strength * (log_dets + self._variance * traces).sum()
        if self._mean_strength:
            spread = spread + (log_dets + self._mean_strength * mean_quadratics).sum()
        return -0.5 * float(spread)

    def _check_proper(self, counts: Tensor, variances: Tensor) -> None:
        """Raise an error if a variance is not above what rounding makes of the data.

        Args:
            counts: Sums of responsibilities, of those whose covariances these are.
            variances: Variances ``(K, D)``.
        """
        wrong = ~(variances > self.rows.smallest_variance)
        wrong &= (counts > self.rows.empty)[:, None]
        if bool(wrong.any()):
            component, column = wrong.nonzero()[0].tolist()
            collapsed(component, column, counts[component])

    def _factor(self, counts: Tensor, covariances: Tensor) -> Tensor:
        """Return Cholesky factors, or raise an error that names component and column."""
        self._check_proper(counts, covariances.diagonal(dim1=-2, dim2=-1))
        factors, _ = torch.linalg.cholesky_ex(covariances)
        # Of a column that the others determine, the part that they do not explain is rounding.
        left = factors.diagonal(dim1=-2, dim2=-1).square()
        limit = 1e-14 * covariances.diagonal(dim1=-2, dim2=-1)
        wrong = ~(left > limit) & (counts > self.rows.empty)[:, None]
        if bool(wrong.any()):
            component, column = wrong.nonzero()[0].tolist()
            collapsed(component, column, counts[component])
        return factors

    def _blocks(self, num_components: int = 1) -> list[slice]:
        """Return slices of the rows, short enough for offsets from so many components at once."""
        size = max(256, _BLOCK // (num_components * self.rows.num_dimensions))
        return [slice(i, i + size) for i in range(0, self.rows.num_rows, size)]


def collapsed(component: int, column: int, count: Tensor) -> NoReturn:
    """Raise the error of a singular covariance."""
    raise CollapsedComponentError(
        "`priors` must be given, or weigh more, where a component collapses: the covariance of "
        f"component {component} is singular in column {column}; got {float(count):.3g} rows for it."
    )


def check_moments(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return moments in float64 if they have the shape that the components need."""
    check(tuple(value.shape) == shape, name, f"have shape {shape}", tuple(value.shape))
    return value.double()
