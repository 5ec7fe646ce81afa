"""How far a network may scale and shift what it never saw in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_genmodels._checks import check

FARTHEST = 1e4
"""What bounded maps shift by at most: far beyond data of deviation one, near enough to sum up."""


def check_amplification(value: float | None) -> None:
    """Raise ``ValueError`` unless ``value`` is ``None`` or a finite number above 1."""
    fits = value is None or (value > 1 and math.isfinite(value))
    check(fits, "max_amplification", "be a finite number above 1, or None", value)


def soft_clip(log_scale: Tensor, most: float) -> Tensor:
    """Return a log-scale between those of ``1 / most`` and ``most``, near 0 the one given."""
    bound = math.log(most)
    return bound * torch.tanh(log_scale / bound)
