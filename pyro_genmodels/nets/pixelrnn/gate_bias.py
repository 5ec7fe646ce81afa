"""What the four gates of an LSTM layer are at a place, before they see anything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from pyro_genmodels.nets.pixelrnn.layers import LSTMLayer


class GateBias:
    """The bias of one way's gates, and what a context adds to it.

    Args:
        layer: The layer.
        columns: The way's columns of the layer's gates.
        features: Features of the context.
    """

    def __init__(self, layer: LSTMLayer, columns: Tensor, features: Tensor | None) -> None:
        self._everywhere = cast(Tensor, layer.enter.bias)[columns].expand(1, 1, -1)
        self._rows: Tensor | None = None
        if layer.context is not None and features is not None:
            self._weight = layer.context.weight[columns].t()
            if len(features) == 1:
                self._everywhere = self._everywhere + features @ self._weight
            else:
                self._rows = features.unflatten(0, (-1, layer.width))

    def at(self, row: int) -> Tensor:
        """Return them for a row, ``(width or 1, batch or 1, gates)``."""
        if self._rows is None:
            return self._everywhere
        return self._everywhere + self._rows[row] @ self._weight


def gate_columns(columns: Tensor, bounds: Sequence[int]) -> Tensor:
    """Return the columns of four gates, colour by colour.

    Example:
        >>> gate_columns(torch.arange(8), [0, 1, 2])
        tensor([0, 2, 4, 6, 1, 3, 5, 7])
    """
    parts = columns.view(4, -1)
    return torch.cat([parts[:, a:b].flatten() for a, b in itertools.pairwise(bounds)])
