"""Return a distribution's copy with another batch shape: what every ``expand`` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from pyro.distributions import TorchDistribution

DistributionT = TypeVar("DistributionT", bound=TorchDistribution)


def expanded(
    law: DistributionT, batch_shape: Sequence[int], instance: Any = None, **parameters: Any
) -> DistributionT:
    """Return the same distribution with another batch shape.

    Args:
        law: The distribution.
        batch_shape: The batch shape of the new one.
        instance: What ``expand`` was given to be filled, as torch's protocol has it.
        parameters: The attributes that change.
    """
    new: Any = type(law).__new__(type(law)) if instance is None else instance
    vars(new).update({**vars(law), **parameters})
    TorchDistribution.__init__(new, torch.Size(batch_shape), law.event_shape, validate_args=False)
    new._validate_args = law._validate_args
    return new
