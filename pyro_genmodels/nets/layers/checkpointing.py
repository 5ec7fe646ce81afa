"""Evaluation that keeps no activations, and leaves running statistics alone the second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


def is_recomputing() -> bool:
    """Whether this evaluation repeats one, for a backward pass."""
    return _recomputing.get()


@contextmanager
def _recomputation() -> Iterator[None]:
    # Within the thread that recomputes: on a GPU the backward pass runs in one of its own.
    token = _recomputing.set(True)
    try:
        yield
    finally:
        _recomputing.reset(token)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _recomputation()


def checkpointed(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Call a function that draws no random numbers, keeping its arguments only.

    The backward pass calls it once more. Batch norm's running statistics have moved by then, and
    stay as they are: a second update would count each batch twice.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    result: Tensor = checkpoint(
        function,
        *arguments,
        use_reentrant=False,
        preserve_rng_state=False,
        determinism_check="none",
        context_fn=_contexts,
    )
    return result
