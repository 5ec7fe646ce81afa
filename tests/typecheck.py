"""The run-time type checker of the tests: beartype, reading annotations as mypy does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

# An int where a float is annotated is right by PEP 484; beartype alone would refuse it.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))

_jaxtyped = jaxtyping.jaxtyped
_SHAPED = ("Float[", "Int[", "Bool[", "Num[")


def jaxtyped(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """Decorate as ``jaxtyping.jaxtyped`` does, at less cost: it doubled the time of the tests.

    Axes are bound anew by each call of a function whose annotations name any, over its arguments
    and its result. jaxtyping's own decorator also binds the signature, at each call of every
    function, and checks the arguments twice, for a longer message.
    """

    def decorate(part: Any) -> Any:
        hints = getattr(part, "__annotations__", {}).values()
        known = _known(hints, part.__globals__) if inspect.isfunction(part) else None
        text = " ".join(map(str, known or ()))  # an alias says by its value what it names
        # A size may be an argument's, a name may be imported for mypy only: jaxtyping knows both.
        if known is None or "{" in text:
            return _jaxtyped(typechecker=typechecker)(part)
        try:
            checks = typechecker(part)
        except AttributeError:  # beartype's own, of an alias that names itself
            return _jaxtyped(typechecker=typechecker)(part)
        return _binding_axes(checks) if any(kind in text for kind in _SHAPED) else checks

    return decorate


def _known(hints: Iterable[Any], names: dict[str, Any]) -> list[Any] | None:
    try:
        return [eval(hint, names) if isinstance(hint, str) else hint for hint in hints]
    except Exception:  # of a name, or of a shape given as `...`, which jaxtyping leaves unchecked
        return None


def _binding_axes(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def bound(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with _jaxtyped("context"):
            return function(*args, **kwargs)

    return bound


def install() -> None:
    """Check the package's functions as they are called; it must not have been imported yet."""
    jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]  # the decorator that the hook adds
    jaxtyping.install_import_hook("pyro_genmodels", "tests.typecheck.checked")
