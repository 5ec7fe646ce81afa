"""Both chains scored at once, in the memory of a few states."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_genmodels._batching import over_event
from pyro_genmodels._typing import Float
from pyro_genmodels.distributions.diffusion.reverse import ReverseDiffusion
from pyro_genmodels.distributions.diffusion.steps import (
    gaussian_log_density,
    step_between,
)
from pyro_genmodels.nets import signal_and_noise


def draw_log_ratio(
    x: Float[Tensor, "*batch_event"], reverse: ReverseDiffusion
) -> tuple[Float[Tensor, "*batch_event"], Float[Tensor, "*batch"]]:
    r"""Draw :math:`z \sim q(z | x)`; return :math:`z_0` and :math:`\log p(z) - \log q(z | x)`.

    The values are those of both distributions' ``log_prob``, but the chain is drawn and scored part
    by part, so that without gradients memory does not grow with the number of steps. The ratio
    varies far less from draw to draw than the sum of the steps' KL divergences does: along a chain
    that the network predicts well, both densities change alike.

    Args:
        x: Data ``(*batch, *event)``, those of all particles.
        reverse: The chain from noise to data, of a batch shape that broadcasts to theirs.

    Returns:
        The least noised data, and the ratio in nats, float64.
    """
    rank, levels = reverse.rank, reverse.levels
    batch = x.shape[: x.dim() - rank]
    precise = levels.double()
    alpha, _ = signal_and_noise(levels)
    # As ForwardDiffusion draws: z / alpha is the data and a sum of independent increments.
    total = (0.5 * levels[0]).exp() * torch.randn_like(x)
    first = state = alpha[0] * (x + total)
    residual = state.double() - signal_and_noise(precise[0])[0] * x
    log_variance = F.logsigmoid(precise[0]).expand_as(residual)
    ratio = -gaussian_log_density(residual, log_variance, rank)
    for part in reverse.parts(batch.numel()):
        low, high = levels[part], levels[part.start + 1 : part.stop + 1]
        scale = (0.5 * (high + (-torch.expm1(low - high)).log())).exp()
        noise = torch.randn(len(low), *x.shape, dtype=x.dtype, device=x.device)
        totals = total + (over_event(scale, x.dim()) * noise).cumsum(0)
        states = over_event(alpha[part.start + 1 : part.stop + 1], x.dim()) * (x + totals)
        total, states = totals[-1], torch.cat([state[None], states])
        state = states[-1]
        within = slice(part.start, part.stop + 1)
        step = step_between(precise[within][:-1], precise[within][1:], x.dim())
        residual = states[1:].double() - step.decay * states[:-1]
        log_added = step.log_added.expand_as(residual)
        ratio = ratio - gaussian_log_density(residual, log_added, rank).sum(0)
        ratio = ratio + reverse.log_prob_of_steps(states, levels[within]).sum(0)
    last = state.double()
    return first, ratio + gaussian_log_density(last, torch.zeros_like(last), rank)
