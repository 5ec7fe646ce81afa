"""Pseudo numerical methods for diffusion models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pyro_genmodels._checks import check_choice
from pyro_genmodels._typing import Tensor
from pyro_genmodels.distributions import ReverseDiffusion
from pyro_genmodels.models.diffusion.samplers.base import (
    Move,
    Sampler,
    StepRule,
    data_in,
    estimate,
    noise_in,
    transfer,
)

# Adams-Bashforth weights of the latest estimates, the newest first, by their number.
_WEIGHTS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


@dataclass(frozen=True)
class PNDM(Sampler):
    """Combines estimates of the noise of four steps as a linear multistep method does.

    Published weights are those of even steps. The order is two, not four, as the step itself is no
    straight line; and one where steps change their size abruptly. The first three steps are by a
    Runge-Kutta method, four evaluations each: S + 9 evaluations for S steps; or by as many
    estimates as there are: S evaluations.

    Args:
        start: How the first three steps go: ``"runge_kutta"`` or ``"multistep"``.
        spacing: As of every :class:`Sampler`.
        carries_estimate: As of every :class:`Sampler`.

    Raises:
        ValueError: If the start is unknown.

    References:
        Liu et al. (2022), Pseudo numerical methods for diffusion models on manifolds, algorithm 2.
        https://arxiv.org/abs/2202.09778

    Example:
        >>> PNDM("multistep").start
        'multistep'
    """

    start: Literal["runge_kutta", "multistep"] = "runge_kutta"

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if the start is unknown."""
        super().__post_init__()
        check_choice("start", self.start, ("runge_kutta", "multistep"))

    def rule(self, chain: ReverseDiffusion) -> StepRule:
        """Return the rule, which remembers three estimates."""
        recent: list[Tensor] = []  # estimates of the noise, the newest first

        def step(z: Tensor, move: Move) -> Tensor:
            recent.insert(0, noise_in(z, estimate(chain, z, move.source), move.source))
            if len(recent) < 4 and self.start == "runge_kutta":
                noise = _runge_kutta(chain, z, recent[0], move)
            else:
                del recent[4:]
                noise = torch.zeros_like(z)
                for weight, each in zip(_WEIGHTS[len(recent)], recent, strict=True):
                    noise = noise + weight * each
            return transfer(z, data_in(z, noise, move.source), move)

        return step


def _runge_kutta(chain: ReverseDiffusion, z: Tensor, first: Tensor, move: Move) -> Tensor:
    """Return the noise of a step by a Runge-Kutta method, from its estimate at the source."""
    middle = move._replace(target=(move.source + move.target) / 2)

    def noise_after(noise: Tensor, way: Move) -> Tensor:
        there = transfer(z, data_in(z, noise, way.source), way)
        return noise_in(there, estimate(chain, there, way.target), way.target)

    second = noise_after(first, middle)
    third = noise_after(second, middle)
    fourth = noise_after(third, move)
    return (first + 2 * second + 2 * third + fourth) / 6
