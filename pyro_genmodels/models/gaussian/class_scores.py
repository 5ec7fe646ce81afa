"""Log-densities of rows under all of K Gaussians, without a copy of the rows for each."""

from __future__ import annotations

import torch

from pyro_genmodels._changes import in_functorch
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions import observed_part
from pyro_genmodels.models.gaussian.observed_gaussian import LOG_2_PI

_AT_ONCE = 2**18  # elements of the differences between rows and means that are held together


def diagonal_scores(
    x: Float[Tensor, "N D"],
    loc: Float[Tensor, "K D"],
    log_scale: Float[Tensor, "K D"],
    *,
    missing: bool = False,
    chunk_size: int | None = None,
) -> Float[Tensor, "N K"]:
    r"""Return the log-density of rows under Gaussians with independent elements.

    .. math:: \sum_d w_{kd} (x_{nd} - \mu_{kd})^2 = \sum_d w_{kd} x_{nd}^2
        - 2 \sum_d w_{kd} \mu_{kd} x_{nd} + \sum_d w_{kd} \mu_{kd}^2

    is three products of matrices, several times as fast as the differences; but where a mean is
    many standard deviations from the middle of all means, large terms cancel, and the differences
    are taken.

    Args:
        x: Rows, with NaN where an element is missing.
        loc: Means.
        log_scale: Logarithms of the standard deviations.
        missing: Whether elements may be missing, which are left out.
        chunk_size: Components whose differences are taken at once; by default as many as fit into
            some megabytes.
    """
    middle = loc.detach().mean(0)
    x, loc, weights = x - middle, loc - middle, (-2 * log_scale).exp()
    filled, seen = observed_part(x) if missing else (x, None)
    constants = log_scale + 0.5 * LOG_2_PI
    logs = constants.sum(-1) if seen is None else seen.to(x.dtype) @ constants.mT
    if _cancels(loc, weights):
        squares = _of_differences(filled, seen, loc, weights, chunk_size)
    else:
        far = weights * loc.square()
        squares = filled.square() @ weights.mT - 2 * filled @ (weights * loc).mT
        squares = squares + (far.sum(-1) if seen is None else seen.to(x.dtype) @ far.mT)
    return -0.5 * squares - logs


def _cancels(loc: Tensor, weights: Tensor) -> bool:
    """Whether some mean is so far off, in its deviations, that products lose a quarter of digits.

    Where values cannot be looked at they may be.
    """
    if in_functorch() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return True
    most = float((weights * loc.square()).detach().max())
    return not most < torch.finfo(loc.dtype).eps ** -0.25  # NaN too


def _of_differences(
    x: Tensor, seen: Tensor | None, loc: Tensor, weights: Tensor, chunk_size: int | None
) -> Tensor:
    size = chunk_for(x, chunk_size)
    parts = []
    for means, each in zip(loc.split(size), weights.split(size), strict=True):
        squares = (x - means.unsqueeze(1)).square() * each.unsqueeze(1)
        if seen is not None:
            squares = torch.where(seen, squares, torch.zeros_like(squares))
        parts.append(squares.sum(-1))
    return torch.cat(parts).mT


def dense_scores(
    x: Float[Tensor, "N D"],
    loc: Float[Tensor, "K D"],
    whitening: Float[Tensor, "K D D"],
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "N K"]:
    """Return the log-density of rows under Gaussians with a covariance each.

    Args:
        x: Rows.
        loc: Means.
        whitening: As of :class:`~pyro_genmodels.distributions.WhitenedNormal`.
        chunk_size: Components that are evaluated at once.
    """
    size = chunk_for(x, chunk_size)
    parts = []
    for means, whiten in zip(loc.split(size), whitening.split(size), strict=True):
        white = (x - means.unsqueeze(1)) @ whiten.mT
        parts.append(white.square().sum(-1))
    logs = whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * LOG_2_PI * x.shape[-1]
    return logs - 0.5 * torch.cat(parts).mT


def factor_scores(
    x: Float[Tensor, "N D"],
    loc: Float[Tensor, "K D"],
    loading: Float[Tensor, "K D R"],
    log_scale: Float[Tensor, "K D"],
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "N K"]:
    """Return the log-density of rows under Gaussians of low rank plus noise, by Woodbury.

    Args:
        x: Rows.
        loc: Means.
        loading: Loadings of the factors.
        log_scale: Logarithms of the noise's standard deviations.
        chunk_size: Components that are evaluated at once.
    """
    white = loading * (-log_scale).exp().unsqueeze(-1)
    identity = torch.eye(loading.shape[-1], dtype=x.dtype, device=x.device)
    factor = torch.linalg.cholesky(identity + white.mT @ white)
    # Of the errors in units of the noise, the squared length that the factors explain.
    explaining = torch.linalg.solve_triangular(factor, white.mT, upper=False)
    size = chunk_for(x, chunk_size)
    parts = []
    for means, logs, explains in zip(
        *(t.split(size) for t in (loc, log_scale, explaining)), strict=True
    ):
        error = (x - means.unsqueeze(1)) * (-logs).exp().unsqueeze(1)
        explained = error @ explains.mT
        parts.append(error.square().sum(-1) - explained.square().sum(-1))
    constants = log_scale.sum(-1) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * torch.cat(parts).mT - constants - 0.5 * LOG_2_PI * x.shape[-1]


def chunk_for(x: Float[Tensor, "N D"], chunk_size: int | None) -> int:
    """Return how many components are evaluated at once: at most ``chunk_size``, if it is given."""
    fits = max(1, _AT_ONCE // max(1, x.numel()))
    return fits if chunk_size is None else min(fits, chunk_size)
