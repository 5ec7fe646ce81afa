"""Argument checks: each failure is one ``ValueError`` that names the argument, the rule, the value.

Example:
    >>> check(30 % 4 == 0, "height", "be divisible by 4", 30)
    Traceback (most recent call last):
    ...
    ValueError: `height` must be divisible by 4; got 30.
"""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def check(holds: bool, argument: str, rule: str, value: object) -> None:
    """Raise ``ValueError`` unless ``holds``.

    Args:
        holds: Whether the rule is kept.
        argument: Name of the argument as the caller wrote it.
        rule: What it must do, continuing "must ...".
        value: What it was.

    Raises:
        ValueError: If the rule is broken.
    """
    if not holds:
        raise ValueError(f"`{argument}` must {rule}; got {value}.")


def check_choice(argument: str, value: Any, choices: Collection[Any]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    check(value in choices, argument, f"be one of {', '.join(map(repr, choices))}", repr(value))


def check_positive(**values: float) -> None:
    """Raise ``ValueError`` unless every keyword is a positive finite number.

    Example:
        >>> check_positive(hidden_channels=0)
        Traceback (most recent call last):
        ...
        ValueError: `hidden_channels` must be positive; got 0.
    """
    for argument, value in values.items():
        check(value > 0 and math.isfinite(value), argument, "be positive", value)


def check_integers(declared: Mapping[str, str], arguments: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless what is declared as integers is: far inside, nothing says so.

    Args:
        declared: Annotations by argument, such as ``"int | None"``; others than of integers and
            sequences of them are left alone.
        arguments: What was given.

    Example:
        >>> check_integers({"hidden_channels": "int"}, {"hidden_channels": 2.5})
        Traceback (most recent call last):
        ...
        ValueError: `hidden_channels` must be an integer; got 2.5.
    """
    for argument, annotation in declared.items():
        kinds = set(annotation.split(" | "))
        if argument in arguments and "int" in annotation and kinds <= _INTEGRAL:
            value = arguments[argument]
            several = "Sequence[int]" in kinds and isinstance(value, Iterable)
            fits = all(map(_is_integer, value)) if several else _is_integer(value)
            rule = "be integers" if several else "be an integer"
            check(fits or (value is None and "None" in kinds), argument, rule, value)


_INTEGRAL = {"int", "None", "Sequence[int]"}


def _is_integer(value: object) -> bool:
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def as_shape(size: int | Sequence[int]) -> Sequence[int]:
    """Return the sizes of an event; one number is the length of a vector."""
    return (size,) if isinstance(size, int) else size


def check_event_shape(
    event_shape: object, *, ranks: Iterable[int] = (1, 3), argument: str = "event_shape"
) -> torch.Size:
    """Return ``event_shape`` as a ``torch.Size`` if its rank and its sizes are possible.

    Raises:
        ValueError: If the rank is not in ``ranks`` or a size is not a positive integer.
    """
    # A string is a sequence too: "123" would otherwise become (1, 2, 3).
    is_shape = isinstance(event_shape, Iterable) and not isinstance(event_shape, str)
    sizes: tuple[Any, ...] = tuple(event_shape) if is_shape else ()  # type: ignore[arg-type]
    integral = all(isinstance(size, int) and size > 0 for size in sizes)
    kinds = {1: "(D,)", 2: "(C, L)", 3: "(C, H, W)"}
    rule = "be positive sizes " + " or ".join(kinds.get(r, f"of rank {r}") for r in ranks)
    check(len(sizes) in tuple(ranks) and integral, argument, rule, event_shape)
    return torch.Size(sizes)


def check_trailing(argument: str, value: Tensor, event_shape: Sequence[int]) -> None:
    """Raise ``ValueError`` unless the trailing sizes of ``value`` are ``event_shape``."""
    event = tuple(event_shape)
    fits = value.dim() >= len(event) and tuple(value.shape[value.dim() - len(event) :]) == event
    check(fits, argument, f"have trailing shape {event}", f"shape {tuple(value.shape)}")


def check_levels(argument: str, value: Tensor, num_levels: int) -> None:
    """Raise ``ValueError`` unless ``value`` holds integers from 0 to ``num_levels - 1``."""
    rule = f"hold integers from 0 to {num_levels - 1}"
    if value.numel() == 0:
        return
    low, high = value.min().item(), value.max().item()
    # A NaN fails both comparisons, so it is reported here too.
    check(low >= 0 and high <= num_levels - 1, argument, rule, f"values from {low} to {high}")
    if value.is_floating_point():
        off = value[value != value.floor()]
        check(off.numel() == 0, argument, rule, off[:1].tolist())


def check_finite(argument: str, value: Tensor) -> None:
    """Raise ``ValueError`` unless every element of ``value`` is finite."""
    count = int((~torch.isfinite(value)).sum())
    check(count == 0, argument, "be finite", f"{count} NaN or infinite elements")


def require(module: str, *, extra: str) -> Any:
    """Import an optional dependency, or say which extra brings it.

    Args:
        module: Dotted module name.
        extra: Extra of this package that installs it.

    Raises:
        ImportError: If it is not installed; the message has the install command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # installed, but broken inside: its own error says more
        raise ImportError(
            f"{package} is not installed; it comes with: pip install 'pyro-genmodels[{extra}]'"
        ) from error
