"""Objects that remember how they were made, as plain data, and arguments that belong together.

A checkpoint holds a ``state_dict`` and this plain description. Reading one never runs code from
it: names resolve only in the public lists (``__all__``) of this package, or to classes that the
caller allowed by name.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias, TypeVar, get_args, get_type_hints

import torch

from pyro_genmodels._checks import check, check_integers, integers_declared
from pyro_genmodels._migration import Moved, moved_arguments, moved_hint

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

PUBLIC_MODULES = ("nets", "transforms", "distributions", "data", "models")
_PACKAGE = __name__.partition(".")[0]
_ARGUMENTS = "_constructor_arguments"
_OPTIONS_OF = "_options_of"

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


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
            init = cls.__dict__["__init__"]
            if hasattr(init, _OPTIONS_OF):
                signature = inspect.signature(init)
                cls.__doc__ = _joined_docstring(cls, getattr(init, _OPTIONS_OF), signature)
            cls.__init__ = _recording(init)  # type: ignore[method-assign]

    def current_arguments(self) -> dict[str, Any]:
        """Return the arguments that would make this object's like now.

        Those it was given; a class whose parts may be replaced later says so here.
        """
        return dict(self.__dict__.get(_ARGUMENTS) or {})


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)
    declared = integers_declared({p.name: p.annotation for p in signature.parameters.values()})

    @functools.wraps(init)
    def recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            arguments = _bind(signature, (self, *args), kwargs)
        except TypeError as error:
            names = [qualified_name(cls) for cls in type(self).__mro__]
            unknown = [key for key in kwargs if key not in signature.parameters]
            moved = moved_arguments(names, unknown)
            if not moved:
                raise _misfit(type(self).__name__, error, names, unknown) from None
            warnings.warn(moved_hint(names, unknown), FutureWarning, stacklevel=2)
            kwargs = _regrouped(kwargs, moved)
            arguments = _bind(signature, (self, *args), kwargs)
        check_integers(declared, arguments)
        # The most derived constructor comes first; those it calls must not overwrite its record.
        self.__dict__.setdefault(_ARGUMENTS, arguments)
        init(self, *args, **kwargs)

    return recording_init


def _regrouped(given: dict[str, Any], moved: Mapping[str, Moved]) -> dict[str, Any]:
    """Return arguments with those that have moved in their groups."""
    kept = {name: value for name, value in given.items() if name not in moved}
    for name, (argument, group, field) in moved.items():
        whole = resolve(group).of(kept.get(argument))
        twice = getattr(whole, field) is not None
        check(not twice, name, f"be left out: `{argument}` has one", type(given[name]).__name__)
        kept[argument] = replace(whole, **{field: given[name]})
    return kept


def _misfit(
    called: str, error: TypeError, names: Collection[str], unknown: Collection[str]
) -> TypeError:
    """Return the error of a call with other arguments than it takes, and what has moved."""
    hint = moved_hint(names, unknown)
    return TypeError(f"{called}() {error}" + (f": {hint}" if hint else ""))


def _bind(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    arguments: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = signature.parameters[name].kind
        arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return arguments


@dataclass(frozen=True)
class ArgumentGroup(Configured):
    """Base of arguments that belong together and are given to a constructor as one object.

    A subclass is a frozen dataclass whose fields all have defaults. Its first field may be given
    alone in the place of the whole: see :meth:`of`. Fields declared as integers must be; further
    checks go into ``__post_init__``.

    Example:
        >>> @dataclass(frozen=True)
        ... class Sizes(ArgumentGroup):
        ...     width: int = 8
        ...     depth: int = 2
        >>> Sizes.of(16), Sizes.of(Sizes(depth=3)), Sizes.of(None)
        (Sizes(width=16, depth=2), Sizes(width=8, depth=3), Sizes(width=8, depth=2))
    """

    def __post_init__(self) -> None:
        """Make sequences tuples; raise ``ValueError`` if an integer field holds something else."""
        for name, value in self._values().items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        declared = {each.name: each.type for each in fields(self)}
        check_integers(integers_declared(declared), self._values())

    def current_arguments(self) -> dict[str, Any]:
        """Return the value of every field; what a constructor was given that a subclass writes."""
        own = _ARGUMENTS in self.__dict__
        return super().current_arguments() if own else self._values()

    def _values(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def of(cls: type[GroupT], value: Any) -> GroupT:
        """Return a group, given as it is, by its first field alone, or ``None`` for defaults.

        Raises:
            ValueError: If it is another group, or fields by name, or the group refuses the field.
        """
        if isinstance(value, cls):
            return value
        other = isinstance(value, ArgumentGroup | Mapping)
        rule = f"be given as an object of that class, or by its `{fields(cls)[0].name}` alone"
        check(not other, cls.__name__, rule, value)
        return cls() if value is None else cls(value)  # type: ignore[call-arg]


GroupT = TypeVar("GroupT", bound=ArgumentGroup)


def takes_arguments_of(
    make: Callable[..., Any], *, without: Collection[str] = (), **defaults: Any
) -> Callable[[FunctionT], FunctionT]:
    """Decorate a function that passes ``**options`` on, so that it shows what they may be.

    Its signature, from which the command line reads options, gets the arguments of ``make``; its
    docstring gets their descriptions, in the place of the entry ``options``. What the function
    declares or describes itself stays as it is. What is declared as an integer must be. Of the
    constructor of a :class:`Configured` class it is the class's docstring that gets them.

    Args:
        make: What the options are passed on to.
        without: Arguments of ``make`` that the function does not take.
        defaults: Other defaults than those of ``make``. They are passed on.

    Example:
        >>> def rectangle(height: int, *, width: int = 3) -> int:
        ...     '''Return the area.
        ...
        ...     Args:
        ...         height: Height in metres.
        ...         width: Width in metres.
        ...     '''
        ...     return height * width
        >>> @takes_arguments_of(rectangle, without=["height"], width=5)
        ... def strip(**options: int) -> int:
        ...     '''Return the area of height one.
        ...
        ...     Args:
        ...         options: Others.
        ...     '''
        ...     return rectangle(1, **options)
        >>> inspect.signature(strip).parameters["width"], strip()
        (<Parameter "width: int = 5">, 5)
        >>> strip(depth=2)
        Traceback (most recent call last):
        ...
        TypeError: strip() got an unexpected keyword argument 'depth'
    """

    def decorate(function: FunctionT) -> FunctionT:
        signature = _joined_signature(function, make, without, defaults)
        annotations = {name: p.annotation for name, p in signature.parameters.items()}
        declared = integers_declared(annotations)
        part = function.__module__.split(".")[1:2]

        @functools.wraps(function)
        def passing_on(*args: Any, **kwargs: Any) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                name = function.__name__
                unknown = [key for key in kwargs if key not in signature.parameters]
                raise _misfit(name, error, [".".join([*part, name])], unknown) from None
            check_integers(declared, bound.arguments)
            return function(*args, **{**defaults, **kwargs})

        annotations["return"] = signature.return_annotation
        passing_on.__annotations__ = annotations
        passing_on.__signature__ = signature  # type: ignore[attr-defined]
        passing_on.__doc__ = _joined_docstring(function, make, signature)
        setattr(passing_on, _OPTIONS_OF, make)
        return passing_on  # type: ignore[return-value]

    return decorate


def _joined_signature(
    function: Callable[..., Any],
    make: Callable[..., Any],
    without: Collection[str],
    defaults: Mapping[str, Any],
) -> inspect.Signature:
    own = {
        name: parameter
        for name, parameter in hinted_parameters(function).items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    added = [
        parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name, parameter.default)
        )
        for name, parameter in hinted_parameters(make).items()
        if name not in own and name not in without
    ]
    return inspect.signature(function).replace(parameters=[*own.values(), *added])


def hinted_parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function or class, their annotations as types, not strings."""
    hints = get_type_hints(make.__init__ if inspect.isclass(make) else make)
    return {
        name: parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in inspect.signature(make).parameters.items()
    }


