"""The schedule of improved diffusion models: a quarter of a circle."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from pyro_genmodels.nets.noise_schedules.base import NoiseSchedule
from pyro_genmodels.nets.noise_schedules.linear_log_snr import check_ends


class Cosine(NoiseSchedule):
    r"""Angle that grows linearly: :math:`\alpha = \cos \varphi`, :math:`\sigma = \sin \varphi`.

    The published form begins near :math:`g = -8.8` and ends with no signal at all; here it is cut
    at finite noise levels.

    Args:
        first: Noise level at time 0.
        last: Noise level at time 1.

    Raises:
        ValueError: If the ends are not finite, or the second is not the larger.

    References:
        Nichol and Dhariwal (2021), Improved denoising diffusion probabilistic models, eq. 17.
        https://arxiv.org/abs/2102.09672

    Example:
        >>> Cosine(-10.0, 10.0).grid(2).abs() < 1e-4
        tensor([False,  True, False])
    """

    angles: Tensor

    def __init__(self, first: float = -9.0, last: float = 9.0) -> None:
        super().__init__()
        check_ends(first, last)
        angles = [math.atan(math.exp(level / 2)) for level in (first, last)]
        # The angle's complement, too, as the tangent near a right angle needs its digits.
        complement = math.atan(math.exp(-last / 2))
        self.register_derived("angles", partial(torch.tensor, [*angles, complement]))

    def _level(self, time: Tensor) -> Tensor:
        first, last, complement = self.angles
        angle = first + (last - first) * time
        missing = complement + (last - first) * (1 - time)
        return 2 * (angle.sin().log() - missing.sin().log())
