"""Arguments of models by name alone, for tests that vary one at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from pyro_genmodels._configuration import argument_groups


def grouped(maker: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's options, those that are fields of a group of arguments in that group."""
    own = inspect.signature(maker).parameters
    found = {k: v for k, v in options.items() if k in own}
    rest = {k: v for k, v in options.items() if k not in own}
    for argument, group in argument_groups(maker).items():
        given = {each.name: rest.pop(each.name) for each in fields(group) if each.name in rest}
        if given:
            before = group.of(found.get(argument)).current_arguments()
            found[argument] = group(**{**before, **given})
    return {**found, **rest}  # what is left is for the model to refuse
