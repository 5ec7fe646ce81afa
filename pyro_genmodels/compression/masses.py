"""Masses of runs of levels: what a coder needs of the law of one element."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pyro_genmodels._logistic_mixture import LOG_SCALE_BOUND
from pyro_genmodels._typing import Float, Int
from pyro_genmodels.distributions.autoregressive import LogisticMixture, OutputLaw, Softmax


@functools.singledispatch
def run_masses(
    law: OutputLaw,
    parameters: Float[Tensor, "batch parameters"],
    start: Int[Tensor, " batch"],
    count: int,
    width: int,
    num_levels: int,
) -> Float[Tensor, "batch count"]:
    """Return the masses of successive runs of levels, of which some constant times is enough.

    A law of which no more is known is asked for the score of every level.

    Args:
        law: The law of one element.
        parameters: What the network gives, in float64.
        start: First level of the first run.
        count: Number of runs.
        width: Levels a run.
        num_levels: Levels there are; what lies beyond has no mass.
    """
    masses = []
    for i in range(count * width):
        level = (start + i).clamp(max=num_levels - 1)
        mass = law.log_prob(parameters, level).double().exp()
        masses.append(torch.where(start + i < num_levels, mass, 0.0))
    return torch.stack(masses, -1).unflatten(-1, (count, width)).sum(-1)


@run_masses.register
def _softmax(
    law: Softmax, parameters: Tensor, start: Tensor, count: int, width: int, num_levels: int
) -> Tensor:
    # A law that does not fit its parameters says so when it is asked for a score.
    law.log_prob(parameters[:1], start[:1])
    levels = start[:, None] + torch.arange(count * width, device=start.device)
    there = levels < num_levels
    logits = parameters.gather(1, levels.clamp(max=num_levels - 1)).masked_fill(~there, -torch.inf)
    # Of what is asked for: of far levels all would vanish beside the likeliest of the others.
    masses = (logits - logits.amax(1, keepdim=True)).exp()
    return masses.unflatten(-1, (count, width)).sum(-1)


@run_masses.register
def _logistic_mixture(
    law: LogisticMixture, parameters: Tensor, start: Tensor, count: int, width: int, num_levels: int
) -> Tensor:
    r"""By :math:`\sigma(a)\,\sigma(-b)\,(1 - e^{b-a})`, small masses being as exact as large ones.

    Neighbours share the factors at the edge between them. Beyond the first and the last edge lie
    the tails.
    """
    logits, loc, log_scale = parameters.chunk(3, -1)
    half = (num_levels - 1) / 2
    precision = torch.exp(-log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND)) / half
    first = start[:, None] + width * torch.arange(count + 1, device=start.device)
    edges = (first.double() - 0.5).masked_fill(first <= 0, -torch.inf)
    edges = edges.masked_fill(first >= num_levels, torch.inf)[:, None]
    scaled = (edges - ((loc + 1) * half)[..., None]) * precision[..., None]
    inside = -torch.expm1(-width * precision)[..., None]
    ends = torch.isinf(edges[..., :-1]) | torch.isinf(edges[..., 1:])
    masses = scaled[..., 1:].sigmoid() * (-scaled[..., :-1]).sigmoid()
    masses = masses * torch.where(ends, 1.0, inside)
    return (masses * logits.softmax(-1)[..., None]).sum(1)
