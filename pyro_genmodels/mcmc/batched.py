"""Langevin dynamics of many examples at once, by a score network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro.poutine.util import is_validation_enabled

from pyro_genmodels._batching import expands_to
from pyro_genmodels._checks import check, check_finite, integers_checked
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.nets.layers import check_finite_context


@torch.no_grad()
@integers_checked
def langevin_samples(
    score: Callable[..., Tensor],
    x: Num[Tensor, "*batch_event"],
    num_steps: int,
    step_size: float | Tensor,
    *,
    context: Num[Tensor, "*context"] | None = None,
    log_density: Callable[..., Tensor] | None = None,
) -> Float[Tensor, "*batch_event"]:
    r"""Run a chain of Langevin dynamics from each example, all at once and independently.

    .. math:: x' = x + \tfrac12 \epsilon^2 s(x) + \epsilon n, \qquad n \sim N(0, I)

    With the score alone the samples are biased by :math:`O(\epsilon^2)`; see :class:`Langevin`.
    Given the log-density too, each example's step is accepted or rejected by its own Metropolis
    test, which leaves that density invariant. The score should then be its gradient: the test is
    correct with any other, but rejects more.

    Args:
        score: Called as ``score(x)`` or ``score(x, context)``, without gradients, it returns the
            gradient of the log-density with respect to ``x``.
        x: Where the chains start, ``(*batch, *event)``.
        num_steps: Number of steps.
        step_size: Step size :math:`\epsilon`, in units of ``x``; a tensor broadcasts to ``x``.
        context: Labels or features, if the score is conditional.
        log_density: Log-density in nats up to a constant, ``(*batch)``, called like the score. For
            an :class:`~pyro_genmodels.nets.EnergyGradient` it is minus its ``energy``.

    Returns:
        Where the chains end, of the shape of ``x``.

    Raises:
        ValueError: If ``num_steps`` is negative, a step size is not positive or does not broadcast
            to ``x``, or ``x`` has an integer dtype; if the score has another shape than ``x``, if
            the log-density is not finite where the chains start, or if they do not stay finite;
            under Pyro's validation, if ``x`` or features are not finite.

    References:
        Roberts & Tweedie (1996), Exponential convergence of Langevin distributions and their
        discrete approximations.

    Example:
        >>> x = langevin_samples(
        ...     lambda x: -x,
        ...     torch.zeros(5, 2),
        ...     num_steps=20,
        ...     step_size=0.5,
        ...     log_density=lambda x: -0.5 * x.square().sum(-1),
        ... )
        >>> x.shape
        torch.Size([5, 2])
    """
    check(num_steps >= 0, "num_steps", "be at least 0", num_steps)
    check(x.is_floating_point(), "x", "be of a floating dtype", x.dtype)
    step = torch.as_tensor(step_size, dtype=x.dtype, device=x.device)
    check(bool((step > 0).all()), "step_size", "be positive", step_size)
    rule = f"be a number or broadcast to the shape of x, {tuple(x.shape)}"
    check(expands_to(step.shape, x.shape), "step_size", rule, f"shape {tuple(step.shape)}")
    if is_validation_enabled():
        check_finite("x", x)
        check_finite_context(context)
    contexts = () if context is None else (context,)
    gradient = score(x, *contexts)
    rule = f"return values of its input's shape, {tuple(x.shape)}"
    check(gradient.shape == x.shape, "score", rule, f"shape {tuple(gradient.shape)}")
    if log_density is not None:
        nats = log_density(x, *contexts)
        leading = tuple(x.shape[: nats.dim()])
        rule = f"return values of shape (*batch) of its input's, {tuple(x.shape)}"
        check(nats.shape == leading, "log_density", rule, f"shape {tuple(nats.shape)}")
        check_finite("log_density", nats)
    for _ in range(num_steps):
        noise = torch.randn_like(x)
        proposal = x + 0.5 * step**2 * gradient + step * noise
        new_gradient = score(proposal, *contexts)
        if log_density is None:
            x, gradient = proposal, new_gradient
            continue
        new_nats = log_density(proposal, *contexts)
        # The noise that would lead back.
        back = (x - proposal - 0.5 * step**2 * new_gradient) / step
        asymmetry = 0.5 * (noise.square() - back.square()).reshape(*nats.shape, -1).sum(-1)
        log_ratio = new_nats - nats + asymmetry
        # A NaN fails the comparison: what is not finite is rejected.
        accepted = torch.rand_like(log_ratio).log() < log_ratio
        nats = torch.where(accepted, new_nats, nats)
        moved = accepted.reshape(accepted.shape + (1,) * (x.dim() - accepted.dim()))
        x = torch.where(moved, proposal, x)
        gradient = torch.where(moved, new_gradient, gradient)
    rule = "be so small that the chains stay finite"
    check(bool(x.isfinite().all()), "step_size", rule, step_size)
    return x
