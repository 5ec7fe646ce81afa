"""Full and tied covariances of Gaussian components."""

from __future__ import annotations

from typing import Any

import torch

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.em.gaussian.covariances import FAR, Covariances, check_moments
from pyro_genmodels.models.em.gaussian.patterns import pattern_scores


class FullCovariances(Covariances):
    """A covariance matrix for each component."""

    def start(self, variances: Float[Tensor, " D"], generator: torch.Generator) -> None:
        """Set all covariances to the same diagonal one."""
        self._set(variances.diag().expand(self.num_components, -1, -1).clone())

    def scores(self) -> Float[Tensor, "K N"]:
        """Return log-densities of the rows."""
        if self.rows.patterns:
            return pattern_scores(self.rows, self.means, self._each())
        whitening, values = self._whitening().expand(self.num_components, -1, -1), self.rows.values
        means = (whitening @ self.means.unsqueeze(-1))[..., 0]
        quadratics = values.new_empty(self.num_components, values.shape[1])
        factors = whitening.reshape(-1, len(values))
        for block in self._blocks(self.num_components):
            white = (factors @ values[:, block]).unflatten(0, means.shape).sub_(means.unsqueeze(-1))
            torch.sum(white.square_(), 1, out=quadratics[:, block])
        for k in (means.square() > FAR).any(1).nonzero()[:, 0].tolist():
            white = whitening[k] @ (values - self.means[k, :, None])
            quadratics[k] = white.square_().sum(0)
        half_log_dets = whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        return quadratics.mul_(-0.5).add_(half_log_dets)

    def maximise(self, responsibilities: Float[Tensor, "K N"]) -> None:
        """Set means and covariances to those of the completed rows, and of the priors."""
        counts, means, covariances = self._moments(responsibilities, self._each())
        posterior, rest = self._posterior_means(counts, means)
        weight = counts + self._strength + (self._mean_strength > 0)
        scatter = counts[:, None, None] * covariances
        scatter += rest[:, None, None] * means.unsqueeze(2) * means.unsqueeze(1)
        scatter.diagonal(dim1=-2, dim2=-1).add_(self._strength * self._variance)
        new = scatter / weight.clamp_min(self.rows.empty)[:, None, None]
        new = self._kept(counts, new, self.parameters["covariances"])
        self.means = self._kept(counts, posterior, self.means)
        self._set(new, counts)

    def log_prior(self) -> float:
        """Return the log-density of the normal-inverse-Wishart priors."""
        whitening = self._whitening()
        log_dets = -2 * whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        traces = whitening.square().sum((-2, -1))
        quadratics = (whitening @ self.means.unsqueeze(-1)).square().sum((-2, -1))
        return self._log_prior(log_dets, traces, quadratics)

    def num_parameters(self) -> int:
        """K D (D + 1) / 2."""
        size = self.rows.num_dimensions
        return self.num_components * size * (size + 1) // 2

    def to_data_units(self) -> Any:
        """Return the covariances ``(K, D, D)``."""
        return self.parameters["covariances"] * self._units()

    def set_from_data_units(self, covariances: Any) -> None:
        """Set the covariances ``(K, D, D)``."""
        size = self.rows.num_dimensions
        shape = self.num_components, size, size
        self._set(check_moments("covariances", covariances, shape) / self._units())

    def _units(self) -> Tensor:
        return torch.outer(self.rows.scale, self.rows.scale)

    def _set(self, covariances: Tensor, counts: Tensor | None = None) -> None:
        if counts is None:
            counts = covariances.new_full((len(covariances),), torch.inf)
        factors = self._factor(counts, covariances)
        identity = torch.eye(covariances.shape[-1], dtype=factors.dtype, device=factors.device)
        whitening = torch.linalg.solve_triangular(factors, identity, upper=False)
        self.parameters = {"covariances": covariances, "whitening": whitening}

    def _each(self) -> Tensor:
        return self.parameters["covariances"].expand(self.num_components, -1, -1)

    def _whitening(self) -> Tensor:
        return self.parameters["whitening"]


class TiedCovariances(FullCovariances):
    """One covariance matrix for all components."""

    def start(self, variances: Float[Tensor, " D"], generator: torch.Generator) -> None:
        """Set the covariance to a diagonal one."""
        self._set(variances.diag()[None])

    def scores(self) -> Float[Tensor, "K N"]:
        """Return log-densities of the rows, which are whitened once for all components."""
        if self.rows.patterns:
            return pattern_scores(self.rows, self.means, self._each())
        whitening, values = self._whitening()[0], self.rows.values
        means = self.means @ whitening.mT
        lengths = 0.5 * means.square().sum(1, keepdim=True)
        if float(lengths.max()) > FAR:
            return super().scores()
        scores = values.new_empty(self.num_components, values.shape[1])
        for block in self._blocks():
            white = whitening @ values[:, block]
            torch.addmm(white.square().sum(0), means, white, beta=-0.5, out=scores[:, block])
        return scores.add_(whitening.diagonal().log().sum() - lengths)

    def maximise(self, responsibilities: Float[Tensor, "K N"]) -> None:
        """Set the means, and the covariance to the components' mean one."""
        counts, means, scatter = self._pooled(responsibilities)
        posterior, rest = self._posterior_means(counts, means)
        scatter += torch.einsum("k,ki,kj->ij", rest, means, means)
        scatter.diagonal().add_(self._strength * self._variance)
        weight = counts.sum() + self._strength + self.num_components * (self._mean_strength > 0)
        self.means = self._kept(counts, posterior, self.means)
        self._set((scatter / weight)[None], counts.sum()[None])

    def _pooled(self, responsibilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return counts, means and the sum of squared offsets from them."""
        if not self.rows.patterns:
            values = self.rows.values
            counts, total = responsibilities.sum(1), responsibilities.sum(0)
            means = responsibilities @ values.mT / counts.clamp_min(self.rows.empty)[:, None]
            scatter = values.new_zeros(len(values), len(values))
            for block in self._blocks():
                scatter.addmm_(values[:, block] * total[block], values[:, block].mT)
            scatter -= (counts[:, None] * means).mT @ means
            variances = scatter.diagonal() / counts.sum()
            if not bool((means.square() > FAR * variances).any()):
                return counts, means, scatter
        counts, means, covariances = self._moments(responsibilities, self._each())
        return counts, means, torch.einsum("k,kij->ij", counts, covariances)

    def num_parameters(self) -> int:
        """D (D + 1) / 2."""
        return super().num_parameters() // self.num_components

    def to_data_units(self) -> Any:
        """Return the covariance ``(D, D)``."""
        return self.parameters["covariances"][0] * self._units()

    def set_from_data_units(self, covariances: Any) -> None:
        """Set the covariance ``(D, D)``."""
        size = self.rows.num_dimensions
        self._set((check_moments("covariances", covariances, (size, size)) / self._units())[None])
