"""Parts of models, and groups of arguments, as plain data on the command line.

A group is written by its fields, ``--model.objective.beta 4``, or by the first of them alone,
``--model.posterior full``. A part (a network, a transform, a likelihood) is written as everywhere
in this package, ``{class: nets.PixelCNNNet, arguments: {...}}``, or by its bare name with its
arguments dotted: ``--model.net PixelCNNNet --model.net.hidden_channels 32``. Nothing is imported to
read it but what the package exports.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import nn

from pyro_genmodels import _configuration, models, nets, transforms
from pyro_genmodels._checks import check, require
from pyro_genmodels._configuration import (
    ArgumentGroup,
    argument_groups,
    classes_of,
    with_groups,
)
from pyro_genmodels.cli.groups import group_fields, public_name
from pyro_genmodels.cli.names import model_makers


@dataclass(frozen=True)
class Description:
    """Plain data of a part that is yet to be built (jsonargparse would take a dict apart)."""

    data: dict[str, Any]


def register_component_types() -> None:
    """Tell jsonargparse to read every part that a public constructor takes as a description."""
    jsonargparse = require("jsonargparse", extra="train")
    for cls in _component_types():
        jsonargparse.typing.register_type(
            cls,
            serializer=lambda description: description.data,
            deserializer=_described,
            type_check=lambda value, _: isinstance(value, Description),
            fail_already_registered=False,
        )


def _component_types() -> set[type]:
    found: set[type] = set()
    for module in (models, nets, transforms):
        for name in module.__all__:
            maker = getattr(module, name)
            target = maker.__init__ if inspect.isclass(maker) else maker
            hints = typing.get_type_hints(target) if inspect.isfunction(target) else {}
            found |= {cls for hint in hints.values() for cls in classes_of(hint) if _is_part(cls)}
    return found


def _is_part(cls: type) -> bool:
    if issubclass(cls, ArgumentGroup):
        return False
    kinds = (nn.Module, _configuration.Configured, torch.distributions.Transform)
    conditional = any(base.__name__ == "ConditionalTransform" for base in cls.__mro__)
    return conditional or issubclass(cls, kinds)


def _described(value: Any) -> Description:
    """Read a name, or a mapping with ``class`` and ``arguments``."""
    if isinstance(value, Description):
        return value
    if isinstance(value, str):
        value = yaml.safe_load(value)
    if isinstance(value, str):
        value = {"class": value}
    fits = isinstance(value, Mapping) and isinstance(value.get("class"), str)
    fits = fits and isinstance(value.get("arguments") or {}, Mapping)
    check(fits, "a part", "be a class name, or {class: ..., arguments: {...}}", value)
    return Description(dict(value))


def build_components(value: Any, facts: Mapping[str, Any], allow: Collection[str]) -> Any:
    """Build the parts described anywhere in a value.

    Args:
        value: An argument of a model, plain or a description.
        facts: Arguments that the data settle (``event_shape`` ...), given to every part that
            takes them and is not given them.
        allow: Full names of classes outside the package that may be imported.

    Raises:
        ValueError: If a name is neither public in this package nor allowed.
    """
    if isinstance(value, Description):
        value = value.data
    if isinstance(value, Mapping) and "class" in value:
        make = _maker(str(value["class"]), allow)
        arguments = _with_whole_groups(make, dict(value.get("arguments") or {}))
        taken = inspect.signature(make).parameters
        missing = {k: v for k, v in facts.items() if k in taken and k not in arguments}
        built = {k: build_components(v, facts, allow) for k, v in {**missing, **arguments}.items()}
        # Types are asked for only where there is something to make: a user's need not resolve.
        fields_given = any(isinstance(each, Mapping) for each in built.values())
        return make(**(with_groups(make, built) if fields_given else built))
    if isinstance(value, Mapping):
        return {k: build_components(v, facts, allow) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [build_components(v, facts, allow) for v in value]
    return value


def _maker(name: str, allow: Collection[str]) -> Any:
    """Return what makes a part: a class, or a function of the models that builds one."""
    builder = model_makers().get(name.removeprefix("models."))
    if builder is not None and not inspect.isclass(builder):
        return builder
    return _configuration.resolve(public_name(name), allow=allow)


def _with_whole_groups(make: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a part's arguments, ``"objective.beta": 4`` as ``"objective": {"beta": 4}``."""
    if not any("." in name for name in arguments):
        return arguments
    groups, found = argument_groups(make), dict[str, Any]()
    for name, value in arguments.items():
        argument, dot, field = name.partition(".")
        if dot and argument in groups:
            given = group_fields(argument, groups[argument], found.get(argument))
            found[argument] = {**given, field: value}
        else:
            found[name] = value
    return found


def gather(
    words: list[str], groups: Mapping[str, type[ArgumentGroup]] = MappingProxyType({})
) -> list[str]:
    """Gather ``--model.net Name --model.net.width 8`` into one description of the part.

    Words of plain options pass unchanged; a group given whole is written by its fields.

    Args:
        words: Options and their values.
        groups: The model's arguments that are groups.
    """
    pairs = list(_fields_of_groups(words, groups))
    parts = {option for option, _ in pairs if any(o.startswith(option + ".") for o, _ in pairs)}
    described: dict[str, dict[str, Any]] = {}
    plain: list[str] = []
    for option, value in pairs:
        owner = next((part for part in parts if option.startswith(part + ".")), None)
        if option in parts:
            described.setdefault(option, {"arguments": {}})["class"] = value
        elif owner is not None:
            part = described.setdefault(owner, {"arguments": {}})
            part["arguments"][option[len(owner) + 1 :]] = yaml.safe_load(value or "null")
        else:
            plain.append(option if value is None else f"{option}={value}")
    return plain + [f"{option}={yaml.safe_dump(part)}" for option, part in described.items()]


def _fields_of_groups(
    words: list[str], groups: Mapping[str, type[ArgumentGroup]]
) -> Iterable[tuple[str, str | None]]:
    for option, value in options_of(words):
        argument = option.removeprefix("--model.")
        if argument not in groups or argument == option or value is None:
            yield option, value
            continue
        given = group_fields(option, groups[argument], yaml.safe_load(value))
        for name, field in given.items():
            yield f"{option}.{name}", field if isinstance(field, str) else json.dumps(field)


def options_of(words: list[str]) -> Iterable[tuple[str, str | None]]:
    """Split words into options and their values; dashes within a name count as underscores."""
    index = 0
    while index < len(words):
        option, equals, value = words[index].partition("=")
        check(option.startswith("--"), "arguments", "be options after the model's name", option)
        option = "--" + option[2:].replace("-", "_")
        index += 1
        if equals:
            yield option, value
        elif index < len(words) and not words[index].startswith("--"):
            yield option, words[index]
            index += 1
        else:
            yield option, None
