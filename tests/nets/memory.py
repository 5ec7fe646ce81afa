"""What an incremental evaluation holds beside the network's own parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_genmodels.nets import AutoregressiveNet


def held_bytes(net: AutoregressiveNet, num_steps: int, batch_size: int = 2) -> int:
    """Return the bytes of tensors that the evaluation's state reaches after so many elements.

    Each storage counts once, whole, however many views there are; those of the network do not.
    """
    state = net.incremental(batch_size, None)
    for _ in range(num_steps):
        state.parameters()
        state.append(torch.zeros(batch_size))
    own = {p.untyped_storage().data_ptr() for p in (*net.parameters(), *net.buffers())}
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in _tensors(state)}
    return sum(size for place, size in sizes.items() if place not in own)


def _tensors(root: object) -> list[Tensor]:
    """Everything reached by attributes, containers and the variables that functions close over."""
    found, seen, stack = [], set(), [root]
    while stack:
        x = stack.pop()
        if id(x) in seen or isinstance(x, nn.Module):
            continue
        seen.add(id(x))
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, dict):
            stack += x.values()
        elif isinstance(x, list | tuple | set | frozenset):
            stack += x
        elif hasattr(x, "__self__"):
            stack.append(x.__self__)
        elif getattr(x, "__closure__", None):
            stack += [cell.cell_contents for cell in x.__closure__]  # type: ignore[attr-defined]
        elif getattr(x, "gi_frame", None) is not None:
            stack += x.gi_frame.f_locals.values()  # type: ignore[attr-defined]
        elif hasattr(x, "__dict__") and not isinstance(x, type):
            stack += vars(x).values()
    return found
