"""Modules: what they compute in, eval mode for a while, and marks of frozen parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

FROZEN = "is_frozen"
"""Name of the mark in the state dict of a part that is frozen beyond ``requires_grad``."""


def without_marks(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict's weights: all entries but the marks of frozen parts.

    Example:
        >>> without_marks({"quantizer.codebook": 1, "quantizer.is_frozen": True})
        {'quantizer.codebook': 1}
    """
    return {k: value for k, value in state.items() if k.rpartition(".")[2] != FROZEN}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a module in eval mode for a while, and each of its parts back as it was.

    Anything that is not a module passes untouched.
    """
    parts = model.modules() if isinstance(model, nn.Module) else ()
    training = [part for part in parts if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def first_tensor(module: nn.Module) -> Tensor:
    """Return a tensor of the module, for its dtype and device.

    The first floating-point parameter or buffer; a module that has none, since all its weights are
    random or it has no weights, is on the default device and in the default dtype.
    """
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)
