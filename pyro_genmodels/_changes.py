"""Whether tensors have changed, for what is handed from a draw to a later score."""

from __future__ import annotations

import functools
import itertools
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

_steps = itertools.count(1)
_latest = 0
_ROW = 1024
_ROWS_AT_ONCE = 1024


def latest_step() -> int:
    """Return the number of the latest optimizer step in this process, of whatever optimizer.

    Versions of tensors do not tell: fused optimizers leave them alone.
    """
    return _latest


def _note_step(*_: Any) -> None:
    global _latest
    _latest = next(_steps)


register_optimizer_step_post_hook(_note_step)


def in_functorch() -> bool:
    """Whether a ``torch.func`` transform is active, in which values cannot be looked at."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def checksum(tensor: Tensor) -> Tensor:
    """Return integers that tell whether any value of ``tensor`` has changed, or moved.

    Versions count edits by torch's own operations, but not those through NumPy or ``.data``.
    There is an integer for each 8 KiB or less, a sum of the bits with odd weights: any edit of
    one value changes it, and of several values all but certainly.

    Args:
        tensor: Of any shape, on any device that has values.

    Example:
        >>> x = torch.zeros(3000)
        >>> before = checksum(x)
        >>> x.numpy()[2999] = 1e-30
        >>> torch.equal(checksum(x), before)
        False
        >>> y = torch.ones(600, dtype=torch.float64)
        >>> before = checksum(y)
        >>> y.numpy()[4:6] *= -1
        >>> torch.equal(checksum(y), before)
        False
    """
    bits = _bits(_in_memory_order(tensor.detach()))
    weights = _weights(bits.device)
    whole = len(bits) // _ROW * _ROW
    rows = bits[:whole].view(-1, _ROW)
    # In portions, so that products of a large draw take no memory of its size.
    sums = [(_folded(part) * weights).sum(1) for part in rows.split(_ROWS_AT_ONCE)]
    rest = _folded(bits[whole:])
    return torch.cat([*sums, (rest * weights[: len(rest)]).sum().reshape(1)])


def _folded(bits: Tensor) -> Tensor:
    """Let the highest bit, a sign, reach lower ones too: an odd weight alone leaves it where it is.

    Two flips of it, as where a row or a column changes sign, would cancel.
    """
    return bits ^ (bits >> 31) if bits.dtype == torch.int64 else bits


class Unchanged:
    """Knows a tensor, held weakly, with what it held; later tells whether both are as they were.

    Values are looked at on a CPU only: elsewhere the look would wait for the device at each step,
    and edits through ``.data`` go unnoticed there.

    Example:
        >>> x = torch.zeros(3)
        >>> known = Unchanged(x)
        >>> known.fits(x), known.fits(torch.zeros(3))
        (True, False)
        >>> x.numpy()[0] = 1.0
        >>> known.fits(x)
        False
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)
        self._version = _version(tensor)
        self._checksum = checksum(tensor) if _can_be_read(tensor) else None

    def is_of(self, tensor: Tensor) -> bool:
        """Whether this is the tensor, whatever it holds."""
        return self._tensor() is tensor

    def fits(self, tensor: Tensor) -> bool:
        """Whether this is the tensor, unchanged."""
        if not self.is_of(tensor) or self._version != _version(tensor):
            return False
        if self._checksum is None or not _can_be_read(tensor):
            return True
        return torch.equal(self._checksum, checksum(tensor))


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _can_be_read(tensor: Tensor) -> bool:
    traced = torch._C._get_tracing_state() is not None or torch.compiler.is_compiling()
    return tensor.device.type == "cpu" and not traced and not in_functorch()


def _in_memory_order(tensor: Tensor) -> Tensor:
    """Return the values in one dimension, without a copy if they lie side by side."""
    if not tensor.is_contiguous():
        order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
        if (permuted := tensor.permute(order)).is_contiguous():
            tensor = permuted
    return tensor.reshape(-1)


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def _bits(flat: Tensor) -> Tensor:
    """Return the same memory as integers, of eight bytes if they fit: fewer to multiply."""
    size = flat.element_size()
    if size < 8 and (flat.storage_offset() * size % 8 or flat.numel() * size % 8):
        return flat.view(_INTEGERS[size])
    return flat.view(torch.int64)


@functools.cache
def _weights(device: torch.device) -> Tensor:
    # Multiples of the golden ratio's bits differ in all their digits; odd, each can be undone.
    with torch.inference_mode(False):
        return (torch.arange(1, _ROW + 1, device=device) * -0x61C8864680B583EB) | 1
