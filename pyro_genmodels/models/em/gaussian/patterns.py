r"""Gaussian components of rows with missing elements, pattern by pattern.

Of a row with observed elements o and missing ones m, component k gives the marginal density of
:math:`x_o`, and of the missing elements the conditional mean and covariance

.. math:: \mu_m + G (x_o - \mu_o), \quad \Sigma_{mm} - G \Sigma_{om}, \quad
    G = \Sigma_{mo} \Sigma_{oo}^{-1},

both of which the second moments need: without the covariance they would collapse.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.em.gaussian.rows import Pattern, Rows


class Moments(NamedTuple):
    """What responsibilities make of the rows, for each component.

    Attributes:
        counts: Sums of responsibilities.
        means: Weighted means.
        covariances: Weighted covariances about these means.
    """

    counts: Float[Tensor, " K"]
    means: Float[Tensor, "K D"]
    covariances: Float[Tensor, "K D D"]


def pattern_scores(
    rows: Rows, means: Float[Tensor, "K D"], covariances: Float[Tensor, "K D D"]
) -> Float[Tensor, "K N"]:
    """Return log-densities of the observed elements, without what ``rows.log_volume`` holds."""
    scores = means.new_zeros(len(means), rows.num_rows)
    for pattern in rows.patterns:
        factor = torch.linalg.cholesky(_block(covariances, pattern.seen, pattern.seen))
        offset = pattern.values - means[:, pattern.seen, None]
        white = torch.linalg.solve_triangular(factor, offset, upper=False)
        half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        scores[:, pattern.rows] = -0.5 * white.square().sum(1) - half_log_det
    return scores


def pattern_moments(
    rows: Rows,
    means: Float[Tensor, "K D"],
    covariances: Float[Tensor, "K D D"],
    responsibilities: Float[Tensor, "K N"],
) -> Moments:
    """Return moments of the rows completed by what the given parameters expect."""
    # About the given means, from which the new ones are not far: no digits are lost.
    first, second = torch.zeros_like(means), torch.zeros_like(covariances)
    for pattern in rows.patterns:
        shares = responsibilities[:, pattern.rows].unsqueeze(1)
        offset = pattern.values - means[:, pattern.seen, None]
        weighted = offset * shares
        completion, rest = _completion(covariances, pattern)
        first += (completion @ weighted.sum(2, keepdim=True))[..., 0]
        second += completion @ (weighted @ offset.mT) @ completion.mT
        second[:, pattern.missing[:, None], pattern.missing] += shares.sum(2, keepdim=True) * rest
    counts = responsibilities.sum(1)
    divisor = counts.clamp_min(rows.empty)[:, None]
    shift = first / divisor
    spread = second / divisor[..., None] - shift.unsqueeze(2) * shift.unsqueeze(1)
    return Moments(counts, means + shift, spread)


def _completion(covariances: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Return what completes offsets of observed elements, and the conditional covariance."""
    seen, missing = pattern.seen, pattern.missing
    completion = covariances.new_zeros(*covariances.shape[:2], len(seen))
    completion[:, seen, torch.arange(len(seen), device=seen.device)] = 1.0
    across = _block(covariances, seen, missing)
    factor = torch.linalg.cholesky(_block(covariances, seen, seen))
    gain = torch.cholesky_solve(across, factor).mT
    completion[:, missing] = gain
    return completion, _block(covariances, missing, missing) - gain @ across


def _block(covariances: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return covariances[:, rows[:, None], columns]
