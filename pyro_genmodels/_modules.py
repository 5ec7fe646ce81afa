"""Modules: what they compute in, eval mode for a while, and marks of frozen parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_HELD = "_held_in_eval"
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


def begin_training(model: nn.Module) -> None:
    """Put a module in training mode, but for the parts that its user holds in eval mode.

    Those are what is in eval mode where the module is in training mode. A training ends with all in
    eval mode, so each part remembers for the next one whether it was held.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> _ = model[0].eval()
        >>> begin_training(model); _ = model.eval(); begin_training(model)
        >>> model[0].training, model[1].training
        (False, True)
    """
    parts = list(model.modules())
    if model.training:
        for part in parts:
            part.__dict__[_HELD] = not part.training
        return
    model.train()
    for part in parts:
        if part.__dict__.get(_HELD):
            part.train(False)


def first_tensor(module: nn.Module) -> Tensor:
    """Return a tensor of the module, for its dtype and device.

    The first floating-point parameter or buffer; a module that has none, since all its weights are
    random or it has no weights, is on the default device and in the default dtype.
    """
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)
