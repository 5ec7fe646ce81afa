"""Bounds on the evidence, one value an example, in as little memory as asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from pyro_genmodels._batching import expands_to
from pyro_genmodels._checks import check, check_positive, check_trailing, integers_checked
from pyro_genmodels._modules import evaluating
from pyro_genmodels._progress import tracked
from pyro_genmodels._typing import Float, GivenContext, Num, Tensor
from pyro_genmodels.nets.layers import join_context


@runtime_checkable
class WeightedModel(Protocol):
    """Anything with log-weights: every model of this package.

    Its ``event_shape``, and ``context_event_dim`` if it is conditional, tell which dimensions are
    the batch's. Without an ``event_shape`` the first one is.
    """

    def log_weights(self, x: Tensor, context: Tensor | None, *, num_particles: int) -> Tensor:
        """Return log p(x, z) - log q(z | x) in nats, ``(num_particles, *batch)``."""


class EvidenceBounds(NamedTuple):
    """Both bounds on each example's log-evidence, from the same log-weights.

    Attributes:
        elbo: Evidence lower bound at beta = 1, nats, ``(*batch)``.
        importance_weighted: Importance-weighted bound, nats, ``(*batch)``; never below the other.
    """

    elbo: Tensor
    importance_weighted: Tensor


@integers_checked
def evidence_bounds(
    model: WeightedModel,
    x: Num[Tensor, "..."],
    context: GivenContext = None,
    *,
    num_particles: int = 100,
    chunk_size: int = 512,
    **options: Any,
) -> EvidenceBounds:
    """Estimate :func:`elbo` and :func:`importance_weighted_bound` in one pass.

    Runs in eval mode without gradients; the weights of one example are never all in memory.

    Args:
        model: Any object with ``log_weights``.
        x: Data ``(*batch, *event)``, one example or more.
        context: What the model is conditioned on, if anything: a tensor, or a pair of labels and
            features. Its batch shape expands to that of the data.
        num_particles: Draws from the guide, for each example.
        chunk_size: Most draws evaluated at once; memory grows with it alone.
        **options: Further arguments of the model's ``log_weights``, such as a diffusion model's
            ``num_steps``.

    Returns:
        One value of each per example, ``(*batch)``, float64.

    Raises:
        ValueError: If there is no example, or the context does not fit.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> vae = VAE((4,), latent_dim=2)
        >>> found = evidence_bounds(vae, torch.randn(3, 4), num_particles=5)
        >>> bool((found.elbo <= found.importance_weighted).all())
        True
    """
    check_positive(num_particles=num_particles, chunk_size=chunk_size)
    batch, x, flat = _flattened(model, x, context)
    particles = min(num_particles, chunk_size)
    counts = [min(particles, num_particles - i) for i in range(0, num_particles, particles)]
    rows = max(1, chunk_size // particles)
    parts = []
    with torch.no_grad(), evaluating(model):
        for start in tracked(range(0, len(x), rows), "evaluating"):
            part = slice(start, start + rows)
            given = None if flat is None else flat[part]
            weights = [
                _reduced(model.log_weights(x[part], given, num_particles=n, **options))
                for n in counts
            ]
            sums, logs = (torch.stack(each) for each in zip(*weights, strict=True))
            parts.append((sums.sum(0), logs.logsumexp(0)))
    total, log_total = (torch.cat(each).reshape(batch) for each in zip(*parts, strict=True))
    return EvidenceBounds(total / num_particles, log_total - math.log(num_particles))


@integers_checked
def elbo(
    model: WeightedModel,
    x: Num[Tensor, "..."],
    context: GivenContext = None,
    *,
    num_particles: int = 1,
    chunk_size: int = 512,
    **options: Any,
) -> Float[Tensor, "*batch"]:
    """Estimate each example's evidence lower bound at beta = 1, in nats.

    Exact for models whose likelihood is. Runs in eval mode without gradients.

    Args:
        model: Any object with ``log_weights``.
        x: Data ``(*batch, *event)``, one example or more.
        context: What the model is conditioned on, if anything: a tensor, or a pair of labels and
            features. Its batch shape expands to that of the data.
        num_particles: Draws from the guide to average over, for each example.
        chunk_size: Most draws evaluated at once; memory grows with it alone.
        **options: Further arguments of the model's ``log_weights``.

    Returns:
        One value per example, ``(*batch)``, float64.

    Raises:
        ValueError: If there is no example, or the context does not fit.
    """
    sizes = {"num_particles": num_particles, "chunk_size": chunk_size}
    return evidence_bounds(model, x, context, **sizes, **options).elbo


@integers_checked
def importance_weighted_bound(
    model: WeightedModel,
    x: Num[Tensor, "..."],
    context: GivenContext = None,
    *,
    num_particles: int = 100,
    chunk_size: int = 512,
    **options: Any,
) -> Float[Tensor, "*batch"]:
    r"""Estimate each example's importance-weighted bound on the log-evidence, in nats.

    .. math:: \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k \mid x)}

    In expectation between the evidence lower bound (K = 1) and the log-evidence, rising with K.
    Runs in eval mode without gradients; the weights of one example are never all in memory.

    Args:
        model: Any object with ``log_weights``.
        x: Data ``(*batch, *event)``, one example or more.
        context: What the model is conditioned on, if anything: a tensor, or a pair of labels and
            features. Its batch shape expands to that of the data.
        num_particles: Draws K from the guide, for each example.
        chunk_size: Most draws evaluated at once; memory grows with it alone.
        **options: Further arguments of the model's ``log_weights``.

    Returns:
        One value per example, ``(*batch)``, float64.

    Raises:
        ValueError: If there is no example, or the context does not fit.

    References:
        Burda et al. (2016), Importance Weighted Autoencoders, eq. 8.
        https://arxiv.org/abs/1509.00519
    """
    sizes = {"num_particles": num_particles, "chunk_size": chunk_size}
    return evidence_bounds(model, x, context, **sizes, **options).importance_weighted


def _reduced(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return what both bounds need of some particles' log-weights: two sums, float64."""
    precise = log_weights.double()
    return precise.sum(0), precise.logsumexp(0)


def _flattened(
    model: WeightedModel, x: Tensor, context: GivenContext
) -> tuple[torch.Size, Tensor, Tensor | None]:
    """Return the batch shape, and data and context over one batch dimension."""
    event: Sequence[int] = getattr(model, "event_shape", x.shape[1:])
    check_trailing("x", x, event)
    batch = x.shape[: x.dim() - len(event)]
    check(batch.numel() > 0, "x", "hold at least one example", f"shape {tuple(x.shape)}")
    x = x.reshape(-1, *event)
    if context is None:
        return batch, x, None
    rank = getattr(model, "context_event_dim", None)
    if not isinstance(context, Tensor):
        rule = "be one tensor, or a pair for a model of labels together with features"
        check(bool(rank) and len(context) == 2, "context", rule, f"{len(context)} tensors")
        labels, features = context
        context = join_context(labels, features, rank)
    rank = context.dim() - len(batch) if rank is None else rank
    given, of_one = context.shape[: context.dim() - rank], context.shape[context.dim() - rank :]
    rule = f"have a batch shape that expands to {tuple(batch)}"
    check(expands_to(given, batch), "context", rule, tuple(given))
    return batch, x, context.expand(batch + of_one).reshape(-1, *of_one)
