"""The base of masks: how an event comes apart into what passes and what changes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Bool, Float


class Mask(Configured, Abstract):
    """Divides an event into a part that passes unchanged and a part that changes.

    A network sees :meth:`seen`, as many features as the first number of :meth:`sizes`, and
    answers with a multiple of the second, of which :meth:`answers` takes what belongs to the
    elements that change. :meth:`merge` puts those and what was seen together.

    Args:
        inverted: Swap the parts.
    """

    event_dim: int
    changed_dim: int
    """Rank of what :meth:`changed` returns, for one event; its first dimension is features."""
    fewest = 2
    """Fewest features or pixels that can be divided."""

    def __init__(self, *, inverted: bool = False) -> None:
        self.inverted = inverted

    def __call__(
        self, event_shape: Sequence[int], device: torch.device | str | None = None
    ) -> Bool[Tensor, "*event"]:
        """Return ``True`` where elements pass, broadcastable to ``event_shape``."""
        passes = self._passes(event_shape, torch.device(device or "cpu"))
        return ~passes if self.inverted else passes

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ``ValueError`` unless such an event can be divided."""
        rank, shape = len(event_shape), tuple(event_shape)
        check(rank >= self.event_dim, "event_shape", f"have {self.event_dim} sizes", shape)
        fits = self._divisible(event_shape) >= self.fewest
        check(fits, "mask", "leave no part of an event empty", f"{self} for events {shape}")

    @abstractmethod
    def sizes(self, event_shape: Sequence[int]) -> tuple[int, int]:
        """Return the features that a network sees, and those that change."""

    @abstractmethod
    def seen(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*seen"]:
        """Return what the network sees."""

    @abstractmethod
    def changed(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*changed"]:
        """Return the elements that change."""

    def divide(
        self, x: Float[Tensor, "*event"]
    ) -> tuple[Float[Tensor, "*seen"], Float[Tensor, "*changed"]]:
        """Return what the network sees and the elements that change."""
        return self.seen(x), self.changed(x)

    @abstractmethod
    def answers(self, output: Float[Tensor, "*output"]) -> Float[Tensor, "*answers"]:
        """Return what of a network's output belongs to the elements that change."""

    @abstractmethod
    def merge(
        self, seen: Float[Tensor, "*seen"], changed: Float[Tensor, "*changed"]
    ) -> Float[Tensor, "*event"]:
        """Return the event of which the network sees ``seen``, with these that change."""

    @abstractmethod
    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor: ...

    @abstractmethod
    def _divisible(self, event_shape: Sequence[int]) -> int:
        """Return how many features or pixels there are to divide; two have one for each part."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(inverted={self.inverted})"


def interleave(even: Tensor, odd: Tensor, *, dim: int) -> Tensor:
    """Return the slices of two tensors by turns; the first may have one more."""
    dim, count = dim % even.dim(), odd.shape[dim]
    pairs = torch.stack([even.narrow(dim, 0, count), odd], dim=dim + 1).flatten(dim, dim + 1)
    if even.shape[dim] == count:
        return pairs
    return torch.cat([pairs, even.narrow(dim, count, 1)], dim=dim)
