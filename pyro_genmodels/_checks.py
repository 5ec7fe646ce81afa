"""Argument checks: each failure is one ``ValueError`` that names the argument, the rule, the value.

Example:
    >>> check(30 % 4 == 0, "height", "be divisible by 4", 30)
    Traceback (most recent call last):
    ...
    ValueError: `height` must be divisible by 4; got 30.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


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
        declared: Annotations by argument, from :func:`integers_declared`.
        arguments: What was given.

    Example:
        >>> check_integers({"hidden_channels": "int"}, {"hidden_channels": 2.5})
        Traceback (most recent call last):
        ...
        ValueError: `hidden_channels` must be an integer; got 2.5.
    """
    for argument, annotation in declared.items():
        if argument in arguments:
            _check_integer(argument, set(annotation.split(" | ")), arguments[argument])


def _check_integer(argument: str, kinds: set[str], value: object) -> None:
    if (value is None and "None" in kinds) or (isinstance(value, str) and "str" in kinds):
        return
    several = "Sequence[int]" in kinds and (isinstance(value, Iterable) or "int" not in kinds)
    if several:
        # An iterator would be empty afterwards; a tensor of no dimension iterates over nothing.
        whole = isinstance(value, Iterable) and not isinstance(value, Iterator)
        sizes = value.tolist() if isinstance(value, Tensor) else value
        fits = whole and isinstance(sizes, Iterable) and all(map(is_integer, sizes))
    else:
        fits = is_integer(value)
    check(fits, argument, "be integers" if several else "be an integer", repr(value))


_INTEGRAL = {"int", "None", "str", "Sequence[int]"}


def integers_declared(annotations: Mapping[str, Any]) -> dict[str, str]:
    """Return which annotations are of integers, sequences of them, or either and something else.

    Shapes are left out: they have their own check, of which ones are possible.

    Example:
        >>> integers_declared({"width": int, "rate": float, "event_shape": "Sequence[int]"})
        {'width': 'int'}
    """
    written = {name: _as_written(annotation) for name, annotation in annotations.items()}
    return {
        name: annotation
        for name, annotation in written.items()
        if "int" in annotation
        and set(annotation.split(" | ")) <= _INTEGRAL
        and not name.endswith("shape")
        and name != "return"
    }


def _as_written(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("collections.abc.", "").replace("typing.", "")


def integers_checked(function: FunctionT) -> FunctionT:
    """Check what a function, or a method, declares as integers, before it runs.

    Example:
        >>> @integers_checked
        ... def zeros(count: int) -> list[int]:
        ...     return [0] * count
        >>> zeros("3")
        Traceback (most recent call last):
        ...
        ValueError: `count` must be an integer; got '3'.
    """
    declared = integers_declared(function.__annotations__)
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_integers(declared, {**dict(zip(names, args, strict=False)), **kwargs})
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def is_integer(value: object) -> bool:
    """Return whether a value counts or indexes things; what is true or false does not."""
    if isinstance(value, bool):
        return False
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
    integral = all(isinstance(size, int) and is_integer(size) and size > 0 for size in sizes)
    kinds = {1: "(D,)", 2: "(C, L)", 3: "(C, H, W)"}
    rule = "be positive sizes " + " or ".join(kinds.get(r, f"of rank {r}") for r in ranks)
    check(len(sizes) in tuple(ranks) and integral, argument, rule, event_shape)
    return torch.Size(sizes)


def check_trailing(argument: str, value: Tensor, event_shape: Sequence[int]) -> None:
    """Raise ``ValueError`` unless the trailing sizes of ``value`` are ``event_shape``."""
    event = tuple(event_shape)
    fits = value.dim() >= len(event) and tuple(value.shape[value.dim() - len(event) :]) == event
    check(fits, argument, f"have trailing shape {event}", f"shape {tuple(value.shape)}")


def check_levels(argument: str, value: Tensor, num_levels: int, *, missing: bool = False) -> None:
    """Raise ``ValueError`` unless ``value`` holds integers from 0 to ``num_levels - 1``.

    Args:
        argument: Name of the argument.
        value: What it is.
        num_levels: Number of levels.
        missing: Whether NaN stands for an element that was not observed.
    """
    rule = f"hold integers from 0 to {num_levels - 1}"
    if missing and value.is_floating_point():
        value = value[~value.isnan()]
    if value.numel() == 0:
        return
    low, high = value.min().item(), value.max().item()
    # A NaN fails both comparisons, so it is reported here too.
    check(low >= 0 and high <= num_levels - 1, argument, rule, f"values from {low} to {high}")
    if value.is_floating_point():
        off = value[value != value.floor()]
        check(off.numel() == 0, argument, rule, off[:1].tolist())


def check_counts(argument: str, value: Tensor, *, missing: bool = False) -> None:
    """Raise ``ValueError`` unless ``value`` holds whole numbers from zero.

    Args:
        argument: Name of the argument.
        value: What it is.
        missing: Whether NaN stands for an element that was not observed.
    """
    if value.is_floating_point():
        wrong = (value < 0) | (value != value.floor())
        wrong = wrong & ~value.isnan() if missing else wrong
    else:
        wrong = value < 0
    if bool(wrong.any()):
        check(False, argument, "hold counts, whole numbers from 0", value[wrong][:1].tolist())


def check_finite(argument: str, value: Tensor, *, missing: bool = False) -> None:
    """Raise ``ValueError`` unless every element of ``value`` is finite.

    Args:
        argument: Name of the argument.
        value: What it is.
        missing: Whether NaN stands for an element that was not observed.
    """
    wrong = value.isinf() if missing else ~torch.isfinite(value)
    if bool(wrong.any()):
        kind = "infinite" if missing else "NaN or infinite"
        check(False, argument, "be finite", f"{int(wrong.sum())} {kind} elements")


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """Return the first names, and how many there are beside them.

    Example:
        >>> listed(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_not_traced() -> None:
    """Raise ``ValueError`` inside ``torch.jit.trace``, as of Pyro's compiled estimators.

    For parts that would fail at another batch size, or forget what a training step changes.
    """
    rule = (
        "not be compiled, as JitTrace_ELBO is, for this model: torch.jit.trace would fix the batch "
        "size, or what changes in training; use Trace_ELBO, TraceMeanField_ELBO or ELBOLoss"
    )
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
    check(not tracing, "elbo", rule, "a trace by torch.jit")


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
