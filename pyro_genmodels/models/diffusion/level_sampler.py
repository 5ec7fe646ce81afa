"""Which noise levels a minibatch is trained at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from pyro_genmodels._checks import integers_checked
from pyro_genmodels._typing import Float, Int, Tensor
from pyro_genmodels.nets.layers import sum_over_ranks

_MOST_BINS = 100
_DECAY = 0.98
# Share of the draws that stay uniform, so that no weight is large.
_UNIFORM = 0.05


class DrawnSteps(NamedTuple):
    """Steps of a chain, drawn for a minibatch.

    Attributes:
        step: Steps from 1 to ``num_steps``, ``(*batch)``.
        place: Where between its ends, 0 and 1, each lies, for continuous time, ``(*batch)``.
        weight: Inverse probabilities: the sum over all steps is the mean of the weighted terms.
    """

    step: Int[Tensor, "*batch"]
    place: Float[Tensor, "*batch"]
    weight: Float[Tensor, "*batch"]


class StepSampler(nn.Module):
    r"""Draws one step of a chain for each example: evenly, and more often where it matters more.

    A minibatch's draws are stratified: with one uniform u, example i of n takes the quantile
    :math:`(u + i / n) \bmod 1`, so that each alone is a random step and together they cover all.
    Steps are drawn in proportion to the root of their squared terms' running mean, which lets the
    sum of all steps' terms vary least; the inverse probability is the weight. A uniform share
    bounds that weight.

    Args:
        num_steps: Number of steps.
        adaptive: Whether steps are drawn by their terms; uniformly otherwise.

    References:
        Kingma et al. (2021), Variational diffusion models, appendix I (stratified times). Nichol
        and Dhariwal (2021), Improved DDPM, section 3.3 (importance sampling).

    Example:
        >>> sampler = StepSampler(4)
        >>> drawn = sampler.draw(torch.Size([8]))
        >>> sorted(drawn.step.tolist()), float(drawn.weight[0])
        ([1, 1, 2, 2, 3, 3, 4, 4], 4.0)
    """

    squares: Tensor
    counts: Tensor

    @integers_checked
    def __init__(self, num_steps: int, *, adaptive: bool = True) -> None:
        super().__init__()
        self.num_steps, self.adaptive = num_steps, adaptive
        self.num_bins = min(num_steps, _MOST_BINS)
        # Running sums of squared terms and of how many there were, with the same decay.
        self.register_buffer("squares", torch.zeros(self.num_bins, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(self.num_bins, dtype=torch.float64))

    def probabilities(self) -> Float[Tensor, " steps"]:
        """Return the probability of each step, float64."""
        uniform = self.squares.new_full((self.num_steps,), 1 / self.num_steps)
        if not self.adaptive:
            return uniform
        sizes = (self.squares / self.counts.clamp_min(1e-12)).sqrt()[self._bins(uniform.device)]
        share = sizes / sizes.sum().clamp_min(1e-300)
        # Until there is a term of every bin; decided without asking the device.
        ready = (self.counts > 0).all() & (sizes.sum() > 0)
        return torch.where(ready, _UNIFORM * uniform + (1 - _UNIFORM) * share, uniform)

    def draw(self, batch: Sequence[int]) -> DrawnSteps:
        """Draw a step for each example.

        Args:
            batch: Batch shape, particles included.
        """
        p = self.probabilities()
        ends = p.cumsum(0)
        number = math.prod(batch)
        offset = torch.rand((), dtype=p.dtype, device=p.device)
        at = (offset + torch.arange(number, dtype=p.dtype, device=p.device) / number) % 1
        index = torch.searchsorted(ends, at * ends[-1], right=True).clamp_max(self.num_steps - 1)
        within = (at * ends[-1] - (ends[index] - p[index])) / p[index]
        place = (index + within.clamp(0, 1)) / self.num_steps
        shaped = (each.reshape(batch) for each in (index + 1, place, 1 / p[index]))
        return DrawnSteps(*shaped)

    @torch.no_grad()
    def learn(self, drawn: DrawnSteps, terms: Float[Tensor, "*batch"]) -> None:
        """Take the terms at drawn steps, without their weights, into the running means.

        In eval mode the means stay. The ranks of a distributed run take each other's terms, too.

        Args:
            drawn: What :meth:`draw` returned.
            terms: Each example's term, in nats.
        """
        if not (self.adaptive and self.training):
            return
        bins = self._bins(terms.device)[drawn.step.flatten() - 1]
        squares = terms.detach().double().flatten().square()
        fresh = torch.zeros_like(self.squares).index_add_(0, bins, squares)
        counts = torch.zeros_like(self.counts).index_add_(0, bins, torch.ones_like(squares))
        sum_over_ranks(fresh)
        sum_over_ranks(counts)
        # Only bins that were drawn forget; a term that is not finite is reported elsewhere.
        decay = torch.where(counts > 0, _DECAY, 1.0)
        usable = fresh.isfinite()
        self.squares.copy_(torch.where(usable, self.squares * decay + fresh, self.squares))
        self.counts.copy_(torch.where(usable, self.counts * decay + counts, self.counts))

    def _bins(self, device: torch.device) -> Tensor:
        """Return each step's bin."""
        return torch.arange(self.num_steps, device=device) * self.num_bins // self.num_steps
