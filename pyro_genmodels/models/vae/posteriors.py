"""Gaussian posteriors whose entries are correlated, from the output of an encoder."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, register_kl

from pyro_genmodels._checks import check, check_choice
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal

COVARIANCES = ("diagonal", "full", "low_rank")


class GaussianHead:
    r"""Makes a Gaussian of an encoder's outputs: means, log-scales, and what correlates them.

    .. math:: z = \mu + \sigma \odot \epsilon, \quad
        z = \mu + (\mathrm{diag}\,\sigma + \text{strictly lower } L)\,\epsilon \quad\text{or}\quad
        z = \mu + \sigma \odot \epsilon + W \eta

    With outputs of zero behind the log-scales all three are the same.

    Args:
        size: Number of latent variables D.
        covariance: ``"diagonal"``, ``"full"`` or ``"low_rank"``.
        rank: Columns of W.
        log_scale: The log-scale of every entry, if the encoder does not give them.

    Raises:
        ValueError: If there is no such covariance, or the rank is not from 1 to D.
    """

    def __init__(
        self,
        size: int,
        covariance: str = "diagonal",
        rank: int = 1,
        *,
        log_scale: float | None = None,
    ) -> None:
        check_choice("posterior", covariance, COVARIANCES)
        check(1 <= rank <= size, "posterior_rank", f"lie between 1 and {size}", rank)
        self.size, self.covariance, self.rank = size, covariance, rank
        more = {"diagonal": 0, "full": size * (size - 1) // 2, "low_rank": size * rank}
        self.log_scale = log_scale
        self.num_features = (2 if log_scale is None else 1) * size + more[covariance]

    def __call__(self, features: Float[Tensor, "*batch F"]) -> Any:
        """Return the distribution over vectors."""
        if self.log_scale is not None:
            return DiagonalNormal(features, torch.full_like(features, self.log_scale))
        loc, log_scale = features[..., : self.size], features[..., self.size : 2 * self.size]
        rest = features[..., 2 * self.size :]
        if self.covariance == "diagonal":
            return DiagonalNormal(loc, log_scale)
        if self.covariance == "low_rank":
            factor = rest.unflatten(-1, (self.size, self.rank))
            variance = (2 * log_scale).exp()
            return dist.LowRankMultivariateNormal(loc, factor, variance, validate_args=False)
        rows, columns = torch.tril_indices(self.size, self.size, -1, device=features.device)
        scale_tril = log_scale.exp().diag_embed()
        scale_tril[..., rows, columns] = rest
        return dist.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)


@register_kl(MultivariateNormal, StandardNormal)  # type: ignore[untyped-decorator]
def _kl_full_standard(q: MultivariateNormal, p: StandardNormal) -> Tensor:
    factor = q._unbroadcasted_scale_tril
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl(q.loc, factor.square().sum((-2, -1)), log_det, p)


@register_kl(LowRankMultivariateNormal, StandardNormal)  # type: ignore[untyped-decorator]
def _kl_low_rank_standard(q: LowRankMultivariateNormal, p: StandardNormal) -> Tensor:
    """By the matrix determinant lemma, from the small Cholesky factor that the law keeps."""
    diagonal, factor = q._unbroadcasted_cov_diag, q._unbroadcasted_cov_factor
    log_det = 0.5 * diagonal.log().sum(-1)
    log_det = log_det + q._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl(q.loc, diagonal.sum(-1) + factor.square().sum((-2, -1)), log_det, p)


def _kl(loc: Tensor, trace: Tensor, half_log_det: Tensor, prior: StandardNormal) -> Tensor:
    nats = 0.5 * (loc.square().sum(-1) + trace - prior.event_shape[0]) - half_log_det
    return nats.expand(torch.broadcast_shapes(nats.shape, prior.batch_shape))
