"""The Gaussian of factor analysis over those elements of data that were observed."""

from __future__ import annotations

from typing import Any

import torch

from pyro_genmodels._typing import Bool, Float, Tensor
from pyro_genmodels.models.gaussian.observed_gaussian import ObservedGaussian


def factor_precision(
    white: Float[Tensor, "*law D R"], seen: Bool[Tensor, "*batch D"]
) -> Float[Tensor, "*batch R R"]:
    r"""Return :math:`I + W_o^T \Psi_o^{-1} W_o` of each example, o what it has observed.

    Args:
        white: The loading :math:`\Psi^{-1/2} W`, one or one for each example.
        seen: Which elements were observed.
    """
    factors = white.shape[-1]
    if white.dim() == 2:  # a product of matrices, and no loading for each example
        products = (white.unsqueeze(-1) * white.unsqueeze(-2)).flatten(-2)
        summed = (seen.to(white) @ products).unflatten(-1, (factors, factors))
    else:
        summed = (white * seen.unsqueeze(-1)).mT @ white
    return summed + torch.eye(factors, dtype=white.dtype, device=white.device)


class ObservedFactors(ObservedGaussian):
    r"""The marginal of :math:`N(b, W W^T + \Psi)` over the observed elements o.

    By Woodbury's identity, with :math:`e = \Psi_o^{-1/2} (x_o - b_o)`,
    :math:`V = \Psi_o^{-1/2} W_o` and :math:`L L^T = I + V^T V`,

    .. math:: \log p(x_o) = -\tfrac12 \big(|e|^2 - |L^{-1} V^T e|^2\big) - \log |L|
        - \tfrac12 \textstyle\sum_{i \in o} \log 2 \pi \psi_i

    Args:
        whole: The distribution of all elements.
        loc: The mean b, ``(*batch, D)``.
        loading: The W, ``(*batch, D, R)``, or ``(D, R)`` for all.
        scale: Standard deviations of the noise, ``(*batch, D)``, or ``(D,)`` for all.
    """

    def __init__(self, whole: Any, loc: Tensor, loading: Tensor, scale: Tensor) -> None:
        self.scale, self.white = scale, loading / scale.unsqueeze(-1)
        super().__init__(whole, loc)

    def _nats(self, error: Tensor, seen: Tensor) -> Tensor:
        error = error / self.scale
        factor = torch.linalg.cholesky(factor_precision(self.white, seen))
        projected = self._projected(error)
        explained = torch.linalg.solve_triangular(factor, projected, upper=False).squeeze(-1)
        nats = 0.5 * (explained.square().sum(-1) - error.square().sum(-1))
        nats = nats - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return nats - torch.where(seen, self.scale.log(), torch.zeros_like(error)).sum(-1)

    def _explained(self, error: Tensor, seen: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(factor_precision(self.white, seen))
        factors = torch.cholesky_solve(self._projected(error / self.scale), factor)
        return self.scale * (self.white @ factors).squeeze(-1)

    def _projected(self, error: Tensor) -> Tensor:
        if self.white.dim() == 2:
            return (error @ self.white).unsqueeze(-1)
        return self.white.mT @ error.unsqueeze(-1)
