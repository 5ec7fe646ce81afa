"""State that every rank of a distributed run must hold alike."""

from __future__ import annotations

from torch import Tensor, distributed


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Add up a tensor over all ranks, in place; alone, there is nothing to add."""
    if _is_distributed():
        distributed.all_reduce(tensor)
    return tensor


def copy_from_first_rank(*tensors: Tensor) -> None:
    """Overwrite tensors by those of rank 0, in place.

    For what depends on a rank's own data or random numbers, such as an initialisation.
    """
    if _is_distributed():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def _is_distributed() -> bool:
    ready = distributed.is_available() and distributed.is_initialized()
    return ready and distributed.get_world_size() > 1
