"""Pieces of Pyro programs that models run: batch plates, sums over a trace, sites without draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import pyro
import torch
from pyro.contrib.autoname.scoping import NameCountMessenger, ScopeMessenger
from pyro.distributions.util import scale_and_mask
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK, get_plates
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution

from pyro_genmodels._checks import check


@contextmanager
def plates(batch: Sequence[int]) -> Iterator[None]:
    """Open one plate per batch dimension, at that very dimension; the last is called ``data``.

    Where a plate of that size around this call has the dimension, it is left to that plate.

    Raises:
        ValueError: If the batch is empty, or if a plate of another size has a dimension.
    """
    check_not_empty(batch)
    outer, hidden = _outer_plates()
    with ExitStack() as stack:
        for position, size in enumerate(reversed(batch)):
            dim = -1 - position
            if outer.get(dim) == size:
                continue
            plate = _BatchPlate(f"data_{position}" if position else "data", size, dim=dim)
            if dim in hidden:
                plate._vectorized = False  # Pyro then reserves no dimension for it
            stack.enter_context(plate)
        yield


def check_not_empty(batch: Sequence[int]) -> None:
    """Raise ``ValueError`` if data of that batch shape hold no example."""
    check(0 not in batch, "x", "hold one example or more", f"batch shape {tuple(batch)}")


def _outer_plates() -> tuple[dict[int, int], set[int]]:
    """Return the sizes of the plates around this call, by dimension, and dimensions of others.

    The others reach no site here, as the call is hidden from them by ``poutine.block``.
    """
    dims = {handler.dim for handler in _PYRO_STACK if isinstance(handler, IndepMessenger)}
    sizes = {frame.dim: frame.size for frame in get_plates() if frame.dim is not None}
    return sizes, {dim for dim in dims if dim is not None and dim not in sizes}


def replayed_value(name: str) -> Tensor | None:
    """Return the value that a site is about to take from another trace, if it is.

    Args:
        name: The site's name as it is given to ``pyro.sample``; a ``scope`` around the call puts
            its prefix before it.
    """
    site, found = {"name": name}, None
    # From the inside out, as a site's message goes: the outermost trace has the last word.
    for handler in reversed(_PYRO_STACK):
        if isinstance(handler, ScopeMessenger | NameCountMessenger):
            handler._pyro_sample(site)
        elif isinstance(handler, ConditionMessenger) and site["name"] in handler.data:
            return None
        elif isinstance(handler, ReplayMessenger):
            trace = handler.trace
            if trace is not None and site["name"] in trace:
                found = trace.nodes[site["name"]]["value"]
    return found


class _BatchPlate(pyro.plate):
    """A plate over a whole batch dimension: ``pyro.plate`` without its site for subsampling.

    That site, drawn and pruned again in guide and model, is 5 to 7 % of a small VAE's step. What
    looks for a ``pyro.plate``, as ``NeuTraReparam`` does, finds this one.
    """

    def __init__(self, name: str, size: int, *, dim: int) -> None:
        IndepMessenger.__init__(self, name, size, dim)
        self.subsample_size, self._indices = size, None

    def _process_message(self, msg: Any) -> None:
        IndepMessenger._process_message(self, msg)
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


class AtCentralValues(Messenger):
    """Gives latent sites the central values of their distributions in the place of draws.

    Sites inside see those before them: a hierarchy's values are fed downwards.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if not (msg["done"] or msg["is_observed"] or msg["name"] == "x"):
            msg["value"], msg["done"] = central_value(msg["fn"]), True


def central_value(distribution: Any) -> Tensor:
    """Return the value that stands for a distribution where nothing is drawn.

    That is the mean, of discrete values the most probable one. The mean of what transforms make of
    a distribution has no closed form: the mean of that distribution passes through them instead.

    Raises:
        ValueError: If there is no mean in closed form.
    """
    if isinstance(distribution, Independent):
        return central_value(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution):
        value = central_value(distribution.base_dist)
        for transform in distribution.transforms:
            value = transform(value)
        return value
    try:
        # A point mass on codes is its own mean; the mean of a label is no label.
        found = distribution.mode if distribution.has_enumerate_support else distribution.mean
    except (AttributeError, NotImplementedError):
        found = None
    rule = "be False, there is a distribution without a mean in closed form"
    check(found is not None, "deterministic", rule, f"True and {type(distribution).__name__}")
    return cast(Tensor, found)
