"""Evaluation that keeps no activations: the backward pass evaluates once more.

Running statistics move once. A function keeps them by asking whether it is evaluated again
(:func:`is_recomputing`), a method of a module has its buffers put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor, nn
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


Evaluation = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


def checkpointed_method(
    part: nn.Module, function: Evaluation, x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Call ``function(x, context)``, a method of ``part``, without keeping what happens inside."""
    result: tuple[Tensor, Tensor] = checkpoint(
        function,
        x,
        context,
        use_reentrant=False,
        # Only dropout draws numbers; to save and restore the generator costs as much as a layer.
        preserve_rng_state=part.training and _drops(part),
        determinism_check="none",
        context_fn=lambda: _contexts_keeping_buffers(part),
    )
    return result


def _drops(part: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in part.modules())


def _contexts_keeping_buffers(
    part: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _buffers_kept(part)


@contextmanager
def _buffers_kept(part: nn.Module) -> Iterator[None]:
    """Leave buffers as they were: running statistics move once for each batch, not twice."""
    # Also counts of batches; flags, as those of first values, are set for good.
    kept = [(buffer, buffer.clone()) for buffer in part.buffers() if buffer.dtype != torch.bool]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
