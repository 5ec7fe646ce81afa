"""The autoregressive part of NVAE's posterior: shifts that keep volumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.nets.layers import checkpointed
from pyro_genmodels.nets.nvae import AutoregressiveShift
from pyro_genmodels.transforms import FlowTransform


class AutoregressiveShifts(FlowTransform):
    r"""Pairs of shifts of each element by those before it, then by those after it.

    .. math:: y_i = x_i + m_i(x_{<i}), \qquad z_i = y_i + m'_i(y_{>i})

    From noise to latents all elements at once, which is the way of inference. Both Jacobians are
    unit triangular: the log-determinant is zero. The inverse is a fixed point that is reached
    after at most as many evaluations as a map has elements, each of which is right once those
    that it depends on are.

    Args:
        event_shape: Shape of a map, ``(C, H, W)``.
        num_pairs: Number of pairs.
        checkpointing: Keep no activations inside a shift.

    References:
        Vahdat and Kautz (2020), NVAE, section 3.4. Kingma et al. (2016), section 3, of which these
        are the shifts alone.
    """

    def __init__(
        self, event_shape: tuple[int, int, int], *, num_pairs: int = 1, checkpointing: bool = False
    ) -> None:
        super().__init__(3, event_shape=torch.Size(event_shape))
        self.checkpointing = checkpointing
        self.shifts = nn.ModuleList(
            AutoregressiveShift(event_shape[0], mirrored=mirrored)
            for _ in range(num_pairs)
            for mirrored in (False, True)
        )

    def forward_and_log_det(
        self, x: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return the shifted maps, and zero."""
        z = x
        for shift in self._runs:
            z = z + over_batch(shift, (z, 3)).to(z.dtype)
        return z, x.new_zeros(x.shape[:-3])

    @property
    def _runs(self) -> list[Callable[[Tensor], Tensor]]:
        shifts = cast(list[Callable[[Tensor], Tensor]], list(self.shifts))
        if not self.checkpointing:
            return shifts
        return [lambda x, run=shift: checkpointed(run, x) for shift in shifts]  # type: ignore[misc]

    def inverse_and_log_det(
        self, y: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return the noise of the maps, and zero."""
        x = y
        for shift in reversed(cast(list[AutoregressiveShift], list(self.shifts))):
            x = _unshifted(shift, x)
        return x, y.new_zeros(y.shape[:-3])


def _unshifted(shift: AutoregressiveShift, y: Tensor) -> Tensor:
    x = y
    for _ in range(math.prod(y.shape[-3:])):
        before, x = x, y - over_batch(shift, (x, 3)).to(y.dtype)
        if torch.equal(before, x):
            break
    return x
