"""Masks: which part of an event a coupling passes unchanged, and how the parts come apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._typing import Bool, Float
from pyro_genmodels.transforms.couplings.checkerboard import Checkerboard
from pyro_genmodels.transforms.couplings.mask_base import Mask, interleave

__all__ = ["AlternatingMask", "ChannelMask", "Checkerboard", "HalfMask", "Mask"]


class _FeatureMask(Mask, Abstract):
    """Divides the features; the network sees and answers just the features it should.

    A single feature changes, inverted or not: the network sees nothing and answers with constants.
    """

    @abstractmethod
    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and the second part."""

    @abstractmethod
    def _join(self, first: Tensor, second: Tensor) -> Tensor: ...

    @abstractmethod
    def _count(self, features: int) -> int:
        """Return how many features are in the first part."""

    @property
    def _features(self) -> int:
        return -self.event_dim

    def _divisible(self, event_shape: Sequence[int]) -> int:
        return event_shape[self._features]

    def __call__(
        self, event_shape: Sequence[int], device: torch.device | str | None = None
    ) -> Bool[Tensor, "*event"]:
        """Return ``True`` where elements pass, broadcastable to ``event_shape``."""
        passes = super().__call__(event_shape, device)
        return passes if event_shape[self._features] > 1 else torch.zeros_like(passes)

    def sizes(self, event_shape: Sequence[int]) -> tuple[int, int]:
        """Return the number of features that pass, and that change."""
        features = event_shape[self._features]
        if features == 1:
            return 0, 1
        first = self._count(features)
        return (features - first, first) if self.inverted else (first, features - first)

    def seen(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*seen"]:
        """Return the features that pass."""
        return self.divide(x)[0]

    def changed(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*changed"]:
        """Return the features that change."""
        return self.divide(x)[1]

    def divide(
        self, x: Float[Tensor, "*event"]
    ) -> tuple[Float[Tensor, "*seen"], Float[Tensor, "*changed"]]:
        """Return the features that pass and those that change."""
        if x.shape[self._features] == 1:
            return x.narrow(self._features, 0, 0), x
        first, second = self._split(x)
        return (second, first) if self.inverted else (first, second)

    def answers(self, output: Float[Tensor, "*output"]) -> Float[Tensor, "*answers"]:
        """Return the whole output."""
        return output

    def merge(
        self, seen: Float[Tensor, "*seen"], changed: Float[Tensor, "*changed"]
    ) -> Float[Tensor, "*event"]:
        """Return the features that pass and the others in their order."""
        if not seen.shape[self._features]:
            return changed
        return self._join(changed, seen) if self.inverted else self._join(seen, changed)


class _HalvesMask(_FeatureMask, Abstract):
    def _count(self, features: int) -> int:
        return features // 2

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        size = event_shape[self._features]
        passes = torch.arange(size, device=device) < size // 2
        return passes.reshape(-1, *(1,) * (self.event_dim - 1))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size, dim = x.shape[self._features], self._features
        # Not by chunk, which Pyro's tracing of a second batch size trips on; nor by narrow, whose
        # gradients are two whole events, mostly zeros.
        first, second = x.split([size // 2, size - size // 2], dim)
        return first, second

    def _join(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second], dim=self._features)


class HalfMask(_HalvesMask):
    """Passes the first half of a vector (of an odd length, the smaller half; of one element, none).

    Example:
        >>> HalfMask()((5,))
        tensor([ True,  True, False, False, False])
    """

    event_dim = changed_dim = fewest = 1


class ChannelMask(_HalvesMask):
    """Passes the first half of the channels (of an odd number, the smaller half).

    Example:
        >>> ChannelMask()((3, 8, 8)).flatten()
        tensor([ True, False, False])
    """

    event_dim = changed_dim = 3


class AlternatingMask(_FeatureMask):
    """Passes the elements of a vector at even places; a single element changes.

    References:
        Dinh et al. (2014), NICE, section 5.1. https://arxiv.org/abs/1410.8516

    Example:
        >>> AlternatingMask(inverted=True)((5,))
        tensor([False,  True, False,  True, False])
    """

    event_dim = changed_dim = fewest = 1

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        return torch.arange(event_shape[-1], device=device) % 2 == 0

    def _count(self, features: int) -> int:
        return (features + 1) // 2

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., ::2], x[..., 1::2]

    def _join(self, first: Tensor, second: Tensor) -> Tensor:
        return interleave(first, second, dim=-1)
