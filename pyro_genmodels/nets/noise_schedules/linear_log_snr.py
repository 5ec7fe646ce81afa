"""Schedules that are linear in the logarithm of the signal-to-noise ratio."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.nets.noise_schedules.base import NoiseSchedule


class LinearLogSNR(NoiseSchedule):
    r"""Noise level that rises linearly with time, between ends that may be learned.

    In the limit of infinitely many steps a diffusion model's bound depends on the ends alone, and
    not on the path between them. So the ends are worth learning, by the bound itself.

    Args:
        first: Noise level at time 0. The noise's deviation there is :math:`e^{g/2}` of the data's,
            a third of half the distance between two levels, say.
        last: Noise level at time 1.
        learnable: Learn both ends. Weight decay would pull them towards zero: the training of this
            package leaves them out of it, see ``undecayed``.

    Raises:
        ValueError: If the ends are not finite, or the second is not the larger.

    References:
        Kingma et al. (2021), Variational diffusion models. https://arxiv.org/abs/2107.00630

    Example:
        >>> [round(level, 3) for level in LinearLogSNR(-8.0, 4.0).grid(4).tolist()]
        [-8.0, -5.0, -2.0, 1.0, 4.0]
    """

    undecayed = ("first", "log_range")

    first: Tensor
    log_range: Tensor

    def __init__(self, first: float = -13.3, last: float = 5.0, *, learnable: bool = True) -> None:
        super().__init__()
        check_ends(first, last)
        # The range's exponential is positive, so that levels rise whatever is learned.
        for name, value in {"first": float(first), "log_range": math.log(last - first)}.items():
            if learnable:
                self.register_parameter(name, nn.Parameter(torch.tensor(value)))
            else:
                self.register_derived(name, partial(torch.tensor, value))

    def _level(self, time: Tensor) -> Tensor:
        return self.first + self.log_range.exp() * time


class Geometric(NoiseSchedule):
    r"""Scale of added noise that grows geometrically: :math:`g = 2 \log s` rises linearly.

    Args:
        smallest: Scale of the noise at time 0, in units of the data as the chain sees them.
        largest: Its scale at time 1, several times the largest distance between two data points.

    Raises:
        ValueError: If the scales are not positive and finite, or the second is not the larger.

    References:
        Song and Ermon (2019), Generative modeling by estimating gradients of the data
        distribution. https://arxiv.org/abs/1907.05600

    Example:
        >>> Geometric(0.01, 100.0).grid(2).div(2).exp()
        tensor([1.0000e-02, 1.0000e+00, 1.0000e+02])
    """

    ends_of_range: Tensor

    def __init__(self, smallest: float = 0.01, largest: float = 50.0) -> None:
        super().__init__()
        check_positive(smallest=smallest, largest=largest)
        check(largest > smallest, "largest", f"be larger than `smallest`, {smallest:g}", largest)
        ends = (2 * math.log(smallest), 2 * math.log(largest))
        check_ends(*ends)
        self.register_derived("ends_of_range", partial(torch.tensor, ends))

    def _level(self, time: Tensor) -> Tensor:
        first, last = self.ends_of_range
        return first + (last - first) * time


def check_ends(first: float, last: float) -> None:
    """Raise ``ValueError`` unless the ends of a schedule are finite and rise."""
    finite = math.isfinite(first) and math.isfinite(last)
    rule = "be finite: cut the schedule before the noise vanishes, or nothing but noise is left"
    check(finite, "noise level", rule, f"{first} to {last}")
    check(last > first, "last", f"be larger than the first noise level, {first:g}", last)
