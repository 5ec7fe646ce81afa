"""Bounds on the evidence, one value an example, in as little memory as asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._modes import evaluating
from pyro_genmodels._typing import Float, Num, Tensor


@runtime_checkable
class WeightedModel(Protocol):
    """Anything with log-weights: every model of this package."""

    def log_weights(self, x: Tensor, context: Tensor | None, *, num_particles: int) -> Tensor:
        """Return log p(x, z) - log q(z | x) in nats, ``(num_particles, *batch)``."""


@integers_checked
def elbo(
    model: WeightedModel,
    x: Num[Tensor, "n ..."],
    context: Num[Tensor, "n ..."] | None = None,
    *,
    num_particles: int = 1,
    chunk_size: int = 512,
) -> Float[Tensor, " n"]:
    """Estimate each example's evidence lower bound at beta = 1, in nats.

    Exact for models whose likelihood is. Runs in eval mode without gradients.

    Args:
        model: Any object with ``log_weights``.
        x: Data, one leading dimension.
        context: What the model is conditioned on, if anything.
        num_particles: Draws from the guide to average over, for each example.
        chunk_size: Most draws evaluated at once; memory grows with it alone.

    Returns:
        One value an example, float64.
    """
    total = _over_chunks(model, x, context, num_particles, chunk_size, _sum, torch.add)
    return total / num_particles


@integers_checked
def importance_weighted_bound(
    model: WeightedModel,
    x: Num[Tensor, "n ..."],
    context: Num[Tensor, "n ..."] | None = None,
    *,
    num_particles: int = 100,
    chunk_size: int = 512,
) -> Float[Tensor, " n"]:
    r"""Estimate each example's importance-weighted bound on the log-evidence, in nats.

    .. math:: \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k \mid x)}

    In expectation between the evidence lower bound (K = 1) and the log-evidence, rising with K.
    Runs in eval mode without gradients; the weights of one example are never all in memory.

    Args:
        model: Any object with ``log_weights``.
        x: Data, one leading dimension.
        context: What the model is conditioned on, if anything.
        num_particles: Draws K from the guide, for each example.
        chunk_size: Most draws evaluated at once; memory grows with it alone.

    Returns:
        One value an example, float64.

    References:
        Burda et al. (2016), Importance Weighted Autoencoders, eq. 8.
        https://arxiv.org/abs/1509.00519
    """
    total = _over_chunks(model, x, context, num_particles, chunk_size, _logsumexp, torch.logaddexp)
    return total - math.log(num_particles)


def _over_chunks(
    model: WeightedModel,
    x: Tensor,
    context: Tensor | None,
    num_particles: int,
    chunk_size: int,
    reduce: Callable[[Tensor], Tensor],
    join: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Reduce the log-weights over particles, at most ``chunk_size`` of them at a time."""
    check_positive(num_particles=num_particles, chunk_size=chunk_size)
    check(x.dim() > 0 and len(x) > 0, "x", "hold at least one example", f"shape {tuple(x.shape)}")
    particles = min(num_particles, chunk_size)
    rows = max(1, chunk_size // particles)
    results = []
    with torch.no_grad(), evaluating(model):
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            given = None if context is None else context[part]
            results.append(_reduced(model, x[part], given, num_particles, particles, reduce, join))
    return torch.cat(results)


def _reduced(
    model: WeightedModel,
    x: Tensor,
    context: Tensor | None,
    num_particles: int,
    particles: int,
    reduce: Callable[[Tensor], Tensor],
    join: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    total: Tensor | None = None
    for done in range(0, num_particles, particles):
        count = min(particles, num_particles - done)
        part = reduce(model.log_weights(x, context, num_particles=count).double())
        total = part if total is None else join(total, part)
    assert total is not None  # num_particles is positive
    return total


def _sum(log_weights: Tensor) -> Tensor:
    return log_weights.sum(0)


def _logsumexp(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(0)
