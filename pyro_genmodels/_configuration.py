"""Objects that remember how they were made, as plain data that rebuilds them.

A checkpoint holds a ``state_dict`` and this plain description. Reading one never runs code from
it: names resolve only in the public lists (``__all__``) of this package, or to classes that the
caller allowed by name.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import torch

from pyro_genmodels._checks import check, check_integers, integers_declared

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

PUBLIC_MODULES = ("nets", "transforms", "distributions", "data", "models")
_PACKAGE = __name__.partition(".")[0]
_ARGUMENTS = "_constructor_arguments"


class Configured:
    """Mixin that captures constructor arguments; put it first among the bases.

    What a constructor declares as ``int``, or as a sequence of them, must be.

    The arguments must be plain (``None``, numbers, strings, sequences, string-keyed dicts) or
    themselves ``Configured`` for :func:`configuration` to describe them.

    Example:
        >>> class Point(Configured):
        ...     def __init__(self, x, *, y=0):
        ...         self.x, self.y = x, y
        >>> configuration(Point(3))["arguments"]
        {'x': 3}
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the constructor so that it records what it was given."""
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__dict__["__init__"])  # type: ignore[method-assign]

    def current_arguments(self) -> dict[str, Any]:
        """Return the arguments that would make this object's like now.

        Those it was given; a class whose parts may be replaced later says so here.
        """
        return dict(self.__dict__.get(_ARGUMENTS) or {})


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)
    declared = integers_declared(init.__annotations__)

    @functools.wraps(init)
    def recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
        arguments = _bind(signature, (self, *args), kwargs)
        check_integers(declared, arguments)
        # The most derived constructor comes first; those it calls must not overwrite its record.
        self.__dict__.setdefault(_ARGUMENTS, arguments)
        init(self, *args, **kwargs)

    return recording_init


def _bind(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return {}  # the constructor is about to raise the same TypeError, with its traceback
    arguments: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = signature.parameters[name].kind
        arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return arguments


def configuration(instance: Configured) -> dict[str, Plain]:
    """Describe an object as plain data, from which :func:`build` makes its like.

    Returns:
        ``{"class": name, "arguments": {...}}``, nested objects described alike.

    Raises:
        ValueError: If an argument is neither plain nor ``Configured``.
    """
    name = qualified_name(type(instance))
    arguments = instance.current_arguments()
    return {
        "class": name,
        "arguments": {k: _plain(f"{name}({k}=)", v) for k, v in arguments.items()},
    }


def qualified_name(cls: type) -> str:
    """Return ``"models.VAE"`` for a public class of this package, the full path for any other."""
    for module in PUBLIC_MODULES:
        namespace = importlib.import_module(f"{_PACKAGE}.{module}")
        if cls.__name__ in namespace.__all__ and getattr(namespace, cls.__name__) is cls:
            return f"{module}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _plain(argument: str, value: Any) -> Plain:
    if isinstance(value, Configured):
        return configuration(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(argument, v) for k, v in value.items()}
    if isinstance(value, list | tuple | torch.Size):
        return [_plain(argument, v) for v in value]
    rule = "be plain data or an object of this package, to be described in a checkpoint"
    raise ValueError(f"`{argument}` must {rule}; got {type(value).__name__}.")


def build(description: object, *, allow: Collection[str] = ()) -> Any:
    """Make the object that :func:`configuration` described.

    Args:
        description: ``{"class": name, "arguments": {...}}``.
        allow: Full paths of classes outside this package that may be imported.

    Raises:
        ValueError: If a name is neither public here nor allowed, or the arguments do not fit.
    """
    rule = "be a mapping with a 'class' and its 'arguments'"
    check(isinstance(description, Mapping), "description", rule, description)
    assert isinstance(description, Mapping)  # narrows the type for the checker
    check(isinstance(description.get("class"), str), "description", rule, description)
    cls = resolve(description["class"], allow=allow)
    arguments = {k: _built(v, allow) for k, v in dict(description.get("arguments") or {}).items()}
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        problem = f"`{description['class']}` does not take these arguments: {error}."
        raise ValueError(problem) from None
    return cls(**arguments)


def _built(value: Any, allow: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        if "class" in value:
            return build(value, allow=allow)
        return {k: _built(v, allow) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_built(v, allow) for v in value]
    return value


def resolve(name: str, *, allow: Collection[str] = ()) -> Callable[..., Any]:
    """Return the class of that name, importing nothing that was not allowed.

    Raises:
        ValueError: If the name is neither public in this package nor in ``allow``.
    """
    module, _, attribute = name.rpartition(".")
    if module in PUBLIC_MODULES:
        namespace = importlib.import_module(f"{_PACKAGE}.{module}")
        if attribute in namespace.__all__:
            found = getattr(namespace, attribute)
            if isinstance(found, type) and issubclass(found, Configured):
                return found
    check(
        name in allow,
        "class",
        "be a public class of this package, or allowed by name (`allow=` or `--allow`)",
        repr(name),
    )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        found = None
    check(isinstance(found, type), "class", "name a class that can be imported", repr(name))
    return found  # type: ignore[no-any-return]
