"""Groups of arguments and public names in a model's options, as users write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pyro_genmodels import models, nets, transforms
from pyro_genmodels._checks import check
from pyro_genmodels._configuration import ArgumentGroup, qualified_name


def group_fields(argument: str, group: type[ArgumentGroup], value: Any) -> dict[str, Any]:
    """Return the fields of a group that are given: by name, by a description, or by the first.

    Raises:
        ValueError: If the description is of another class.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return {fields(group)[0].name: value}
    if "class" not in value:
        return dict(value)
    name = qualified_name(group)
    fits = public_name(str(value["class"])) == name
    check(fits, argument, f"be of class {name}", value["class"])
    return dict(value.get("arguments") or {})


def with_fields(
    options: Mapping[str, Any], groups: Mapping[str, type[ArgumentGroup]]
) -> dict[str, Any]:
    """Return a model's options with its groups written by their fields."""
    return {
        name: group_fields(name, groups[name], value) if name in groups else value
        for name, value in options.items()
    }


def with_public_names(value: Any) -> Any:
    """Return plain data with ``nets.PixelCNNNet`` in the place of ``PixelCNNNet``, at any depth."""
    if isinstance(value, list | tuple):
        return [with_public_names(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: with_public_names(item) for key, item in value.items()}
    if isinstance(found.get("class"), str):
        found["class"] = public_name(found["class"])
    return found


def public_name(name: str) -> str:
    """Return ``nets.PixelCNNNet`` for ``PixelCNNNet``."""
    if "." in name:
        return name.removeprefix("pyro_genmodels.")
    for module in (nets, transforms, models):
        if name in module.__all__:
            return f"{module.__name__.rpartition('.')[2]}.{name}"
    return name
