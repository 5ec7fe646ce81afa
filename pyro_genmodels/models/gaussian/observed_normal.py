"""A Gaussian with any covariance, over those elements of data that were observed."""

from __future__ import annotations

import torch

from pyro_genmodels._typing import Bool, Float, Tensor
from pyro_genmodels.distributions import WhitenedNormal
from pyro_genmodels.models.gaussian.observed_gaussian import ObservedGaussian


class ObservedNormal(ObservedGaussian):
    r"""The marginal of :math:`N(\mu, \Sigma)` over the observed elements o.

    Args:
        whole: The distribution of all elements.
    """

    def __init__(self, whole: WhitenedNormal) -> None:
        self.covariance = whole.covariance_matrix
        super().__init__(whole, whole.loc)

    def _nats(self, error: Tensor, seen: Tensor) -> Tensor:
        factor = self._factor(seen)
        white = torch.linalg.solve_triangular(factor, error.unsqueeze(-1), upper=False)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * white.squeeze(-1).square().sum(-1) - log_det

    def _explained(self, error: Tensor, seen: Tensor) -> Tensor:
        solved = torch.cholesky_solve(error.unsqueeze(-1), self._factor(seen))
        return (self.covariance @ solved).squeeze(-1)

    def _factor(self, seen: Bool[Tensor, "*batch D"]) -> Float[Tensor, "*batch D D"]:
        """Return the Cholesky factor of the observed block, with ones in the place of the rest."""
        block = seen.unsqueeze(-1) & seen.unsqueeze(-2)
        rest = torch.diag_embed((~seen).to(self.covariance.dtype))
        nothing = torch.zeros_like(self.covariance)
        return torch.linalg.cholesky(torch.where(block, self.covariance, nothing) + rest)
