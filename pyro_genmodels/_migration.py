"""Files of older versions: what has changed since they were written, one function per change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Change: TypeAlias = Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]

FORMAT = 2
"""Format of checkpoints, configurations and codes that this version writes."""


def _unbounded_glow(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Say of a Glow that its amplification has no bound, as it had none.

    Of a configuration's model, only if all options are in it, as in a run's folder: what a user
    writes names no format and means the defaults of today.
    """
    old = name in ("transforms.Glow", "transforms.ConditionalGlow")
    old = old or (name == "models.glow" and {"log_scale_factor", "condition"} <= arguments.keys())
    return name, {"max_amplification": None, **arguments} if old else arguments


CHANGES: dict[int, tuple[Change, ...]] = {1: (_unbounded_glow,)}
"""Changes from a format to the next: ``{1: (renamed_layers, ...)}`` leads from format 1 to 2.

A change takes a class or builder by its public name (``"models.VAE"``) with its arguments, and
returns both as they are now. It leaves alone what is of the new format already: configurations
that a user writes name no format.
"""


def migrated(description: Any, written: int) -> Any:
    """Return nested ``{"class": name, "arguments": {...}}`` as this version writes them.

    Args:
        description: Plain data with descriptions at any depth.
        written: The format that they were written in.

    Returns:
        The same object if nothing has changed since.
    """
    changes = [change for number in range(written, FORMAT) for change in CHANGES.get(number, ())]
    found = _walk(description, changes)
    return description if found == description else found


def _walk(value: Any, changes: list[Change]) -> Any:
    if isinstance(value, list | tuple):
        return [_walk(item, changes) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _walk(item, changes) for key, item in value.items()}
    arguments = found.get("arguments") or {}
    # Whatever else is there is for who builds it to name.
    if isinstance(found.get("class"), str) and isinstance(arguments, Mapping):
        name, arguments = found["class"], dict(arguments)
        for change in changes:
            name, arguments = change(name, arguments)
        found |= {"class": name, "arguments": arguments}
    return found


def migrated_options(config: Mapping[str, Any], maker: str | None) -> dict[str, Any]:
    """Return a command line's configuration, a YAML mapping, as this version writes it.

    Args:
        config: The options. ``format`` is 1 where it is missing.
        maker: Public name of what ``config["model"]`` are the arguments of, if it is known.

    Raises:
        ValueError: If it is of a newer format.
    """
    options = dict(config)
    written = options.pop("format", 1)
    if not isinstance(written, int) or written > FORMAT:
        raise ValueError(f"`format` must be {FORMAT} or older; got {written!r}.")
    for key, name in (("model", maker), ("data", f"data.{options.get('source')}")):
        if options.get(key):
            described = {"class": str(name), "arguments": options[key]}
            options[key] = migrated(described, written)["arguments"]
    return options
