"""Registration of a module's parameters with Pyro's param store, under a name of its own.

``pyro.module`` under a fixed name hands the first instance to the optimizer for ever: a second
instance, and any deepcopy, then never trains, and nothing says so. So each instance has a name of
its own. As with ``PyroModule``, values that were loaded into the store are copied into the module.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.ops.provenance import detach_provenance
from pyro.params import module_from_param_with_module_name, param_with_module_name
from torch import Tensor, nn

from pyro_genmodels._checks import check

# Names that this process has given, by class, and the live modules that have one.
_counters: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
_given: set[str] = set()
_owners: weakref.WeakValueDictionary[str, nn.Module] = weakref.WeakValueDictionary()
# What an instance must not share with its copies.
_PER_INSTANCE = ("_store_name", "_registers", "_registered")


class RegisteredModule(nn.Module):
    """A module that registers itself with Pyro's param store, and survives copying and pickling.

    The module stays the owner of its parameters: whatever replaces one of them (``load_state_dict``
    with ``assign=True``, a conversion) replaces it in the store at the next registration. Values
    that were loaded into the store replace the module's.
    """

    @property
    def pyro_name(self) -> str:
        """Name of the module in Pyro's param store, unique among live modules.

        By default the class and a serial number, ``"VAE_0"``. Set it before the first use where the
        param store, or an optimizer's state, is to be loaded in another process.

        Raises:
            ValueError: When set, if another live module has the name, or after the first use.
        """
        if "_store_name" not in self.__dict__:
            self._claim(self.__dict__.get("_chosen_name") or self._automatic_name())
        return str(self.__dict__["_store_name"])

    @pyro_name.setter
    def pyro_name(self, name: str) -> None:
        whole = bool(name) and "$$$" not in name
        check(whole, "pyro_name", "be a name without '$$$'", repr(name))
        if name == self.__dict__.get("_store_name"):
            return
        used = "_registered" in self.__dict__
        check(not used, "pyro_name", "be set before the first use", repr(name))
        self._claim(name)
        self.__dict__["_chosen_name"] = name

    def _automatic_name(self) -> str:
        kind = type(self).__name__
        taken = {module_from_param_with_module_name(site) for site in pyro.get_param_store()}
        names = (f"{kind}_{number}" for number in _counters[kind])
        return next(name for name in names if name not in taken and name not in _owners)

    def _claim(self, name: str) -> None:
        if _has_other_owner(name, self):
            gc.collect()  # models are parts of reference cycles, which outlive their last use
        free = not _has_other_owner(name, self)
        check(free, "pyro_name", "not be that of another live model", repr(name))
        _owners.pop(self.__dict__.get("_store_name", ""), None)
        _owners[name] = self
        _given.add(name)
        self.__dict__["_store_name"] = name

    def register_with_pyro(self) -> None:
        """Make every trainable parameter a Pyro param site, as ``pyro.module`` does.

        Raises:
            ValueError: If a parameter is not contiguous: the store would train a copy of it. If a
                handler (``poutine.lift``, ``poutine.substitute``) replaced one. Or if the store
                holds loaded values that cannot be this model's.
        """
        if not self.__dict__.get("_registers", True):
            return
        self.take_loaded_values()
        registered = self.__dict__.setdefault("_registered", {})
        prefix = self.pyro_name
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            site = param_with_module_name(prefix, name)
            value = pyro.param(site, parameter)
            if value is not parameter:
                self._settle(site, name, parameter, value)
            if site not in registered:
                registered[site] = weakref.ref(parameter)

    def take_loaded_values(self) -> None:
        """Before the first use, copy what was loaded into the store under this module's name.

        Raises:
            ValueError: If those values do not fit. Or if the module has an automatic name, and the
                store holds loaded values of such a module.
        """
        if "_registered" in self.__dict__ or not pyro.get_param_store():
            return
        if "_chosen_name" in self.__dict__:
            self._copy_from_store()
        else:
            self._check_nothing_unclaimed()

    @contextmanager
    def unregistered(self) -> Iterator[None]:
        """Leave the param store alone: whoever runs the model owns its parameters."""
        before = self.__dict__.get("_registers", True)
        self.__dict__["_registers"] = False
        try:
            yield
        finally:
            self.__dict__["_registers"] = before

    def buffers_to_save(self) -> list[str]:
        """Names in the state dict that Pyro's param store does not hold: not parameters."""
        parameters = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        return [name for name in self.state_dict() if name not in parameters]

    def _settle(self, site: str, name: str, parameter: nn.Parameter, value: Any) -> None:
        """Decide what counts where a param statement has not returned the module's parameter."""
        rule = "be contiguous for Pyro's param store (ELBOLoss takes any layout)"
        check(parameter.is_contiguous(), name, rule, f"strides {parameter.stride()}")
        store = pyro.get_param_store()
        stored = store[site] if site in store else parameter  # noqa: SIM401  it has no `get`
        if stored is not parameter:
            self._copy_from_store()
            _remove(site)
            self.__dict__["_registered"].pop(site, None)
            value = pyro.param(site, parameter)
        # A handler may wrap a value. If it has another, the networks would go on without it.
        rule = "be left to its module, not replaced by a handler such as poutine.lift"
        check(_is_same(value, parameter), name, rule, "another value")

    def _copy_from_store(self) -> None:
        """Copy stored values that the module did not put there itself, all or none."""
        prefix, held = f"{self.pyro_name}$$$", dict(pyro.get_param_store().named_parameters())
        last = {site: kept() for site, kept in self.__dict__.get("_registered", {}).items()}
        trainable = {n: p for n, p in self.named_parameters() if p.requires_grad}
        stored = {n: held[prefix + n] for n in trainable if prefix + n in held}
        loaded = {
            name: value
            for name, value in stored.items()
            if value is not trainable[name] and value is not last.get(prefix + name)
        }
        if not loaded:
            return
        unfit = [n for n, value in loaded.items() if value.shape != trainable[n].shape]
        if not last:
            unfit += [name for name in trainable if name not in loaded]
        rule = f"have the trainable parameters that the param store holds for '{self.pyro_name}'"
        check(not unfit, "model", rule, ", ".join(unfit))
        equal = all(torch.equal(v.to(trainable[n]), trainable[n]) for n, v in loaded.items())
        buffers = "" if equal else ", ".join(self.buffers_to_save())
        rule = "have loaded its state dict too, since the param store does not hold its buffers"
        check(not buffers, "model", rule, buffers)
        registered = self.__dict__.setdefault("_registered", {})
        with torch.no_grad():
            for name, value in loaded.items():
                trainable[name].copy_(value)
                registered[prefix + name] = weakref.ref(value)

    def _check_nothing_unclaimed(self) -> None:
        """An automatic name must not hide that loaded values wait under another one."""
        own = {n: p for n, p in self.named_parameters() if p.requires_grad}
        found: dict[str, dict[str, Tensor]] = {}
        for site, stored in pyro.get_param_store().named_parameters():
            owner, of_module, name = site.partition("$$$")
            if of_module:
                found.setdefault(owner, {})[name] = stored
        # A program of the user's may have registered the same tensors under another name.
        known = {id(parameter) for parameter in own.values()}
        known |= {id(value) for name in found.keys() & _given for value in found[name].values()}
        for owner, values in found.items():
            if not any(id(value) in known for value in values.values()):
                rule = (
                    "be set before the first use, to the name under which the param store holds "
                    f"loaded parameters of such a model ('{owner}'), or to a new one"
                )
                check(not _fit(own, values), "pyro_name", rule, None)

    def __getstate__(self) -> dict[str, Any]:
        for parameter in self.parameters():
            # Pyro leaves a weak reference on each parameter it has seen, which does not pickle.
            parameter.__dict__.pop("unconstrained", None)
        return {key: value for key, value in self.__dict__.items() if key not in _PER_INSTANCE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if _has_other_owner(self.__dict__.get("_chosen_name", ""), self):  # a copy
            del self.__dict__["_chosen_name"]


def _has_other_owner(name: str, module: nn.Module) -> bool:
    return _owners.get(name, module) is not module


def _fit(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether one has all parameters of the other, by name and shape; some may be frozen."""
    a, b = ({(n, value.shape) for n, value in one.items()} for one in (first, second))
    return bool(a) and bool(b) and (a <= b or b <= a)


def _is_same(value: Any, parameter: nn.Parameter) -> bool:
    value = detach_provenance(value)
    if value is parameter:
        return True
    fits = isinstance(value, Tensor) and value.shape == parameter.shape
    return fits and bool(torch.equal(value, parameter))


def _remove(site: str) -> None:
    """Take a parameter out of the store, also one that it holds under several names."""
    store: Any = pyro.get_param_store()
    if store.param_name(store[site].unconstrained()) is None:
        store[site] = store[site]  # names it again: deleting asks for the name
    del store[site]
