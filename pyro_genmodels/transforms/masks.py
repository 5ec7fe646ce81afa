"""Masks: which part of an event a coupling passes unchanged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Bool


class Mask(Configured, ABC):
    """Says which elements of an event pass unchanged; any size of event has a mask.

    A part may be empty (one channel has no other half): a coupling then shifts and scales all
    elements by constants, or none.

    Args:
        inverted: Swap the parts.
    """

    event_dim: int

    def __init__(self, *, inverted: bool = False) -> None:
        self.inverted = inverted

    def __call__(
        self, event_shape: Sequence[int], device: torch.device | str | None = None
    ) -> Bool[Tensor, "*event"]:
        """Return ``True`` where elements pass, broadcastable to ``event_shape``."""
        passes = self._passes(event_shape, torch.device(device or "cpu"))
        return ~passes if self.inverted else passes

    @abstractmethod
    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}(inverted={self.inverted})"


class Checkerboard(Mask):
    """Passes the pixels whose row and column add up to an even number.

    References:
        Dinh et al. (2017), RealNVP, section 3.4. https://arxiv.org/abs/1605.08803

    Example:
        >>> Checkerboard()((1, 2, 3)).int()
        tensor([[[1, 0, 1],
                 [0, 1, 0]]], dtype=torch.int32)
    """

    event_dim = 3

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        rows = torch.arange(event_shape[-2], device=device)[:, None]
        columns = torch.arange(event_shape[-1], device=device)
        return ((rows + columns) % 2 == 0)[None]


class ChannelMask(Mask):
    """Passes the first half of the channels (of an odd number, the smaller half).

    Example:
        >>> ChannelMask()((3, 8, 8)).flatten()
        tensor([ True, False, False])
    """

    event_dim = 3

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        channels = torch.arange(event_shape[-3], device=device)
        return (channels < event_shape[-3] // 2)[:, None, None]


class HalfMask(Mask):
    """Passes the first half of a vector (of an odd length, the smaller half).

    Example:
        >>> HalfMask()((5,))
        tensor([ True,  True, False, False, False])
    """

    event_dim = 1

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        return torch.arange(event_shape[-1], device=device) < event_shape[-1] // 2


class AlternatingMask(Mask):
    """Passes the elements of a vector at even places.

    References:
        Dinh et al. (2014), NICE, section 5.1. https://arxiv.org/abs/1410.8516

    Example:
        >>> AlternatingMask(inverted=True)((5,))
        tensor([False,  True, False,  True, False])
    """

    event_dim = 1

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        return torch.arange(event_shape[-1], device=device) % 2 == 0
