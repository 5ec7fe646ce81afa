r"""Gaussian components of rows with missing elements, many patterns at once.

Of a row with observed elements o and missing ones m, component k gives the marginal density of
:math:`x_o`, and of the missing elements the conditional mean and covariance

.. math:: \mu_m + G (x_o - \mu_o), \quad \Sigma_{mm} - G \Sigma_{om}, \quad
    G = \Sigma_{mo} \Sigma_{oo}^{-1}.

The second moments need both: without the covariance they would collapse. Matrices keep
all dimensions, with rows and columns of the identity where an element is missing, so that one call
serves all patterns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.em.gaussian.rows import Patterns, Rows

_AT_ONCE = 2**20  # elements of the matrices that are made at once


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
    for patterns in _parts(rows, len(means)):
        whitening = _whitening(covariances, patterns)
        white = whitening @ _offsets(means, patterns)
        half_log_dets = whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        scores[:, patterns.rows] = half_log_dets - 0.5 * white.square().sum(-2)
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
    for patterns in _parts(rows, len(means)):
        shares = responsibilities[:, patterns.rows].unsqueeze(2)
        completion, rest = _completion(covariances, patterns)
        completed = completion @ _offsets(means, patterns)
        weighted = completed * shares
        first += weighted.sum((1, 3))
        second += torch.einsum("kpdn,kpen->kde", weighted, completed)
        second += (shares.sum(3, keepdim=True) * rest).sum(1)
    counts = responsibilities.sum(1)
    divisor = counts.clamp_min(rows.empty)[:, None]
    shift = first / divisor
    spread = second / divisor[..., None] - shift.unsqueeze(2) * shift.unsqueeze(1)
    return Moments(counts, means + shift, spread)


def _parts(rows: Rows, num_components: int) -> Iterator[Patterns]:
    """Yield patterns, so few at a time that their matrices fit into some megabytes."""
    size = max(1, _AT_ONCE // (num_components * rows.num_dimensions**2))
    for patterns in rows.patterns:
        for parts in zip(*(tensor.split(size) for tensor in patterns), strict=True):
            yield Patterns(*parts)


def _offsets(means: Tensor, patterns: Patterns) -> Tensor:
    """Return offsets ``(K, P, D, n)`` from the means, zero where an element is missing."""
    offsets = patterns.values - means[:, None, :, None]
    return offsets * patterns.seen.unsqueeze(-1)


def _whitening(covariances: Tensor, patterns: Patterns) -> Tensor:
    """Return what makes observed elements white, ``(K, P, D, D)``; the identity of the others."""
    seen = patterns.seen
    both = seen.unsqueeze(2) & seen.unsqueeze(1)
    identity = torch.eye(seen.shape[1], dtype=covariances.dtype, device=covariances.device)
    factors = torch.linalg.cholesky(torch.where(both, covariances.unsqueeze(1), identity))
    return torch.linalg.solve_triangular(factors, identity, upper=False)


def _completion(covariances: Tensor, patterns: Patterns) -> tuple[Tensor, Tensor]:
    """Return what completes offsets of observed elements, and the conditional covariances."""
    seen, missing = patterns.seen, ~patterns.seen
    whitening = _whitening(covariances, patterns) * seen.unsqueeze(2)
    # The columns of missing elements stay zero, and those of observed ones complete the others.
    across = covariances.unsqueeze(1) * (missing.unsqueeze(2) & seen.unsqueeze(1))
    white = whitening @ across.mT
    gain = white.mT @ whitening
    unexplained = covariances.unsqueeze(1) * (missing.unsqueeze(2) & missing.unsqueeze(1))
    return gain + seen.to(gain).diag_embed(), unexplained - white.mT @ white