def argument_groups(make: Callable[..., Any]) -> dict[str, type[ArgumentGroup]]:
    """Return the arguments of a function or class that are groups, with the class of each."""
    return {
        name: cls
        for name, parameter in hinted_parameters(make).items()
        for cls in classes_of(parameter.annotation)
        if issubclass(cls, ArgumentGroup)
    }


def with_groups(make: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, groups that are given as fields by name made."""
    groups = argument_groups(make)
    return {
        name: groups[name](**value) if name in groups and isinstance(value, Mapping) else value
        for name, value in arguments.items()
    }


def classes_of(annotation: Any) -> Iterator[type]:
    """Yield the classes in an annotation, at any depth."""
    if inspect.isclass(annotation) and not get_args(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from classes_of(argument)


def _joined_docstring(
    function: Callable[..., Any], make: Callable[..., Any], signature: inspect.Signature
) -> str:
    own, theirs = _entries(function.__doc__), described_arguments(make)
    text = inspect.getdoc(function) or ""
    if "options" not in own:
        return text
    missing = (name for name in signature.parameters if name not in own)
    return text.replace(own["options"], "".join(theirs.get(n, "") for n in missing))


def described_arguments(make: Callable[..., Any]) -> dict[str, str]:
    """Return the entries of the docstring's section ``Args`` by name, each as it is indented.

    A class has also those of its bases.
    """
    found: dict[str, str] = {}
    for described in reversed(inspect.getmro(make)) if inspect.isclass(make) else [make]:
        found |= _entries(described.__doc__)
    return found


def _entries(docstring: str | None) -> dict[str, str]:
    _, _, section = inspect.cleandoc(docstring or "").partition("\nArgs:\n")
    entries: dict[str, str] = {}
    name = ""
    for line in itertools.takewhile(lambda line: line.startswith("    "), section.split("\n")):
        if not line.startswith("     "):
            name = line.strip().partition(":")[0]
        entries[name] = entries.get(name, "") + line + "\n"
    return entries


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


def inherited_constructors(allow: Collection[str]) -> dict[str, str]:
    """Return the allowed classes that have a constructor of this package, with its class's name."""
    found = {}
    for name in allow:
        try:
            bases = inspect.getmro(resolve(name, allow=allow))
        except ValueError:
            continue  # an error where it is built, if it is
        names = [(cls, qualified_name(cls)) for cls in bases]
        first = next(each for each in names if _is_public(each[1]) or "__init__" in vars(each[0]))
        if _is_public(first[1]):
            found[name] = first[1]
    return found


def _is_public(name: str) -> bool:
    return name.partition(".")[0] in PUBLIC_MODULES


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
        taken = inspect.signature(cls).parameters
        unknown = [key for key in arguments if key not in taken]
        names = [qualified_name(base) for base in inspect.getmro(cls)]
        misfit = _misfit(description["class"], error, names, unknown)
        raise ValueError(f"`class` must take the arguments given; got {misfit}.") from None
    return cls(**arguments)


def _built(value: Any, allow: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        if "class" in value:
            return build(value, allow=allow)
        return {k: _built(v, allow) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_built(v, allow) for v in value]
    return value


def resolve(name: str, *, allow: Collection[str] = ()) -> type[Any]:
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
    return found
