"""Modes of modules: eval mode for a while, and what a state dict says of frozen parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

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
