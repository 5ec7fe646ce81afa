"""Gaussians that linear models reach exactly: probabilistic PCA and a stationary texture."""

from __future__ import annotations

import math
from abc import ABC

import torch
from torch.distributions import MultivariateNormal

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import EventShape, Float, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution


class _Gaussian(ExactDistribution, ABC):
    """Gaussian of mean zero with a given covariance."""

    def __init__(
        self, event_shape: EventShape, covariance: Tensor, validate_args: bool | None
    ) -> None:
        super().__init__(event_shape, validate_args=validate_args)
        self.covariance = covariance
        self._factor = torch.linalg.cholesky(covariance)

    def draw(self, count: int) -> Num[Tensor, "{count} ..."]:
        """Draw by the Cholesky factor."""
        size = len(self._factor)
        noise = torch.randn(size, count, dtype=torch.float64, device=self.device)
        return (self._factor @ noise).T.reshape(count, *self.event_shape)

    def log_density(self, value: Num[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """Return the exact log-density."""
        return self._normal.log_prob(value.double().flatten(1))

    def entropy_nats(self) -> float:
        """Return the entropy in closed form."""
        return float(self._normal.entropy())

    @property
    def _normal(self) -> MultivariateNormal:
        mean = torch.zeros_like(self._factor[0])
        return MultivariateNormal(mean, scale_tril=self._factor, validate_args=False)


class PPCA(_Gaussian):
    r"""Probabilistic PCA: a few latent directions and white noise.

    .. math:: x = W z + \sigma \epsilon, \qquad z, \epsilon \sim N(0, I)

    The columns of W are orthogonal, of lengths evenly from 2 down to 0.5. So the posterior is
    diagonal, and a linear Gaussian VAE reaches this density with an exact evidence lower bound.

    Args:
        dim: Dimension of the data.
        latent_dim: Number of latent directions, fewer than ``dim``.
        noise: Standard deviation of the noise.
        validate_args: Whether values are checked.

    Attributes:
        loading: The matrix W ``(dim, latent_dim)``.

    Raises:
        ValueError: If ``latent_dim`` is not between 1 and ``dim - 1`` or the noise not positive.

    References:
        Tipping and Bishop (1999), Probabilistic Principal Component Analysis, eq. 2-4.
        Lucas et al. (2019), Don't Blame the ELBO!, https://arxiv.org/abs/1911.02469

    Example:
        >>> round(PPCA().entropy().item(), 5)
        24.83445
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        latent_dim: int = 8,
        noise: float = 0.3,
        validate_args: bool | None = None,
    ) -> None:
        check(1 <= latent_dim < dim, "latent_dim", f"lie between 1 and {dim - 1}", latent_dim)
        check_positive(noise=noise)
        lengths = torch.linspace(2, 0.5, latent_dim, dtype=torch.float64)
        loading = _cosines(dim, latent_dim) * lengths
        white = noise**2 * torch.eye(dim, dtype=torch.float64)
        super().__init__((dim,), loading @ loading.T + white, validate_args)
        self.loading, self.noise = loading, noise


def _cosines(dim: int, count: int) -> Tensor:
    """Orthonormal columns: cosines of 1 to ``count`` half-turns (discrete cosine transform)."""
    place = torch.arange(dim, dtype=torch.float64) + 0.5
    turns = torch.arange(1, count + 1, dtype=torch.float64)
    return torch.cos(math.pi / dim * place[:, None] * turns) * math.sqrt(2 / dim)


class GaussianTexture(_Gaussian):
    r"""Gaussian process on the pixel grid: a smooth grey texture, as a continuous image.

    .. math:: k(i, j) = \exp\Big(-\frac{|i - j|^2}{2 \ell^2}\Big) + \nu \delta_{ij}

    A flow of linear layers can represent it exactly.

    Args:
        size: Height and width in pixels, at most 64.
        length_scale: Correlation length in pixels.
        nugget: Variance of the white noise on top.
        validate_args: Whether values are checked.

    Raises:
        ValueError: If an argument is not positive or the size too large.

    Example:
        >>> texture = GaussianTexture(16)
        >>> texture.sample().shape, round(texture.entropy().item(), 4)
        (torch.Size([1, 16, 16]), 55.3895)
    """

    def __init__(
        self,
        size: int = 16,
        *,
        length_scale: float = 3.0,
        nugget: float = 0.05,
        validate_args: bool | None = None,
    ) -> None:
        check(1 <= size <= 64, "size", "lie between 1 and 64", size)
        check_positive(length_scale=length_scale, nugget=nugget)
        axis = torch.arange(size, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis)
        squared = (points[:, None] - points).square().sum(-1)
        smooth = torch.exp(-squared / (2 * length_scale**2))
        white = nugget * torch.eye(len(points), dtype=torch.float64)
        super().__init__((1, size, size), smooth + white, validate_args)
