"""Evaluation that keeps no activations: the backward pass evaluates once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Evaluation = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


def checkpointed(
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
        context_fn=lambda: _contexts(part),
    )
    return result


def _drops(part: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in part.modules())


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
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
