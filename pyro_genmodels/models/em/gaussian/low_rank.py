r"""Covariances of low rank plus noise: components that are factor analysers."""

from __future__ import annotations

from typing import Any

import torch

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.em.gaussian.covariances import Covariances, check_moments
from pyro_genmodels.models.em.gaussian.patterns import pattern_moments, pattern_scores
from pyro_genmodels.models.em.gaussian.rows import Rows
from pyro_genmodels.models.em.priors import GaussianPriors

_NARROW = 256  # most dimensions for which covariance matrices are made
_LEAST_NOISE = 1e-6  # of the variance


class LowRankCovariances(Covariances):
    r"""A covariance :math:`W W^T + \Psi` for each component, with R factors and diagonal noise.

    The joint maximum has no closed form. A step takes the means, then W given the noise, then the
    noise of each dimension in turn to their maxima given the rest. With many dimensions, where that
    would cost too much, it takes W and the noise through one step of the factor analysers' own EM,
    and without missing elements nothing larger than ``(D, N)`` is made. Noise has a maximum at zero
    in some data; it stops at a millionth of the variance.

    References:
        Ghahramani and Hinton (1997), The EM algorithm for mixtures of factor analyzers; Zhao, Yu
        and Jiang (2008), ML estimation for factor analysis: EM or non-EM?
    """

    def __init__(
        self, rows: Rows, num_components: int, priors: GaussianPriors | None, rank: int
    ) -> None:
        size = rows.num_dimensions
        check(0 < rank <= size, "rank", f"be from 1 to the {size} dimensions", rank)
        super().__init__(rows, num_components, priors)
        self.rank = rank

    def start(self, variances: Float[Tensor, " D"], generator: torch.Generator) -> None:
        """Set the noise to half of the variances and the loadings to random ones of the rest."""
        shape = self.num_components, len(variances), self.rank
        draws = torch.randn(shape, generator=generator, dtype=torch.float64).to(variances.device)
        half = 0.5 * variances
        loading = draws * (half / self.rank).sqrt()[:, None]
        self._set(loading, half.expand(self.num_components, -1).clone())

    def scores(self) -> Float[Tensor, "K N"]:
        """Return log-densities of the rows."""
        if self.rows.patterns:
            return pattern_scores(self.rows, self.means, self._dense())
        values, white = self.rows.values, self._white()
        factors = torch.linalg.cholesky(self._precision(white))
        scores = values.new_empty(self.num_components, values.shape[1])
        for block in self._blocks():
            for k in range(self.num_components):
                offset = (values[:, block] - self.means[k, :, None]).div_(
                    self._noise[k, :, None].sqrt()
                )
                within = torch.linalg.solve_triangular(
                    factors[k], white[k].mT @ offset, upper=False
                )
                torch.sub(offset.square_().sum(0), within.square_().sum(0), out=scores[k, block])
        return scores.add_(self._log_dets(factors)[:, None]).mul_(-0.5)

    def maximise(self, responsibilities: Float[Tensor, "K N"]) -> None:
        """Set the means to their maximum, and raise the rest by loadings and noise in turn."""
        narrow = self.rows.num_dimensions <= _NARROW
        step = self._take_maxima if narrow else self._take_em_step
        counts, means, loading, noise = step(responsibilities)
        self.means = self._kept(counts, means, self.means)
        self._set(
            self._kept(counts, loading, self._loading), self._kept(counts, noise, self._noise)
        )

    def _take_maxima(self, responsibilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return counts, means, the loadings' maximum given the noise, and the noise given them."""
        counts, means, covariances = self._moments(responsibilities, self._dense())
        posterior, rest = self._posterior_means(counts, means)
        weight = (counts + (self._mean_strength > 0)).clamp_min(self.rows.empty)
        shares = (counts / weight)[:, None, None], (rest / weight)[:, None, None]
        spread = shares[0] * covariances + shares[1] * means.unsqueeze(2) * means.unsqueeze(1)
        variances = spread.diagonal(dim1=-2, dim2=-1)
        self._check_proper(counts, variances + self._strength * self._variance)
        # The largest principal components of what the noise makes white.
        root = self._noise.sqrt()
        white = spread / (root.unsqueeze(2) * root.unsqueeze(1))
        values, vectors = torch.linalg.eigh(white)
        lengths = (values[:, -self.rank :] - 1).clamp_min(0.0).sqrt()
        loading = root.unsqueeze(2) * vectors[..., -self.rank :] * lengths.unsqueeze(1)
        prior = self._strength, self._variance
        return counts, posterior, loading, noise_maxima(loading, self._noise, spread, weight, prior)

    def _take_em_step(self, responsibilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return counts, means, and loadings and noise after one step of the factors' own EM."""
        projections = self._projections()
        counts, means, crossed, variances = self._crossed(responsibilities, projections)
        posterior, rest = self._posterior_means(counts, means)
        weight = (counts + (self._mean_strength > 0)).clamp_min(self.rows.empty)[:, None]
        seen = (projections @ means.unsqueeze(-1)).mT
        crossed = counts[:, None, None] * crossed + rest[:, None, None] * means[..., None] * seen
        variances = (counts[:, None] * variances + rest[:, None] * means.square()) / weight
        loading, noise = self._half_step(projections, crossed / weight[..., None], variances)
        noise = weight * noise + self._strength * self._variance
        noise = noise / (weight + self._strength)
        self._check_proper(counts, noise)
        return counts, posterior, loading, noise

    def _half_step(
        self, projections: Tensor, crossed: Tensor, variances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return loadings and noise given the factors' posterior under the present ones.

        Args:
            projections: From offsets to posterior means of the factors, ``(K, R, D)``.
            crossed: Covariances of the rows with these means, ``(K, D, R)``.
            variances: Variances of the rows, ``(K, D)``.
        """
        identity = torch.eye(self.rank, dtype=crossed.dtype, device=crossed.device)
        second = identity - projections @ self._loading + projections @ crossed
        second = 0.5 * (second + second.mT)
        loading = torch.cholesky_solve(crossed.mT, torch.linalg.cholesky(second)).mT
        return loading, variances - (loading * crossed).sum(-1)

    def _crossed(
        self, responsibilities: Tensor, projections: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.rows.patterns:
            moments = pattern_moments(self.rows, self.means, self._dense(), responsibilities)
            counts, means, covariances = moments
            crossed = covariances @ projections.mT
            return counts, means, crossed, covariances.diagonal(dim1=-2, dim2=-1)
        values = self.rows.values
        counts = responsibilities.sum(1)
        divisor = counts.clamp_min(self.rows.empty)
        means = responsibilities @ values.mT / divisor[:, None]
        crossed, variances = torch.zeros_like(self._loading), torch.zeros_like(means)
        for block in self._blocks():
            for k in range(self.num_components):
                offset = values[:, block] - means[k, :, None]
                shares = responsibilities[k, block]
                crossed[k] += offset @ ((projections[k] @ offset) * shares).mT
                variances[k] += offset.square_() @ shares
        return counts, means, crossed / divisor[:, None, None], variances / divisor[:, None]

    def log_prior(self) -> float:
        """Return the log-density of the priors of the noise and the means."""
        if self.priors is None:
            return 0.0
        nats = self._strength * (self._noise.log() + self._variance / self._noise).sum()
        if self._mean_strength:
            white = self._white()
            factors = torch.linalg.cholesky(self._precision(white))
            offset = (self.means / self._noise.sqrt()).unsqueeze(-1)
            within = torch.linalg.solve_triangular(factors, white.mT @ offset, upper=False)
            quadratics = offset.square().sum((-2, -1)) - within.square().sum((-2, -1))
            nats = nats + (self._log_dets(factors) + self._mean_strength * quadratics).sum()
        return -0.5 * float(nats)

    def num_parameters(self) -> int:
        """K (D R + D - R (R - 1) / 2): rotations of the factors change nothing."""
        size, rank = self.rows.num_dimensions, self.rank
        return self.num_components * (size * rank + size - rank * (rank - 1) // 2)

    def to_data_units(self) -> Any:
        """Return loadings ``(K, D, R)`` and noise ``(K, D)``."""
        scale = self.rows.scale
        return self._loading * scale[:, None], self._noise * scale.square()

    def set_from_data_units(self, covariances: Any) -> None:
        """Set loadings ``(K, D, R)`` and noise ``(K, D)``."""
        loading, noise = covariances
        shape, scale = tuple(self.means.shape), self.rows.scale
        loading = check_moments("loading", loading, (*shape, self.rank))
        noise = check_moments("noise", noise, shape)
        self._set(loading / scale[:, None], noise / scale.square())

    @property
    def _loading(self) -> Tensor:
        return self.parameters["loading"]

    @property
    def _noise(self) -> Tensor:
        return self.parameters["noise"]

    def _set(self, loading: Tensor, noise: Tensor) -> None:
        self.parameters = {"loading": loading, "noise": noise}

    def _white(self) -> Tensor:
        return self._loading / self._noise.sqrt().unsqueeze(-1)

    def _precision(self, white: Tensor) -> Tensor:
        """Return the posterior precisions of the factors, ``(K, R, R)``."""
        identity = torch.eye(self.rank, dtype=white.dtype, device=white.device)
        return identity + white.mT @ white

    def _projections(self) -> Tensor:
        white = self._white()
        factors = torch.linalg.cholesky(self._precision(white))
        return torch.cholesky_solve(white.mT / self._noise.sqrt().unsqueeze(1), factors)

    def _log_dets(self, factors: Tensor) -> Tensor:
        within = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self._noise.log().sum(1) + 2 * within

    def _dense(self) -> Tensor:
        return self._loading @ self._loading.mT + self._noise.diag_embed()


def noise_maxima(
    loading: Float[Tensor, "K D R"],
    noise: Float[Tensor, "K D"],
    spread: Float[Tensor, "K D D"],
    weight: Float[Tensor, " K"],
    prior: tuple[float, float],
) -> Float[Tensor, "K D"]:
    r"""Return the noise after each dimension's was taken to its maximum given all the rest.

    In the precision matrix P a change of one variance changes a column and its own row alone, so
    that with :math:`c = P_{dd}`, :math:`q = (P S P)_{dd}` and :math:`t = 1 + c (\psi - \psi_0)`
    the objective changes as :math:`-\tfrac{n}{2} (\log t + q / (c t))`, and by the prior.

    Args:
        loading: Loadings W.
        noise: Variances to start from.
        spread: Covariances S of the rows.
        weight: Numbers of rows n.
        prior: Strength a and variance of the noise's prior.
    """
    strength, variance = prior
    noise = noise.clone()
    precision = torch.linalg.inv(loading @ loading.mT + noise.diag_embed())
    pseudo = (strength * variance / (weight + strength))[:, None]
    least = _LEAST_NOISE * (spread.diagonal(dim1=-2, dim2=-1) + pseudo)
    for d in range(noise.shape[1]):
        column, now = precision[:, :, d], noise[:, d]
        own = column[:, d]
        seen = (column.unsqueeze(1) @ spread @ column.unsqueeze(2))[:, 0, 0]
        other = (1 - own * now).clamp_min(0.0)
        # Where the derivative is zero: -n (c t - q) psi^2 = a (psi - variance) t^2.
        cubic = own.square() * (weight + strength)
        terms = (
            weight * (seen - own * other) - strength * own * (2 * other - variance * own),
            strength * other * (2 * own * variance - other),
            strength * variance * other.square(),
        )
        roots = _real_roots(torch.stack(terms, 1) / cubic[:, None])
        tried = torch.cat([now[:, None], torch.maximum(roots, least[:, d, None])], 1)
        t = (other[:, None] + own[:, None] * tried).clamp_min(1e-300)
        nats = weight[:, None] * (t.log() + (seen / own)[:, None] / t)
        nats = nats + strength * (tried.log() + variance / tried)
        new = tried.gather(1, nats.argmin(1, keepdim=True))[:, 0]
        factor = (new - now) / (other + own * new)
        precision = precision - factor[:, None, None] * column.unsqueeze(2) * column.unsqueeze(1)
        noise[:, d] = new
    return noise


def _real_roots(coefficients: Float[Tensor, "K 3"]) -> Float[Tensor, "K 3"]:
    """Return real parts of the roots of :math:`z^3 = b_2 z^2 + b_1 z + b_0`."""
    companion = coefficients.new_zeros(len(coefficients), 3, 3)
    companion[:, 0] = coefficients
    companion[:, 1, 0] = companion[:, 2, 1] = 1.0
    return torch.linalg.eigvals(companion).real
