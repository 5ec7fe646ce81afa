"""Data of sequences as rows of frames, by which a model of frames is standardised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from pyro_genmodels._checks import check_trailing
from pyro_genmodels._typing import Tensor
from pyro_genmodels.models.base.standardization import batches_of


class FrameRows:
    """The frames of training data that are there, in batches.

    Args:
        data: Sequences: a tensor, a data set, or batches such as a loader's.
        frames: How they are made of frames.
        event_shape: Sizes of one sequence.
    """

    def __init__(self, data: Any, frames: Any, event_shape: torch.Size) -> None:
        self.data, self.frames, self.event_shape = data, frames, event_shape

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        """Yield frames ``(n, *event)`` of the model of one."""
        for x in batches_of(self.data, len(self.event_shape)):
            check_trailing("x", x, self.event_shape)
            gone = self.frames.absent(x) if self.frames.missing else None
            rows = self.frames.of(x)
            if gone is None:
                yield (rows.reshape(-1, *self.frames.event_shape),)
            else:
                yield (rows[~gone],)
