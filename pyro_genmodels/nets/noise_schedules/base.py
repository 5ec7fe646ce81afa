"""The base of noise schedules, and what follows from a noise level."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._configuration import Configured
from pyro_genmodels._modules import first_tensor
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.nets.layers import DerivedBuffers


class NoiseSchedule(Configured, DerivedBuffers, Abstract):
    r"""Noise level as a function of time, from clean data at 0 to noise at 1.

    The noise level is :math:`g(t) = -\log \mathrm{SNR}(t)`, which rises. Noised data have variance
    preserved: :math:`z_t = \alpha x + \sigma \epsilon` with :math:`\alpha^2 = 1 / (1 + e^g)` and
    :math:`\sigma^2 = 1 - \alpha^2`. Every other convention is a rescaling of that: of data with
    noise of scale s added, :math:`g = 2 \log s`.

    A schedule is finite at both ends. Levels are computed in float32 at least, also under autocast,
    and in float64 once the module is.
    """

    undecayed: tuple[str, ...] = ()
    """Names of parameters that weight decay should leave alone."""

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def _level(self, time: Tensor) -> Tensor:
        """Return the noise level at times in [0, 1]."""

    def forward(self, time: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the noise level g at times between 0 and 1, rising with time.

        Args:
            time: Times, of any shape.

        Raises:
            ValueError: If a time lies outside of [0, 1].
        """
        inside = bool(((time >= 0) & (time <= 1)).all())
        check(inside, "time", "lie between 0 and 1", time.detach())
        return self._level(time)

    @integers_checked
    def grid(self, num_steps: int) -> Float[Tensor, " levels"]:
        """Return the noise levels of a chain, ``(num_steps + 1,)``, from the least noise.

        Args:
            num_steps: Number of steps between the ends.

        Raises:
            ValueError: If ``num_steps`` is not positive.
        """
        check_positive(num_steps=num_steps)
        return self._level(self._times(num_steps + 1))

    @property
    def ends(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The least and the largest noise level."""
        first, last = self._level(self._times(2))
        return first, last

    def _times(self, count: int) -> Tensor:
        return torch.linspace(0, 1, count, dtype=self.dtype, device=self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the levels: float32, or float64 of a module of that dtype."""
        return torch.promote_types(first_tensor(self).dtype, torch.float32)

    @property
    def device(self) -> torch.device:
        """Device of the levels."""
        return first_tensor(self).device


def signal_and_noise(
    level: Float[Tensor, "*shape"],
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    r"""Return the factors of data and of noise, :math:`\alpha` and :math:`\sigma`, at noise levels.

    Args:
        level: Noise levels g.

    Example:
        >>> signal_and_noise(torch.zeros(()))[0].square()
        tensor(0.5000)
    """
    # By log-sigmoid, which keeps the digits where the sigmoid rounds to one or zero.
    return (0.5 * F.logsigmoid(-level)).exp(), (0.5 * F.logsigmoid(level)).exp()
