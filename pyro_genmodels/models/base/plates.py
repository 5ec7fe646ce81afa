"""Pieces of a Pyro program that every model runs: plates over the batch, sums over a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_genmodels._checks import check


@contextmanager
def plates(batch: Sequence[int]) -> Iterator[None]:
    """One plate a batch dimension, at that very dimension; the last is called ``data``.

    Raises:
        ValueError: If there is nothing in the batch, of which Pyro makes no plate.
    """
    check(0 not in batch, "x", "hold one example or more", f"batch shape {tuple(batch)}")
    if len(batch) == 1:  # nearly always, and a stack costs as much as the plate
        with _BatchPlate("data", batch[0], dim=-1):
            yield
        return
    with ExitStack() as stack:
        for position, size in enumerate(reversed(batch)):
            name = f"data_{position}" if position else "data"
            stack.enter_context(_BatchPlate(name, size, dim=-1 - position))
        yield


class _BatchPlate(IndepMessenger):
    """A plate over a whole batch dimension: ``pyro.plate`` without its site for subsampling.

    That site, drawn and pruned again in guide and model, is a fifth of Pyro's cost a step.
    """

    def _process_message(self, msg: Any) -> None:
        super()._process_message(msg)
        shape, dim = getattr(msg["fn"], "batch_shape", ()), self.dim or -1
        if len(shape) < -dim or shape[dim] != self.size:
            BroadcastMessenger._pyro_sample(msg)


def log_density(trace: Any) -> Tensor:
    """Sum a trace's log-densities, masked but unscaled, over its sites."""
    trace = prune_subsample_sites(trace)
    trace.compute_log_prob()
    total = torch.zeros(())
    for site in trace.nodes.values():
        if site["type"] == "sample":
            total = total + scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])
    return total
