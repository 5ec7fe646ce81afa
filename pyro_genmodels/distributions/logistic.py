"""Logistic noise without the infinite draw."""

from __future__ import annotations

import torch
from pyro.distributions import Logistic

from pyro_genmodels._typing import Tensor


class FiniteLogistic(Logistic):
    """The logistic law; Pyro's own draws minus infinity where ``uniform_`` gives a zero."""

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw ``(*sample_shape, *batch)`` finite values."""
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = self.loc.new_empty(shape).uniform_()
        # A zero stands for draws below the grid of `uniform_`: their middle.
        uniform = uniform.clamp_min(torch.finfo(self.loc.dtype).eps / 4)
        return self.loc + self.scale * uniform.logit()
