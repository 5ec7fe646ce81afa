"""Any leading dimensions for networks that know one batch dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def over_batch(function: Callable[..., Tensor], *arguments: tuple[Tensor | None, int]) -> Tensor:
    """Call ``function`` on tensors whose leading dimensions are flattened into one.

    Args:
        function: Maps tensors ``(N, *event)`` to one tensor ``(N, *output)``.
        *arguments: Pairs of a tensor ``(*batch, *event)`` and the rank of its event. The batch
            shapes broadcast against each other; ``None`` in place of a tensor passes through.

    Returns:
        ``(*batch, *output)``, ``batch`` being the broadcast batch shape.

    Raises:
        ValueError: If the batch shapes do not broadcast.

    Example:
        >>> images, labels = torch.zeros(5, 1, 3, 8, 8), torch.zeros(4, dtype=torch.long)
        >>> over_batch(lambda x, y: x.flatten(1) + y[:, None], (images, 3), (labels, 0)).shape
        torch.Size([5, 4, 192])
    """
    # Up to 2 % of a small VAE's step, which would expand and reshape in vain.
    if _have_one_dimension(arguments):
        return function(*(t for t, _ in arguments))
    batch = broadcast_batch(*arguments)
    size = math.prod(batch)
    flat = [
        None if t is None else t.expand(batch + event).reshape(size, *event)
        for t, event in ((t, event_of(t, rank)) for t, rank in arguments)
    ]
    output = function(*flat)
    return output.reshape(batch + output.shape[1:])


def _have_one_dimension(arguments: Sequence[tuple[Tensor | None, int]]) -> bool:
    """Whether all batch shapes are of one dimension already, and equal."""
    given = [(t, rank) for t, rank in arguments if t is not None]
    return all(t.dim() == rank + 1 for t, rank in given) and len({len(t) for t, _ in given}) == 1


def broadcast_batch(*arguments: tuple[Tensor | None, int]) -> torch.Size:
    """Return the common batch shape of ``(tensor, event rank)`` pairs.

    Raises:
        ValueError: If the batch shapes do not broadcast.
    """
    return broadcast_shapes(*(t.shape[: t.dim() - rank] for t, rank in arguments if t is not None))


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """Return the common shape of batch shapes.

    Raises:
        ValueError: If they do not broadcast.
    """
    try:
        return torch.Size(torch.broadcast_shapes(*shapes))
    except RuntimeError as error:
        listed = " and ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"batch shapes must broadcast; got {listed}.") from error


def expands_to(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Return whether a tensor of batch shape ``shape`` expands to batch shape ``wanted``.

    Example:
        >>> expands_to((1, 3), (2, 5, 3)), expands_to((5,), ())
        (True, False)
    """
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    return len(shape) <= len(wanted) and all(size in (1, other) for size, other in pairs)


def event_of(tensor: Tensor | None, rank: int) -> torch.Size:
    """Return the trailing ``rank`` sizes of ``tensor``; of ``None``, nothing."""
    # Of a tensor that TraceGraph_ELBO follows, a part of the shape is a plain tuple.
    return torch.Size() if tensor is None else torch.Size(tensor.shape[tensor.dim() - rank :])


def padded(x: Tensor, pad: Sequence[int]) -> Tensor:
    """Return ``F.pad(x, pad)`` with zeros, of an empty batch too, which torch 2.6 refuses."""
    if x.numel():
        return F.pad(x, list(pad))
    sizes = list(x.shape)
    for dim, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        sizes[-dim] += before + after
    return x.new_zeros(sizes) + x.sum()  # the sum, zero, keeps the graph


def over_event(values: Tensor, rank: int) -> Tensor:
    """Give one value per example, ``(*batch)``, ``rank`` dimensions of one, to meet events."""
    return values.reshape(values.shape + (1,) * rank)
