"""States of parameters that share one optimizer, each as if it had one to itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler


def optimizer_of(shared: Any) -> Any:
    """Return the optimizer itself, of one or of a scheduler of one."""
    return shared.optimizer if isinstance(shared, LRScheduler) else shared


def members_of(shared: Any) -> list[Tensor]:
    """Return the parameters that share it."""
    (group,) = optimizer_of(shared).param_groups
    return group["params"]


def current_name(parameter: Tensor) -> str | None:
    """Return the name of what the store has; a value replaced there keeps its own in part."""
    store = pyro.get_param_store()
    name = store.param_name(parameter)
    if name is None or name not in store:
        return None
    held: Any = store[name]
    return name if held.unconstrained() is parameter else None


def states_of(shared: Any) -> dict[Tensor, Any]:
    """Return the state of each parameter as if it had its optimizer to itself."""
    whole = optimizer_of(shared).state_dict()
    (group,) = whole["param_groups"]
    states = {}
    for index, parameter in enumerate(members_of(shared)):
        kept = {0: whole["state"][index]} if index in whole["state"] else {}
        state: Any = {"state": kept, "param_groups": [{**group, "params": [0]}]}
        if isinstance(shared, LRScheduler):
            state = {"scheduler": shared.state_dict(), "optimizer": state}
        states[parameter] = state
    return states


def settings_in(state: Mapping[str, Any] | None) -> Any:
    """Return what a saved state says of its optimizer, without what it says of its parameter."""
    if state is None:
        return None
    return state.get("optimizer", state)["param_groups"], state.get("scheduler")


def load_states(shared: Any, states: list[Any]) -> None:
    """Put the saved states of single parameters into the optimizer that they share."""
    if isinstance(shared, LRScheduler):
        # A copy, since some schedulers take out of it what they need.
        shared.load_state_dict(copy.deepcopy(states[0]["scheduler"]))
        states = [state["optimizer"] for state in states]
    kept = {i: state["state"][0] for i, state in enumerate(states) if state["state"]}
    group = {**states[0]["param_groups"][0], "params": list(range(len(states)))}
    optimizer_of(shared).load_state_dict({"state": kept, "param_groups": [group]})


def move_states(some: list[Tensor], source: Any, target: Any) -> None:
    """Move parameters' states to the new optimizer that has them, not through a cast of them."""
    old, new = optimizer_of(source), optimizer_of(target)
    if isinstance(source, LRScheduler):
        target.load_state_dict(copy.deepcopy(source.state_dict()))
    (old_group,), (new_group,) = old.param_groups, new.param_groups
    settings = {key: value for key, value in old_group.items() if key != "params"}
    new_group.update(copy.deepcopy(settings))
    for parameter in some:
        if parameter in old.state:
            new.state[parameter] = old.state.pop(parameter)
    moved = set(some)
    old_group["params"] = [p for p in old_group["params"] if p not in moved]


def is_equal(a: Any, b: Any) -> bool:
    """Tell whether settings are the same, whatever they are made of."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        return both and a.device == b.device and torch.equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(is_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(is_equal(x, y) for x, y in zip(a, b, strict=True))
    equal = a == b
    return bool(equal.all() if hasattr(equal, "all") else equal)  # of arrays, each element's
