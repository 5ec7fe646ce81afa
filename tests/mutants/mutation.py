"""What a mutation is, and what several files of mutants share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pytest
from torch import Tensor

from pyro_genmodels import testing

Mutation = Callable[[pytest.MonkeyPatch], None]


def assert_caught(
    law: Callable[[], None],
    mutation: Mutation,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    *,
    error: type[Exception] | tuple[type[Exception], ...] = AssertionError,
) -> None:
    """The law passes, and under the mutation fails with that in its message."""
    law()
    pyro.clear_param_store()
    with monkeypatch.context() as patch:
        mutation(patch)
        with pytest.raises(error, match=message):
            law()


def is_bijection(layer: Any, x: Tensor) -> None:
    testing.check_inverse(layer, x)
    testing.check_log_det(layer, x)


def method_of(part: Any, name: str, change: Callable[..., Any]) -> Mutation:
    """Replace a method's result ``r`` by ``change(r, self, *arguments)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = getattr(part, name)

        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            return change(original(self, *arguments, **options), self, *arguments)

        patch.setattr(part, name, method)

    return mutate
