"""Evaluating a network in one way only, and telling whether it is the same one."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_genmodels._modules import without_marks
from pyro_genmodels.distributions.autoregressive import reproducibly_evaluating

NO_CONTEXT = bytes(4)


def in_float64(module: nn.Module) -> Any:
    """Return a copy that computes in float64, in eval mode."""
    return copy.deepcopy(module).double().eval().requires_grad_(False)


@contextlib.contextmanager
def one_path(module: nn.Module, threads: int) -> Iterator[None]:
    """Evaluate networks so that the order of additions is the same at each time.

    Without gradients, autocast and short products; with so many threads, whatever their number is
    elsewhere; on GPUs by deterministic algorithms.
    """
    before, cudnn = torch.get_num_threads(), torch.backends.cudnn
    settings = cudnn.deterministic, cudnn.benchmark
    try:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = True, False
        with reproducibly_evaluating(module):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = settings
        torch.set_num_threads(before)


def fingerprint(module: nn.Module, *facts: object) -> bytes:
    """Return 8 bytes that depend on what a module holds, not on its device or dtype."""
    parts = [repr(facts).encode()]
    for name, value in sorted(without_marks(module.state_dict()).items()):
        if isinstance(value, Tensor):
            parts += [f"{name}{tuple(value.shape)}".encode(), _plain_bytes(value)]
    return digest(*parts)[:8]


def digest(*parts: bytes) -> bytes:
    """Return the SHA-256 of parts one after another."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.digest()


def plain_digest(value: Tensor) -> bytes:
    """Return the SHA-256 of a tensor's values."""
    return digest(_plain_bytes(value))


def _plain_bytes(value: Tensor) -> bytes:
    wide = torch.float64 if value.is_floating_point() else torch.int64
    array: np.ndarray = value.detach().to("cpu", wide).contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
