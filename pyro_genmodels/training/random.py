"""State of every random generator that training draws from, as plain data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch


def random_state() -> dict[str, Any]:
    """Return the state of torch's, NumPy's and Python's generators, as checkpoints keep it."""
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - the global one
    version, internal, gauss_next = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every generator back to what :func:`random_state` returned."""
    keys, position, has_gauss, gauss = state["numpy"]
    version, internal, gauss_next = state["python"]
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    random.setstate((version, tuple(internal), gauss_next))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from freshly seeded generators for a while; training's own then go on undisturbed."""
    before = random_state()
    pyro.set_rng_seed(seed)
    try:
        yield
    finally:
        set_random_state(before)
