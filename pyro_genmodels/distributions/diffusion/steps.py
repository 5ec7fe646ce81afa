"""One step between two noise levels: the Gaussians that diffusion chains are made of."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_genmodels._batching import over_event
from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float

VarianceName: TypeAlias = Literal["posterior", "forward", "learned"]
VARIANCES = get_args(VarianceName)

_LOG_2PI = math.log(2 * math.pi)


class Step(NamedTuple):
    r"""Factors of the steps between noise levels :math:`g_s < g_t`.

    From differences of levels, by ``expm1``: written with the factors of data and noise themselves,
    the variance of a small step would be the difference of two numbers that are nearly equal.

    Attributes:
        noise_factor: :math:`(\alpha_s / \alpha_t) (1 - c)`, of :math:`z_t` in the mean of
            :math:`z_s` given :math:`z_t` and the data.
        data_factor: :math:`\alpha_s c`, of the data in that mean.
        decay: :math:`\alpha_t / \alpha_s`, of :math:`z_s` in the mean of :math:`z_t`.
        log_removed: :math:`\log c`, with :math:`c = 1 - e^{g_s - g_t}`.
        log_variance: :math:`\log (\sigma_s^2 c)`, of :math:`z_s` given :math:`z_t` and the data.
        log_added: :math:`\log (\sigma_t^2 c)`, of :math:`z_t` given :math:`z_s`; the larger of the
            two variances that a reverse step is given by convention.
    """

    noise_factor: Tensor
    data_factor: Tensor
    decay: Tensor
    log_removed: Tensor
    log_variance: Tensor
    log_added: Tensor


def step_between(
    low: Float[Tensor, "*shape"], high: Float[Tensor, "*shape"], rank: int = 0
) -> Step:
    """Return the factors of the steps between noise levels, elementwise.

    Args:
        low: Levels with less noise.
        high: Levels with more noise, of the same shape.
        rank: Dimensions of one that the factors get at their end, to meet events of that rank.
    """
    low, high = over_event(low, rank), over_event(high, rank)
    kept = (low - high).exp()
    log_removed = (-torch.expm1(low - high)).log()
    # log(alpha_s / alpha_t), as alpha is the root of a sigmoid.
    log_ratio = 0.5 * (F.softplus(high) - F.softplus(low))
    return Step(
        noise_factor=log_ratio.exp() * kept,
        data_factor=(0.5 * F.logsigmoid(-low) + log_removed).exp(),
        decay=(-log_ratio).exp(),
        log_removed=log_removed,
        log_variance=F.logsigmoid(low) + log_removed,
        log_added=F.logsigmoid(high) + log_removed,
    )


def check_grid(levels: Tensor) -> None:
    """Raise ``ValueError`` unless these are the noise levels of a chain."""
    check(levels.dim() == 1 and len(levels) > 0, "levels", "be one row", tuple(levels.shape))
    finite = bool(levels.isfinite().all())
    check(finite, "levels", "be finite (cut the schedule at finite noise levels)", levels.detach())
    check(bool((levels.diff() > 0).all()), "levels", "rise", levels.detach())


def gaussian_log_density(
    residual: Float[Tensor, "*shape"], log_variance: Float[Tensor, "*shape"], rank: int
) -> Float[Tensor, "*batch"]:
    """Return the log-density of a Gaussian's deviation from its mean, over the last dimensions."""
    nats = -0.5 * (residual.square() * (-log_variance).exp() + log_variance + _LOG_2PI)
    return nats.flatten(nats.dim() - rank).sum(-1) if rank else nats


def log_variance_of(step: Step, kind: VarianceName, share: Tensor | None) -> Tensor:
    """Return the log-variance of reverse steps.

    Args:
        step: Factors of the steps.
        kind: Whether it is the posterior's, the forward step's, or between both.
        share: Where between both, 0 being the posterior's, of a learned variance.
    """
    if kind == "posterior":
        return step.log_variance
    if kind == "forward" or share is None:
        return step.log_added
    return step.log_variance + share * (step.log_added - step.log_variance)


def step_divergence(
    step: Step,
    error: Float[Tensor, "*batch_event"],
    rank: int,
    kind: VarianceName = "posterior",
    share: Tensor | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Return the KL divergence of the forward chain's posterior from reverse steps, in nats.

    With the posterior's variance that is
    :math:`\tfrac12 (\mathrm{SNR}_s - \mathrm{SNR}_t) |x - \hat x|^2`.

    Args:
        step: Factors of the steps, with dimensions of one for events.
        error: Data less their estimate.
        rank: Rank of an event.
        kind: The reverse steps' variance.
        share: Where it lies, if it is learned.
    """
    log_variance = log_variance_of(step, kind, share)
    nats = 0.5 * (step.data_factor * error).square() * (-log_variance).exp()
    if kind != "posterior":
        log_ratio = step.log_variance - log_variance
        nats = nats + 0.5 * (torch.expm1(log_ratio) - log_ratio)
    return nats.flatten(nats.dim() - rank).sum(-1)
