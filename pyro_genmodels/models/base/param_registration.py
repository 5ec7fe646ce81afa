"""Registration of a module's parameters with Pyro's param store, under a name of its own.

Under a fixed name, ``pyro.module`` gives the optimizer the parameters of the first instance only: a
second one, and any deepcopy, never trains, without an error. So each instance has its own name. As
with ``PyroModule``, values that were loaded into the store are copied into the module.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.ops.provenance import detach_provenance
from pyro.params import module_from_param_with_module_name, param_with_module_name
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from pyro_genmodels._checks import check, listed

# Serial numbers of each class, the live modules that have a name, and every parameter that a model
# has put into the store: what else is found there was loaded.
_counters: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
_owners: weakref.WeakValueDictionary[str, nn.Module] = weakref.WeakValueDictionary()
_stated: MutableMapping[Tensor, None] = WeakIdKeyDictionary()
# What an instance must not share with its copies.
_PER_INSTANCE = ("_store_name", "_registers", "_store_size")


class RegisteredModule(nn.Module):
    """A module that registers itself with Pyro's param store, and survives copying and pickling.

    The module stays the owner of its parameters: whatever replaces one of them (``load_state_dict``
    with ``assign=True``, a conversion) replaces it in the store at the next registration. Values
    that were loaded into the store replace the module's.
    """

    _chosen_name: str | None = None
    _store_name: str | None = None
    _store_size: int | None = None
    """Size of the store after the last registration; ``None`` before the first use."""
    _registers = True

    @property
    def pyro_name(self) -> str:
        """Name of the module in Pyro's param store, unique among live modules.

        By default the class and a serial number, ``"VAE_0"``. Set it before the first use where the
        param store, or an optimizer's state, is to be loaded in another process.

        Raises:
            ValueError: When set, if another live module has the name, or after the first use.
        """
        if self._store_name is None:
            self._claim(self._chosen_name or self._automatic_name())
        return str(self._store_name)

    @pyro_name.setter
    def pyro_name(self, name: str) -> None:
        whole = isinstance(name, str) and bool(name) and "$$$" not in name
        check(whole, "pyro_name", "be a name without '$$$'", repr(name))
        if name == self._store_name:
            return
        check(self._store_size is None, "pyro_name", "be set before the first use", repr(name))
        self._claim(name)
        self._chosen_name = name

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
        _owners.pop(self._store_name or "", None)
        _owners[name] = self
        self._store_name = name

    def register_with_pyro(self) -> None:
        """Make every trainable parameter a Pyro param site, as ``pyro.module`` does.

        Raises:
            ValueError: If a parameter is not contiguous, since the store would train a copy of it;
                if a handler (``poutine.lift``, ``poutine.substitute``) replaced one; or if the
                store holds loaded values that cannot be this model's.
        """
        if not self._registers:
            return None
        store = pyro.get_param_store()
        if len(store) != self._store_size:
            self.take_loaded_values()
        prefix = self.pyro_name
        for name, parameter in list(self.named_parameters()):
            if parameter.requires_grad:
                if not parameter.is_contiguous():
                    rule = "be contiguous for Pyro's param store (ELBOLoss takes any layout)"
                    check(False, name, rule, f"strides {parameter.stride()}")
                site = param_with_module_name(prefix, name)
                value = pyro.param(site, parameter)
                if value is not parameter and self._settle(site, name, parameter, value):
                    return self.register_with_pyro()
        if len(store) != self._store_size:
            _stated.update((p, None) for p in self.parameters() if p.requires_grad)
            self._store_size = len(store)
        return None

    def take_loaded_values(self) -> None:
        """Copy what was loaded into the store under this module's name.

        Raises:
            ValueError: If those values do not fit. Or if the module has an automatic name, and the
                store holds loaded values of such a module under another one.
        """
        if not self._registers or not pyro.get_param_store():
            return
        if self._chosen_name is not None or self._store_size is not None:
            self._copy_from_store()
        if self._chosen_name is None:
            self._check_nothing_unclaimed()

    @contextmanager
    def unregistered(self) -> Iterator[None]:
        """Leave the param store alone: whoever runs the model owns its parameters."""
        before, self._registers = self._registers, False
        try:
            yield
        finally:
            self._registers = before

    def buffers_to_save(self) -> list[str]:
        """Names in the state dict that Pyro's param store does not hold: not parameters."""
        parameters = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        return [name for name in self.state_dict() if name not in parameters]

    def _settle(self, site: str, name: str, parameter: nn.Parameter, value: Any) -> bool:
        """Resolve a param statement that returned another tensor than the module's parameter.

        Returns:
            Whether the module's parameters were replaced by loaded ones.
        """
        store = pyro.get_param_store()
        if site in store and store[site] is not parameter:
            if store[site] not in _stated:
                self._copy_from_store()
                return True
            # The module's parameter was replaced, for instance by load_state_dict(assign=True).
            _remove(site)
            value = pyro.param(site, parameter)
            _stated[parameter] = None
        # A handler may wrap a parameter, but networks would not use a value that it puts in place.
        rule = "be left to its module, not replaced by a handler such as poutine.lift"
        check(_is_same(value, parameter), name, rule, "another value")
        return False

    def _copy_from_store(self) -> None:
        """Copy stored values that no model put there, all or none; frozen parameters get them too.

        A model that is in use gets new parameters, to which Pyro's optimizers apply the state that
        was loaded with them.
        """
        prefix, own = f"{self.pyro_name}$$$", dict(self.named_parameters())
        held = dict(pyro.get_param_store().named_parameters())
        stored = {name: held[prefix + name] for name in own if prefix + name in held}
        loaded = {n: v for n, v in stored.items() if v is not own[n] and v not in _stated}
        if not loaded:
            return
        is_used = self._store_size is not None
        unfit = [name for name, value in loaded.items() if value.shape != own[name].shape]
        if not is_used:
            unfit += [name for name, p in own.items() if p.requires_grad and name not in stored]
        rule = f"have the trainable parameters that the param store holds for '{self.pyro_name}'"
        check(not unfit, "model", rule, listed(unfit))
        equal = all(torch.equal(value.to(own[name]), own[name]) for name, value in loaded.items())
        unstored = [name for name in own if name not in stored]
        others = [] if equal else self.buffers_to_save() + unstored
        rule = "have loaded its state dict too, as the param store lacks buffers and frozen weights"
        check(not others, "model", rule, listed(others))
        for name, value in loaded.items():
            if is_used:
                new = nn.Parameter(value.detach().to(own[name]).clone(), own[name].requires_grad)
                _replace(self, own[name], new)
            else:
                with torch.no_grad():
                    own[name].copy_(value)
            _remove(prefix + name)

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
        for owner, values in found.items():
            if not any(id(value) in known or value in _stated for value in values.values()):
                rule = (
                    f"be set before the first use, to '{owner}' to go on with the loaded "
                    "parameters that the param store holds under that name, or to a new one"
                )
                check(not _fit(own, values), "pyro_name", rule, None)

    def __getstate__(self) -> dict[str, Any]:
        for parameter in self.parameters():
            # Pyro leaves a weak reference on each parameter it has seen, which does not pickle.
            parameter.__dict__.pop("unconstrained", None)
        return {key: value for key, value in self.__dict__.items() if key not in _PER_INSTANCE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._chosen_name is not None and _has_other_owner(self._chosen_name, self):  # a copy
            self._chosen_name = None


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


def _replace(module: nn.Module, old: nn.Parameter, new: nn.Parameter) -> None:
    """Put another parameter wherever a module has the old one."""
    for part in module.modules():
        names = [name for name, held in part.named_parameters(recurse=False) if held is old]
        for name in names:
            setattr(part, name, new)


class PartStatements(Messenger):
    """Hides what the parts of a module that are ``PyroModule`` state of their parameters.

    The module has registered them all under its own name. Under a second one, which copies of the
    module share, an optimizer would not find the state that it has saved.
    """

    def __init__(self, module: RegisteredModule) -> None:
        super().__init__()
        prefix = module.pyro_name
        names = module.named_parameters()
        self.sites = {id(p): (param_with_module_name(prefix, name), p) for name, p in names}
        self.aliases: list[str] = []

    def _pyro_param(self, msg: Any) -> None:
        store: Any = pyro.get_param_store()
        if len(msg["args"]) > 1:
            initial = msg["args"][1]
            if id(initial) in self.sites:
                msg.update(value=initial, done=True, stop=True)
        elif msg["name"] in store and id(store[msg["name"]].unconstrained()) in self.sites:
            # A PyroParam, which PyroModule has just written into the store itself.
            self.aliases.append(msg["name"])
            msg["stop"] = True

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        store: Any = pyro.get_param_store()
        for alias in dict.fromkeys(self.aliases):
            site, parameter = self.sites[id(store[alias].unconstrained())]
            _remove(alias)
            if site in store:
                store[site] = parameter  # and its name, which went with the alias


def _remove(site: str) -> None:
    """Take a parameter out of the store, also one that it holds under several names."""
    store: Any = pyro.get_param_store()
    if store.param_name(store[site].unconstrained()) is None:
        store[site] = store[site]  # names it again: deleting asks for the name
    del store[site]
