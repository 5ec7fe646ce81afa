"""What a sampler is, and the step that all of them are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions import ReverseDiffusion
from pyro_genmodels.nets import NoiseSchedule, signal_and_noise


class Move(NamedTuple):
    """One step of a sampler, between two noise levels.

    Attributes:
        source: Noise level that it begins at, float64 on the CPU.
        target: Noise level that it leads to.
        is_last: Whether it is the last step.
    """

    source: Tensor
    target: Tensor
    is_last: bool


StepRule: TypeAlias = Callable[[Tensor, Move], Tensor]


@dataclass(frozen=True)
class Sampler(Abstract):
    r"""A rule for the steps of a diffusion model from noise to data.

    A subclass gives the rule of one step by :meth:`rule`. All rules work on the values that the
    chain adds noise to, and end at the model's least noise level, from where the model's own
    decoder leads to data.

    Args:
        spacing: Where the noise levels of the steps lie: evenly in the schedule's ``"time"``,
            evenly in ``"log_snr"``, or at given levels :math:`g = -\log \mathrm{SNR}`, rising
            and strictly between the ends of the schedule, which are added.
        carries_estimate: Of a model with self-conditioning, show the network its estimate of the
            evaluation before, as published, in the place of a first pass at the same noise level.
            That halves the evaluations and draws from another model than the one that is scored.

    Raises:
        ValueError: If the spacing is unknown or its levels do not rise.
    """

    _: KW_ONLY
    # Of types that any module knows, where subclasses have their annotations read.
    spacing: str | tuple[float, ...] | list[float] = "time"
    carries_estimate: bool = False

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if the spacing is unknown or its levels do not rise."""
        if isinstance(self.spacing, str):
            rule = "be 'time', 'log_snr' or noise levels"
            check(self.spacing in ("time", "log_snr"), "spacing", rule, repr(self.spacing))
            return
        object.__setattr__(self, "spacing", tuple(map(float, self.spacing)))
        rises = all(low < high for low, high in pairwise(self.spacing))
        check(rises, "spacing", "rise from less noise to more", self.spacing)

    @property
    def is_deterministic(self) -> bool:
        """Whether its steps draw no noise, so that they can be walked both ways."""
        return True

    @abstractmethod
    def rule(self, chain: ReverseDiffusion) -> StepRule:
        """Return the rule of one walk, which may remember the steps before.

        Args:
            chain: Noise levels, estimate and variance of the steps.
        """

    def levels(
        self, schedule: NoiseSchedule, num_steps: int | None, *, default: int
    ) -> Float[Tensor, " levels"]:
        """Return the noise levels, rising, with both ends of the schedule.

        Args:
            schedule: The model's noise levels over time.
            num_steps: Number of steps, if it was given.
            default: Number of steps if neither it nor the levels were given.

        Raises:
            ValueError: If the number is not positive or not that of given levels, or these do not
                lie between the schedule's ends.
        """
        if not isinstance(self.spacing, str):
            own = len(self.spacing) + 1
            rule = f"be None or {own}, the number of steps between the levels of `spacing`"
            check(num_steps in (None, own), "num_steps", rule, num_steps)
        num_steps = default if num_steps is None else num_steps
        check_positive(num_steps=num_steps)
        if self.spacing == "time":
            return schedule.grid(num_steps)
        first, last = schedule.ends
        if self.spacing == "log_snr":
            places = torch.linspace(0, 1, num_steps + 1, dtype=first.dtype, device=first.device)
            return first + (last - first) * places
        inner = torch.as_tensor(self.spacing, dtype=first.dtype, device=first.device)
        inside = bool(((inner > first) & (inner < last)).all())
        ends = f"lie between {float(first):g} and {float(last):g}, the ends of the schedule"
        check(inside, "spacing", ends, self.spacing)
        return torch.cat([first[None], inner, last[None]])

    def walk(
        self,
        chain: ReverseDiffusion,
        z: Tensor,
        *,
        upwards: bool = False,
        edit: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Iterator[Tensor]:
        """Yield the states after each step, in the memory of a few.

        Args:
            chain: Noise levels, estimate and variance of the steps.
            z: States at the chain's noisiest level; upwards at its least noisy one.
            upwards: Walk from data to noise, by a deterministic rule.
            edit: Called with the state after a step and its noise level; returns what takes its
                place.
        """
        step = self.rule(chain)
        # On the CPU, where no step waits for a device; float64 as densities are.
        levels = chain.levels.detach().double().cpu()
        ways = [*pairwise(levels if upwards else levels.flip(0))]
        for number, (source, target) in enumerate(ways, 1):
            z = step(z, Move(source, target, number == len(ways)))
            z = z if edit is None else edit(z, target)
            yield z


def estimate(
    chain: ReverseDiffusion, z: Float[Tensor, "*batch_event"], level: Float[Tensor, ""]
) -> Float[Tensor, "*batch_event"]:
    """Return the estimate of the data in states at one noise level: one evaluation.

    Args:
        chain: What estimates.
        z: The states.
        level: Their noise level.
    """
    levels = level.to(z).expand(z.shape[: z.dim() - chain.rank])
    return chain.denoise(z, levels, chain.context).x


def transfer(
    z: Float[Tensor, "*batch_event"],
    x: Float[Tensor, "*batch_event"],
    move: Move,
    removed: Tensor | None = None,
) -> Float[Tensor, "*batch_event"]:
    r"""Move states to another noise level as if estimates of data and of noise were right.

    .. math:: z_s = \alpha_s \hat x + \sigma_s \sqrt{1 - r} \, \hat\epsilon, \qquad
        \hat\epsilon = (z_t - \alpha_t \hat x) / \sigma_t

    Args:
        z: States at the source.
        x: Estimates of the data.
        move: From where to where.
        removed: :math:`\log(1 - r)`, with the share r of the noise's variance that is drawn anew.
    """
    source, target = move.source, move.target
    kept = 0.5 * (target - source if removed is None else target - source + removed)
    alpha, _ = signal_and_noise(target)
    ratio = (0.5 * (F.logsigmoid(-target) - F.logsigmoid(-source)) + kept).exp()
    # By expm1: of small steps the factor is a difference between nearly equal numbers.
    return ratio * z - alpha * torch.expm1(kept) * x


def noise_in(
    z: Float[Tensor, "*batch_event"], x: Float[Tensor, "*batch_event"], level: Float[Tensor, ""]
) -> Float[Tensor, "*batch_event"]:
    """Return the estimate of the noise in states that goes with an estimate of the data.

    Args:
        z: States.
        x: Estimates of the data.
        level: Noise level of the states.
    """
    alpha, sigma = signal_and_noise(level)
    return (z - alpha * x) / sigma


def data_in(
    z: Float[Tensor, "*batch_event"], noise: Float[Tensor, "*batch_event"], level: Float[Tensor, ""]
) -> Float[Tensor, "*batch_event"]:
    """Return the estimate of the data in states that goes with an estimate of the noise.

    Args:
        z: States.
        noise: Estimates of the noise.
        level: Noise level of the states.
    """
    alpha, sigma = signal_and_noise(level)
    return (z - sigma * noise) / alpha
