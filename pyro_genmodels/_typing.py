"""Shape vocabulary of the package.

``*batch`` is any number of leading dimensions; an image event is ``C H W``, a vector event ``D``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

__all__ = [
    "Bool",
    "CodebookUpdate",
    "EventShape",
    "Float",
    "GivenContext",
    "Int",
    "Num",
    "ScaleName",
    "Tensor",
]

EventShape: TypeAlias = Sequence[int]
"""Sizes of one data point: ``(C, H, W)`` for an image, ``(D,)`` for a vector."""

GivenContext: TypeAlias = Tensor | Sequence[Tensor] | None
"""A model's context: labels, features, or a pair of both, which becomes one tensor inside."""

CodebookUpdate: TypeAlias = bool | Literal["accumulate"] | None
"""How a quantiser learns from a batch of vectors; see ``nets.Quantizer.forward``."""

ScaleName: TypeAlias = Literal["per_dimension", "shared"]
"""Scales of continuous data, or of their noise: one for each dimension, or one for all."""
