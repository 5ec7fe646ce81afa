"""How a law says that it is broken, and the one place that holds tolerances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative error that a law allows a floating dtype.

    The laws multiply it by the size or by the condition of what they compare, never by a factor
    that somebody found convenient.

    Raises:
        ValueError: If the dtype is not a floating one.

    Example:
        >>> tolerance(torch.float64)
        1e-09
    """
    if dtype not in _TOLERANCES:
        raise ValueError(f"`dtype` must be a floating dtype; got {dtype}.")
    return _TOLERANCES[dtype]


def require_law(holds: bool, law: str, problem: str) -> None:
    """Raise ``AssertionError`` with the law and what was seen, unless it holds."""
    if not holds:
        raise AssertionError(f"{law}: {problem}.")


def require_shape(law: str, actual: Sequence[int], expected: Sequence[int]) -> None:
    """Raise ``AssertionError`` unless a shape is the expected one."""
    problem = f"shape {tuple(actual)} where {tuple(expected)} was due"
    require_law(tuple(actual) == tuple(expected), law, problem)


def require_within(law: str, measured: Tensor, bound: Tensor | float) -> None:
    """Raise ``AssertionError`` unless every element of ``measured`` is within ``bound``.

    Args:
        law: The law, as the message names it.
        measured: Errors, of any shape. A NaN breaks the law.
        bound: Largest allowed values, broadcastable to ``measured``.

    Raises:
        AssertionError: With the worst element, its bound and its index.

    Example:
        >>> require_within("x = y", torch.tensor([0.0, 0.5]), 0.1)
        Traceback (most recent call last):
        ...
        AssertionError: x = y: measured 0.5, bound 0.1, at index (1,); 1 of 2 elements break it.
    """
    measured = measured.detach().cpu()
    bounds = torch.as_tensor(bound, dtype=measured.dtype).detach().cpu()
    bounds = bounds.broadcast_to(measured.shape)
    broken = ~(measured <= bounds)  # so written that a NaN is broken
    if not broken.any():
        return
    excess = torch.where(broken, measured.abs() / bounds.abs().clamp_min(1e-300), 0.0)
    worst = int(excess.nan_to_num(nan=torch.inf).argmax())
    where = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), measured.shape))
    figures = f"measured {measured.flatten()[worst]:.4g}, bound {bounds.flatten()[worst]:.4g}"
    counted = f"{int(broken.sum())} of {broken.numel()} elements break it"
    raise AssertionError(f"{law}: {figures}, at index {where}; {counted}.")


def require_close(law: str, actual: Tensor, expected: Tensor) -> None:
    """Raise ``AssertionError`` unless tensors agree to ``tolerance(dtype) (1 + |expected|)``."""
    require_shape(law, actual.shape, expected.shape)
    bound = tolerance(actual.dtype) * (1 + expected.detach().abs())
    # Infinities of one sign are equal, though their difference is NaN.
    error = torch.where(actual == expected, 0.0, (actual - expected).abs())
    require_within(law, error, bound.nan_to_num(posinf=1.0))


def require_limit(law: str, before: Tensor, near: Tensor, at: Tensor) -> None:
    """Raise ``AssertionError`` unless a value at an end is the limit of those before it.

    It must be no farther from the value one step before the end than that is from the one ten
    steps before it; an infinite limit is one that those two move towards by half a unit or more.
    """
    moved = near - before
    towards = torch.where(at > 0, moved, -moved)
    error = torch.where(at.isinf(), torch.where(towards > 0.5, 0.0, torch.inf), (at - near).abs())
    bound = moved.abs() + tolerance(at.dtype) * (1 + near.detach().abs())
    require_within(law, error, bound.nan_to_num(posinf=1.0))


def require_equal(law: str, actual: Tensor, expected: Tensor) -> None:
    """Raise ``AssertionError`` unless two tensors are the same, element for element."""
    require_shape(law, actual.shape, expected.shape)
    require_within(law, (actual != expected).to(torch.float64), 0.0)
