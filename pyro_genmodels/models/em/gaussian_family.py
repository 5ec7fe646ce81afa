"""Gaussian components fitted by expectation-maximisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import torch

from pyro_genmodels._checks import check, check_choice, check_positive, integers_checked
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.em.base import ComponentFamily
from pyro_genmodels.models.em.gaussian.covariances import Covariances, check_moments
from pyro_genmodels.models.em.gaussian.dense import FullCovariances, TiedCovariances
from pyro_genmodels.models.em.gaussian.elementwise import DiagonalCovariances, SphericalCovariances
from pyro_genmodels.models.em.gaussian.low_rank import LowRankCovariances
from pyro_genmodels.models.em.gaussian.rows import Rows
from pyro_genmodels.models.em.priors import GaussianPriors
from pyro_genmodels.models.em.starts import kmeans

CovarianceName: TypeAlias = Literal["full", "tied", "diagonal", "spherical", "low_rank"]

_KINDS: dict[str, type[Covariances]] = {
    "full": FullCovariances,
    "tied": TiedCovariances,
    "diagonal": DiagonalCovariances,
    "spherical": SphericalCovariances,
}


class GaussianFamily(ComponentFamily):
    r"""Gaussian components of rows, some of whose elements may be missing.

    All arithmetic is in float64 and in units of the data's standard deviation (per dimension;
    spherical covariances: of all dimensions), so that data in other units give the same fit in
    those units. Missing elements are latent variables of EM: second moments have their conditional
    mean and covariance. A column that is constant, over which the likelihood has no maximum
    whatever the units, is an error that names it; so is a component whose covariance becomes
    singular where ``priors`` do not hold it. Spherical covariances allow constant columns.

    Moments that are read and written are in the data's units, float64: means ``(K, D)``, and
    covariances ``(K, D, D)`` full, ``(D, D)`` tied, ``(K, D)`` diagonal, ``(K,)`` spherical, or a
    pair of loadings ``(K, D, R)`` and noise ``(K, D)`` of low rank.

    Args:
        x: Training rows ``(N, D)``; NaN is a missing element.
        num_components: Number of components K.
        covariance: Form of the covariances.
        rank: Number of factors R of low-rank covariances.
        weights: Weight of each row, 1 by default; a weight of 2 is the row twice.
        priors: Priors of means and covariances; None for maximum likelihood.
        read: Returns the model's moments.
        write: Sets the model's moments.

    Raises:
        ValueError: If a choice or size is not possible, or a column is constant or never observed.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 1.5], [1.0, 0.5]])
        >>> family = GaussianFamily(x, 1, "diagonal")
        >>> family.maximise(torch.ones(3, 1))
        >>> family.moments()[0]
        tensor([[1., 1.]], dtype=torch.float64)
    """

    @integers_checked
    def __init__(
        self,
        x: Float[Tensor, "N D"],
        num_components: int,
        covariance: CovarianceName = "full",
        *,
        rank: int | None = None,
        weights: Float[Tensor, " N"] | None = None,
        priors: GaussianPriors | None = None,
        read: Callable[[], tuple[Tensor, Any]] | None = None,
        write: Callable[[Tensor, Any], None] | None = None,
    ) -> None:
        check_positive(num_components=num_components)
        check_choice("covariance", covariance, get_args(CovarianceName))
        low_rank = covariance == "low_rank"
        rule = "be given for low-rank covariances, and only for them"
        check((rank is not None) == low_rank, "rank", rule, rank)
        scale: Literal["shared", "per_dimension"]
        scale = "shared" if covariance == "spherical" else "per_dimension"
        self.rows = Rows(x, weights, scale=scale)
        self.num_rows, self.num_components = self.rows.num_rows, num_components
        self._covariances: Covariances
        if rank is not None:
            self._covariances = LowRankCovariances(self.rows, num_components, priors, rank)
        else:
            self._covariances = _KINDS[covariance](self.rows, num_components, priors)
        self._covariances.start(torch.ones_like(self.rows.scale), torch.Generator().manual_seed(0))
        self._read, self._write = read, write

    def start(self, generator: torch.Generator) -> None:
        """Set the means to centres of k-means, and all covariances to their clusters' mean one."""
        means, variances = kmeans(self.rows, self.num_components, generator)
        self._covariances.means = means
        self._covariances.start(variances, generator)

    def log_probs(self) -> Float[Tensor, "N K"]:
        """Return the log-density of each row's observed elements under each component, in nats."""
        scores = self._covariances.scores()
        return scores.sub_(self.rows.log_volume).mT

    def maximise(self, responsibilities: Float[Tensor, "N K"]) -> None:
        """Set means and covariances to their maximum given responsibilities times weights.

        Raises:
            CollapsedComponentError: If a covariance becomes singular.
        """
        self._covariances.maximise(responsibilities.mT.to(self.rows.values).contiguous())

    def log_prior(self) -> float:
        """Return the log-density of the priors, up to a constant; 0 without priors."""
        return self._covariances.log_prior()

    @property
    def num_parameters(self) -> int:
        """Number of means and of free elements of the covariances."""
        means = self.num_components * self.rows.num_dimensions
        return means + self._covariances.num_parameters()

    def moments(self) -> tuple[Float[Tensor, "K D"], Any]:
        """Return means and covariances in the data's units."""
        means = self._covariances.means * self.rows.scale + self.rows.shift
        return means, self._covariances.to_data_units()

    def set_moments(self, means: Float[Tensor, "K D"], covariances: Any) -> None:
        """Set means and covariances from the data's units.

        Raises:
            ValueError: If a shape does not fit, or a covariance is singular.
        """
        shape = self.num_components, self.rows.num_dimensions
        means = check_moments("means", means, shape)
        self._covariances.means = (means - self.rows.shift) / self.rows.scale
        self._covariances.set_from_data_units(covariances)

    def read(self) -> None:
        """Set means and covariances to those of the model."""
        check(self._read is not None, "read", "be given to start from a model", None)
        if self._read is not None:
            self.set_moments(*self._read())

    def write(self) -> None:
        """Copy means and covariances into the model, if there is one."""
        if self._write is not None:
            self._write(*self.moments())

    def state(self) -> dict[str, Tensor]:
        """Return means and covariances, in units of the rows."""
        return {"means": self._covariances.means, **self._covariances.parameters}

    def load(self, state: dict[str, Tensor]) -> None:
        """Set means and covariances to those that :meth:`state` returned."""
        parameters = dict(state)
        self._covariances.means = parameters.pop("means")
        self._covariances.parameters = parameters
