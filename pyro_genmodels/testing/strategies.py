"""Hypothesis strategies for shapes, data and contexts, and a bounded profile for CI.

Needs the ``testing`` extra. Tensors come from a drawn seed, not element by element: laws hold or
fail by shapes, masks and levels, and a seed shrinks at once.

Example:
    >>> from hypothesis import given
    >>> from pyro_genmodels.testing import check_inverse, strategies
    >>> @given(strategies.real_tensors((3,)))
    ... def test(x):
    ...     check_inverse(torch.distributions.TanhTransform(), x.clamp(-2, 2))
    >>> test()
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check, check_choice, require
from pyro_genmodels.nets import join_context

hypothesis: Any = require("hypothesis", extra="testing")
st: Any = require("hypothesis.strategies", extra="testing")

PROFILE = "pyro_genmodels"


def load_profile(max_examples: int = 20) -> None:
    """Register and load the profile that CI runs under: deterministic and bounded.

    Examples derive from the test's source instead of a random seed, no database is read or
    written, there is no deadline (the first call of a network is slow), and there are at most
    ``max_examples``. Call it in ``conftest.py``; a test's own ``@settings`` still wins.

    Example:
        >>> load_profile(max_examples=10)
        >>> hypothesis.settings.default.max_examples
        10
    """
    options = {"derandomize": True, "database": None, "deadline": None}
    hypothesis.settings.register_profile(PROFILE, max_examples=max_examples, **options)
    hypothesis.settings.load_profile(PROFILE)


def batch_shapes(*, max_rank: int = 3, max_size: int = 3) -> Any:
    """Strategy of leading shapes: none, one or several dimensions, ones among them."""
    return st.lists(st.integers(1, max_size), max_size=max_rank).map(tuple)


def vector_shapes(*, min_size: int = 1, max_size: int = 7) -> Any:
    """Strategy of vector events ``(D,)``."""
    return st.tuples(st.integers(min_size, max_size))


def image_shapes(
    *,
    channels: Sequence[int] = (1, 2, 3, 4),
    min_side: int = 1,
    max_side: int = 5,
    multiple_of: int = 1,
) -> Any:
    """Strategy of image events ``(C, H, W)``: odd, narrow and single-channel ones among them.

    Args:
        channels: Numbers of channels to choose from.
        min_side: Least height and width, in units of ``multiple_of``.
        max_side: Greatest height and width, in the same units.
        multiple_of: What height and width are multiples of.
    """
    sides = st.integers(min_side, max_side).map(lambda side: side * multiple_of)
    return st.tuples(st.sampled_from(list(channels)), sides, sides)


def event_shapes(*, max_side: int = 5) -> Any:
    """Strategy of vector and of image events."""
    return vector_shapes() | image_shapes(max_side=max_side)


def real_tensors(
    event_shape: Sequence[int],
    *,
    batch_shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Any:
    """Strategy of normal tensors ``(*batch, *event)``; any batch shape unless one is given."""

    def build(batch: tuple[int, ...], seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((*batch, *event_shape), generator=generator, dtype=dtype)

    return st.builds(build, _batches(batch_shape), _seeds())


def discrete_tensors(
    event_shape: Sequence[int],
    num_levels: int,
    *,
    batch_shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Any:
    """Strategy of levels ``(*batch, *event)``: random ones, and the constant extremes.

    Args:
        event_shape: ``(C, H, W)`` or ``(D,)``.
        num_levels: Levels are ``0 .. num_levels - 1``.
        batch_shape: Leading shape; any if not given.
        dtype: Dtype that holds the integers.
    """
    check(num_levels >= 2, "num_levels", "be at least 2", num_levels)

    def build(batch: tuple[int, ...], seed: int, extreme: int | None) -> Tensor:
        shape, generator = (*batch, *event_shape), torch.Generator().manual_seed(seed)
        if extreme is not None:
            return torch.full(shape, float(extreme)).to(dtype)
        return torch.randint(num_levels, shape, generator=generator).to(dtype)

    extremes = st.sampled_from([None, None, None, 0, num_levels - 1])
    return st.builds(build, _batches(batch_shape), _seeds(), extremes)


def contexts(
    *,
    num_classes: int | None = None,
    context_shape: Sequence[int] | None = None,
    batch_shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Any:
    """Strategy of contexts: labels, vectors, feature maps, or a label and features as one.

    Args:
        num_classes: Labels are below this number.
        context_shape: Shape of a vector ``(D,)`` or a map ``(C, H, W)``.
        batch_shape: Leading shape; any if not given.
        dtype: Dtype of vectors and maps.

    Raises:
        ValueError: If neither ``num_classes`` nor ``context_shape`` is given.
    """
    some = num_classes is not None or context_shape is not None
    check(some, "num_classes", "be given, or else context_shape", (num_classes, context_shape))
    if context_shape is not None and num_classes is not None:
        return _batches(batch_shape).flatmap(
            lambda batch: st.builds(
                partial(join_context, event_dim=len(context_shape)),
                contexts(num_classes=num_classes, batch_shape=batch),
                contexts(context_shape=context_shape, batch_shape=batch, dtype=dtype),
            )
        )
    if context_shape is not None:
        return real_tensors(context_shape, batch_shape=batch_shape, dtype=dtype)
    labels = discrete_tensors((), max(2, num_classes or 0), batch_shape=batch_shape)
    return labels.map(lambda label: label.long().clamp(max=(num_classes or 1) - 1))


def masks(event_shape: Sequence[int], *, kind: str = "proper") -> Any:
    """Strategy of Boolean masks of one event.

    Args:
        event_shape: Shape of the mask.
        kind: ``"proper"`` has both values somewhere (if there is room), ``"any"`` may be constant.
    """
    check_choice("kind", kind, ("proper", "any"))

    def build(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(tuple(event_shape), generator=generator) < 0.5
        if kind == "proper" and mask.numel() > 1:
            mask.view(-1)[0], mask.view(-1)[-1] = True, False
        return mask

    return st.builds(build, _seeds())


def _batches(batch_shape: Sequence[int] | None) -> Any:
    return batch_shapes() if batch_shape is None else st.just(tuple(batch_shape))


def _seeds() -> Any:
    return st.integers(0, 2**16)
