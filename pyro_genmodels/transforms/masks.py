"""Masks: which part of an event a coupling passes unchanged, and how the parts come apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Bool, Float


class Mask(Configured, ABC):
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

    def __init__(self, *, inverted: bool = False) -> None:
        self.inverted = inverted

    def __call__(
        self, event_shape: Sequence[int], device: torch.device | str | None = None
    ) -> Bool[Tensor, "*event"]:
        """Return ``True`` where elements pass, broadcastable to ``event_shape``."""
        passes = self._passes(event_shape, torch.device(device or "cpu"))
        return ~passes if self.inverted else passes

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ``ValueError`` unless both parts of such an event have elements."""
        rank, shape = len(event_shape), tuple(event_shape)
        check(rank >= self.event_dim, "event_shape", f"have {self.event_dim} sizes", shape)
        fits = self._divisible(event_shape) > 1
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


class _FeatureMask(Mask, ABC):
    """Divides the features; the network sees and answers just the features it should."""

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

    def sizes(self, event_shape: Sequence[int]) -> tuple[int, int]:
        """Return the number of features that pass, and that change."""
        features = event_shape[self._features]
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
        first, second = self._split(x)
        return (second, first) if self.inverted else (first, second)

    def answers(self, output: Float[Tensor, "*output"]) -> Float[Tensor, "*answers"]:
        """Return the whole output."""
        return output

    def merge(
        self, seen: Float[Tensor, "*seen"], changed: Float[Tensor, "*changed"]
    ) -> Float[Tensor, "*event"]:
        """Return the features that pass and the others in their order."""
        return self._join(changed, seen) if self.inverted else self._join(seen, changed)


class _HalvesMask(_FeatureMask, ABC):
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
    """Passes the first half of a vector (of an odd length, the smaller half).

    Example:
        >>> HalfMask()((5,))
        tensor([ True,  True, False, False, False])
    """

    event_dim = changed_dim = 1


class ChannelMask(_HalvesMask):
    """Passes the first half of the channels (of an odd number, the smaller half).

    Example:
        >>> ChannelMask()((3, 8, 8)).flatten()
        tensor([ True, False, False])
    """

    event_dim = changed_dim = 3


class AlternatingMask(_FeatureMask):
    """Passes the elements of a vector at even places.

    References:
        Dinh et al. (2014), NICE, section 5.1. https://arxiv.org/abs/1410.8516

    Example:
        >>> AlternatingMask(inverted=True)((5,))
        tensor([False,  True, False,  True, False])
    """

    event_dim = changed_dim = 1

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        return torch.arange(event_shape[-1], device=device) % 2 == 0

    def _count(self, features: int) -> int:
        return (features + 1) // 2

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., ::2], x[..., 1::2]

    def _join(self, first: Tensor, second: Tensor) -> Tensor:
        return _interleave(first, second, dim=-1)


class Checkerboard(Mask):
    """Passes the pixels whose row and column add up to an even number.

    The network sees the whole image, with zeros in place of the pixels that change.

    References:
        Dinh et al. (2017), RealNVP, section 3.4. https://arxiv.org/abs/1605.08803

    Example:
        >>> Checkerboard()((1, 2, 3)).int()
        tensor([[[1, 0, 1],
                 [0, 1, 0]]], dtype=torch.int32)
    """

    event_dim = 3
    changed_dim = 2  # channels, and the changing pixels in one row

    def _divisible(self, event_shape: Sequence[int]) -> int:
        return event_shape[-2] * event_shape[-1]

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        rows = torch.arange(event_shape[-2], device=device)[:, None]
        columns = torch.arange(event_shape[-1], device=device)
        return ((rows + columns) % 2 == 0)[None]

    def sizes(self, event_shape: Sequence[int]) -> tuple[int, int]:
        """Return the number of channels, twice."""
        return event_shape[-3], event_shape[-3]

    def seen(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Return the image with zeros in place of the pixels that change."""
        return x * self(x.shape[-3:], x.device).to(x.dtype)

    def changed(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*channels pixels"]:
        """Return the pixels that change: those of the even rows, then those of the odd rows."""
        parts = [x[..., row::2, self._column(row) :: 2].flatten(-2) for row in (0, 1)]
        return torch.cat(parts, dim=-1)

    def answers(self, output: Float[Tensor, "*output"]) -> Float[Tensor, "*answers"]:
        """Return the output at the pixels that change."""
        return self.changed(output)

    def merge(
        self, seen: Float[Tensor, "*event"], changed: Float[Tensor, "*channels pixels"]
    ) -> Float[Tensor, "*event"]:
        """Return the image with other values of the pixels that change."""
        height, width = seen.shape[-2:]
        sizes = [(height - row + 1) // 2 * ((width - self._column(row) + 1) // 2) for row in (0, 1)]
        parts = changed.split(sizes, dim=-1)
        rows = [self._merge_rows(seen[..., row::2, :], parts[row], row) for row in (0, 1)]
        return _interleave(*rows, dim=-2)

    def _merge_rows(self, rows: Tensor, changed: Tensor, row: int) -> Tensor:
        first = self._column(row)
        width = (rows.shape[-1] - first + 1) // 2
        changed = changed.unflatten(-1, (rows.shape[-2], width))
        passed = rows[..., 1 - first :: 2]
        pair = (changed, passed) if first == 0 else (passed, changed)
        return _interleave(*pair, dim=-1)

    def _column(self, row: int) -> int:
        """Return the first column that changes in an even (0) or odd (1) row."""
        return row if self.inverted else 1 - row


def _interleave(even: Tensor, odd: Tensor, *, dim: int) -> Tensor:
    """Return the slices of two tensors by turns; the first may have one more."""
    dim, count = dim % even.dim(), odd.shape[dim]
    pairs = torch.stack([even.narrow(dim, 0, count), odd], dim=dim + 1).flatten(dim, dim + 1)
    if even.shape[dim] == count:
        return pairs
    return torch.cat([pairs, even.narrow(dim, count, 1)], dim=dim)
