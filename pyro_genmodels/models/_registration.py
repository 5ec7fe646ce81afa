"""Registration of a model's parameters with Pyro's param store, one name an instance.

Under a fixed name the store hands the first instance's parameters to the optimizer for ever: a
second instance, and any deepcopy, then never trains, and nothing says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
from pyro.params import param_with_module_name
from torch import nn

from pyro_genmodels._checks import check

_serial_numbers = itertools.count()
# What an instance must not share with its copies.
_PER_INSTANCE = ("_store_name", "_registers")


class RegisteredModule(nn.Module):
    """A module that registers itself with Pyro's param store, and survives copying and pickling.

    The module stays the owner of its parameters: whatever replaces one of them (``load_state_dict``
    with ``assign=True``, a conversion) replaces it in the store at the next registration.
    """

    def register_with_pyro(self) -> None:
        """Make every trainable parameter a Pyro param site under this instance's own name.

        Raises:
            ValueError: If a parameter is not contiguous: the store would train a copy of it. Or if
                a handler (``poutine.lift``, ``poutine.substitute``) replaced one.
        """
        if not self.__dict__.get("_registers", True):
            return
        store, prefix = pyro.get_param_store(), self._unique_name()
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            site = param_with_module_name(prefix, name)
            if pyro.param(site, parameter) is not parameter:
                rule = "be left to its module, not replaced by a handler such as poutine.lift"
                check(site in store, name, rule, "another value")
                del store[site]
                kept = pyro.param(site, parameter) is parameter
                rule = "be contiguous for Pyro's param store (ELBOLoss takes any layout)"
                check(kept, name, rule, f"strides {parameter.stride()}")

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
