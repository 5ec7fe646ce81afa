"""Registration of a model's parameters with Pyro's param store, one name an instance.

Under a fixed name the store hands the first instance's parameters to the optimizer for ever: a
second instance, and any deepcopy, then never trains, and nothing says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import pyro
from pyro.params import param_with_module_name
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.trace_messenger import TraceMessenger
from torch import nn

from pyro_genmodels._checks import check

_serial_numbers = itertools.count()
# What an instance must not share with its copies.
_PER_INSTANCE = ("_store_name", "_registers")

# Name in the store, name in the module, and the parameter.
Site: TypeAlias = tuple[str, str, nn.Parameter]
# These see every message, but of a parameter without batch dimensions change nothing.
_INDIFFERENT = (pyro.plate, ScaleMessenger, MaskMessenger)


class RegisteredModule(nn.Module):
    """A module that registers itself with Pyro's param store, and survives copying and pickling.

    The module stays the owner of its parameters: whatever replaces one of them (``load_state_dict``
    with ``assign=True``, a conversion) replaces it in the store at the next registration.
    """

    def register_with_pyro(self) -> None:
        """Make every trainable parameter a Pyro param site under this instance's own name.

        In a step of ``SVI`` that is done once: what the guide stated, the model need not.

        Raises:
            ValueError: If a parameter is not contiguous: the store would train a copy of it. Or if
                a handler (``poutine.lift``, ``poutine.substitute``) replaced one.
        """
        if not self.__dict__.get("_registers", True):
            return
        prefix = self._unique_name()
        sites = [
            (param_with_module_name(prefix, name), name, parameter)
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        ]
        # Statements of all cost a fortieth of a small NVAE's step, for the guide and again for the
        # model.
        if _restated(sites):
            return
        for statement in sites:
            _state(*statement)

    @contextmanager
    def unregistered(self) -> Iterator[None]:
        """Leave the param store alone: whoever runs the model owns its parameters."""
        before = self.__dict__.get("_registers", True)
        self.__dict__["_registers"] = False
        try:
            yield
        finally:
            self.__dict__["_registers"] = before

    def _unique_name(self) -> str:
        if "_store_name" not in self.__dict__:
            name = f"{type(self).__name__}_{next(_serial_numbers)}"
            self.__dict__["_store_name"] = name
        return str(self.__dict__["_store_name"])

    def __getstate__(self) -> dict[str, Any]:
        for parameter in self.parameters():
            # Pyro leaves a weak reference on each parameter it has seen, which does not pickle.
            parameter.__dict__.pop("unconstrained", None)
        return {key: value for key, value in self.__dict__.items() if key not in _PER_INSTANCE}


def _state(site: str, name: str, parameter: nn.Parameter) -> None:
    """Make the parameter a site of the program that runs, and the store's."""
    if pyro.param(site, parameter) is parameter:
        return
    rule = "be contiguous for Pyro's param store (ELBOLoss takes any layout)"
    check(parameter.is_contiguous(), name, rule, f"strides {parameter.stride()}")
    rule = "be left to its module, not replaced by a handler such as poutine.lift"
    store = pyro.get_param_store()
    # If the store has another, it is an older one of the module's own.
    check(site in store and store[site] is not parameter, name, rule, "another value")
    del store[site]
    check(pyro.param(site, parameter) is parameter, name, rule, "another value")


def _restated(sites: Sequence[Site]) -> bool:
    """Note what was stated in this step in the traces around this call, with no statement more.

    ``SVI`` collects the parameters of guide and model in one trace. If it has these, only the
    traces within it that do not yet are given them. Nothing is done where a handler on the way
    might mind, or a parameter is another one than was stated, here or in the store.
    """
    handlers: list[Any] = list(pyro.poutine.runtime._PYRO_STACK)
    if any(map(_minds_parameters, handlers)):
        return False
    traces = [handler for handler in handlers if type(handler) is TraceMessenger]
    captures = [trace.trace.nodes for trace in traces if trace.param_only]
    if not captures or not all(_are_in(nodes, sites) for nodes in captures):
        return False
    store = pyro.get_param_store()
    # Asking for them also renews the reference that a copy or a save of the store takes off.
    if not all(site in store and store[site] is parameter for site, _, parameter in sites):
        return False
    for trace in traces:
        if not trace.param_only:
            for site, _, _ in sites:
                trace.trace.add_node(site, **captures[-1][site])
    return True


def _are_in(nodes: Mapping[str, Any], sites: Sequence[Site]) -> bool:
    return all(site in nodes and nodes[site]["value"] is value for site, _, value in sites)


def _minds_parameters(handler: Any) -> bool:
    """Tell whether a handler might change, hide or count parameters, also by a hook of a user's."""
    before, after = hasattr(handler, "_pyro_param"), hasattr(handler, "_pyro_post_param")
    if type(handler) is TraceMessenger:
        return before
    if type(handler) is ReplayMessenger:
        return after or handler.params is not None
    if before or after or type(handler) in _INDIFFERENT:
        return before or after
    both = ("_process_message", "_postprocess_message")
    own = {name: getattr(getattr(handler, name), "__func__", None) for name in both}
    return any(own[name] is not getattr(Messenger, name) for name in both)
