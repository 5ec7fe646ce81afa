"""Models and data sources by name, read from the public lists of the package."""

from __future__ import annotations

import difflib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pyro_genmodels import data, models
from pyro_genmodels._abstract import is_abstract
from pyro_genmodels._checks import check
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels.cli.groups import with_fields
from pyro_genmodels.data import DataSource, ExactDistribution
from pyro_genmodels.models import GenerativeModel

# Only Python can give these what they are made of.
_NOT_NAMED = ("InMemory", "Sampled", "Streamed")


def model_makers() -> dict[str, Callable[..., GenerativeModel]]:
    """Return model classes and builder functions by name."""
    exported = {name: getattr(models, name) for name in models.__all__}
    return {name: maker for name, maker in exported.items() if _makes_model(maker)}


def data_makers() -> dict[str, type]:
    """Return data sources, and distributions to draw data from, by name."""
    exported = {name: getattr(data, name) for name in data.__all__ if name not in _NOT_NAMED}
    kinds = (DataSource, ExactDistribution)
    return {
        name: maker
        for name, maker in exported.items()
        if inspect.isclass(maker) and issubclass(maker, kinds) and not is_abstract(maker)
    }


def path_argument(maker: type) -> str | None:
    """Return the argument of a data source that says where its data lie, if it has one."""
    return maker.path_argument if issubclass(maker, DataSource) else None


def find(name: str, among: Mapping[str, Any], kind: str) -> str:
    """Return the exact name; case, ``-`` and ``_`` do not matter.

    Raises:
        ValueError: If there is none; the message suggests close ones.
    """
    plain = {_plain(key): key for key in among}
    if _plain(name) in plain:
        return plain[_plain(name)]
    close = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    choices = [plain[key] for key in close] or sorted(among)
    listed = ", ".join(choices)
    hint = f"did you mean {listed}?" if close else f"there are {listed}."
    raise ValueError(f"unknown {kind} '{name}': {hint}")


def is_known(name: str, among: Mapping[str, Any]) -> bool:
    """Whether :func:`find` finds the name."""
    return _plain(name) in {_plain(key) for key in among}


def preset_options(name: str, variant: str | None, *, stage: str = "model") -> dict[str, Any]:
    """Return a preset's options of a stage: settings, and sizes under ``model``.

    Args:
        name: Name of the model.
        variant: Name of the preset; ``None`` gives no options.
        stage: ``"model"``, whose shapes are the data's, or ``"prior"``, which a preset may leave
            out.

    Raises:
        ValueError: If the model has no preset of that name.
    """
    if variant is None:
        return {}
    group = models.presets().get(name, {})
    check(bool(group), "preset", f"be left out: {name} has no presets", variant)
    preset = group[find(str(variant), group, "preset")]
    found = preset if stage == "model" else preset.get("prior")
    if found is None:
        return {}
    sizes = {k: v for k, v in found["model"].items() if k not in ("event_shape", "num_levels")}
    return {**found["training"], "model": sizes}


def over(
    published: Mapping[str, Any],
    config: Mapping[str, Any],
    groups: Mapping[str, type[ArgumentGroup]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return a preset's options with a configuration's in their place, field by field of a group.

    Args:
        published: The preset's options.
        config: The configuration's.
        groups: The model's arguments that are groups.
    """
    model, own = (with_fields(each.get("model") or {}, groups) for each in (published, config))
    merged = {k: {**model[k], **own[k]} for k in groups if k in model and k in own}
    return {**published, **config, "model": {**model, **own, **merged}}


def summary(maker: Any) -> str:
    """Return the first sentence of a docstring, without reStructuredText's markup."""
    sentence = (inspect.getdoc(maker) or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r":\w+:`~?\\?([^`]*)`|``([^`]*)``", r"\1\2", sentence)


def family(maker: Callable[..., Any]) -> Any:
    """Return the model class that a class or builder function makes."""
    return maker if inspect.isclass(maker) else typing.get_type_hints(maker)["return"]


def _makes_model(maker: Any) -> bool:
    if not inspect.isclass(maker) and not inspect.isfunction(maker):
        return False
    if inspect.isfunction(maker) and "return" not in maker.__annotations__:
        return False
    made = family(maker)
    return inspect.isclass(made) and issubclass(made, GenerativeModel) and not is_abstract(made)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
