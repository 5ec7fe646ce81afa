"""Diagonal and spherical covariances of Gaussian components."""

from __future__ import annotations

from typing import Any

import torch

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.em.gaussian.covariances import FAR, Covariances, check_moments
from pyro_genmodels.models.em.gaussian.rows import Rows
from pyro_genmodels.models.em.priors import GaussianPriors


class DiagonalCovariances(Covariances):
    """A variance for each component and dimension.

    Scores and moments are one matrix product each, with the squares and values of the rows. The few
    components far from the data's mean, measured in their own standard deviations, get a pass of
    their own about their own means.
    """

    def __init__(self, rows: Rows, num_components: int, priors: GaussianPriors | None) -> None:
        super().__init__(rows, num_components, priors)
        features = [rows.values.square(), rows.values]
        self._features = torch.cat(features if rows.seen is None else [*features, rows.seen])

    def start(self, variances: Float[Tensor, " D"], generator: torch.Generator) -> None:
        """Set all covariances to the same."""
        self._set(variances.expand(self.num_components, -1).clone())

    def scores(self) -> Float[Tensor, "K N"]:
        """Return log-densities of the rows."""
        precisions = self._variances.reciprocal()
        slopes = precisions * self.means
        constants = self._variances.log() + slopes * self.means
        factors = [-0.5 * precisions, slopes]
        if self.rows.seen is None:
            scores = torch.cat(factors, 1) @ self._features
            scores -= 0.5 * constants.sum(1, keepdim=True)
        else:
            scores = torch.cat([*factors, -0.5 * constants], 1) @ self._features
        for k in self._far(self.means, self._variances):
            squares = self._squares(self.means[k])
            scores[k] = -0.5 * (precisions[k] @ squares + self._log_dets(k))
        return scores

    def maximise(self, responsibilities: Float[Tensor, "K N"]) -> None:
        """Set means and variances to those of the completed rows, and of the priors."""
        counts, means, variances = self._sums(responsibilities)
        posterior, rest = self._posterior_means(counts, means)
        weight = counts + self._strength + (self._mean_strength > 0)
        scatter = counts[:, None] * variances + rest[:, None] * means.square()
        scatter = self._shared(scatter) + self._strength * self._variance
        new = scatter / weight.clamp_min(self.rows.empty)[:, None]
        self._check_proper(counts, new)
        self.means = self._kept(counts, posterior, self.means)
        self._set(self._kept(counts, new, self._variances))

    def _sums(self, responsibilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        counts = responsibilities.sum(1)
        divisor = counts.clamp_min(self.rows.empty)[:, None]
        squares, sums, *seen = (responsibilities @ self._features.mT).split(self.means.shape[1], 1)
        unseen = counts[:, None] - seen[0] if seen else None
        if unseen is not None:  # what the components expect of the missing elements
            sums = sums + unseen * self.means
            squares = squares + unseen * (self.means.square() + self._variances)
        means = sums / divisor
        variances = squares / divisor - means.square()
        for k in self._far(means, variances):
            spread = self._squares(means[k]) @ responsibilities[k]
            if unseen is not None:
                expected = (self.means[k] - means[k]).square() + self._variances[k]
                spread = spread + unseen[k] * expected
            variances[k] = spread / divisor[k]
        return counts, means, variances

    def log_prior(self) -> float:
        """Return the log-density of the normal-gamma priors."""
        precisions = self._variances.reciprocal()
        quadratics = (self.means.square() * precisions).sum(1)
        return self._log_prior(self._variances.log().sum(1), precisions.sum(1), quadratics)

    def num_parameters(self) -> int:
        """K D."""
        return self.num_components * self.rows.num_dimensions

    def to_data_units(self) -> Any:
        """Return the variances ``(K, D)``."""
        return self._variances * self.rows.scale.square()

    def set_from_data_units(self, covariances: Any) -> None:
        """Set the variances ``(K, D)``."""
        value = check_moments("covariances", covariances, tuple(self.means.shape))
        self._set(value / self.rows.scale.square())

    @property
    def _variances(self) -> Tensor:
        return self.parameters["variances"]

    def _set(self, variances: Tensor) -> None:
        self.parameters = {"variances": variances}

    def _shared(self, scatter: Tensor) -> Tensor:
        """Return squared offsets as the variances share them."""
        return scatter

    def _squares(self, mean: Tensor) -> Tensor:
        """Return the squared offsets ``(D, N)`` from a mean, 0 where an element is missing."""
        squares = (self.rows.values - mean[:, None]).square_()
        return squares if self.rows.seen is None else squares.mul_(self.rows.seen)

    def _log_dets(self, k: int) -> Tensor:
        logs = self._variances[k].log()
        return logs.sum() if self.rows.seen is None else logs @ self.rows.seen

    @staticmethod
    def _far(means: Tensor, variances: Tensor) -> list[int]:
        far = (means.square() > FAR * variances).any(1)
        return [int(k) for k in far.nonzero()[:, 0]]


class SphericalCovariances(DiagonalCovariances):
    """A variance for each component, the same in all dimensions."""

    def start(self, variances: Float[Tensor, " D"], generator: torch.Generator) -> None:
        """Set all variances to the mean one."""
        super().start(variances.mean().expand_as(variances), generator)

    def num_parameters(self) -> int:
        """K."""
        return self.num_components

    def to_data_units(self) -> Any:
        """Return the variances ``(K,)``."""
        return super().to_data_units()[:, 0]

    def set_from_data_units(self, covariances: Any) -> None:
        """Set the variances ``(K,)``."""
        value = check_moments("covariances", covariances, (self.num_components,))
        super().set_from_data_units(value[:, None].expand_as(self.means).clone())

    def _shared(self, scatter: Tensor) -> Tensor:
        return scatter.mean(1, keepdim=True).expand_as(scatter)
