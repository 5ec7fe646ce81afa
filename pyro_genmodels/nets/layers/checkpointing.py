"""Evaluation that keeps no activations: each backward pass evaluates once more.

A repetition is the first evaluation over again, in the modes and with the buffers of that time,
and leaves no trace: running statistics move once for each batch, not twice. So the gradients are
those of an evaluation that keeps its activations, also after a change of mode, in a second backward
pass (``retain_graph=True``) and in a gradient of a gradient (``create_graph=True``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ResultT = TypeVar("ResultT")


def checkpointed(function: Callable[..., ResultT], *arguments: Tensor | None) -> ResultT:
    """Call a module, or a method of one, and keep its arguments only.

    Random numbers are preserved for the dropout of the module; it must draw no others.

    Args:
        function: The module, or its bound method.
        arguments: Its tensors.

    Returns:
        The result.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    part = function if isinstance(function, nn.Module) else function.__self__  # type: ignore[attr-defined]
    first = _FirstEvaluation(part)
    return checkpoint(
        function,
        *arguments,
        use_reentrant=False,
        # Only dropout draws numbers; to save and restore the generator costs as much as a layer.
        preserve_rng_state=first.drops,
        determinism_check="none",
        context_fn=first.contexts,
    )


class _FirstEvaluation:
    """What a repetition needs of the first evaluation: modes, parameters and buffers."""

    def __init__(self, part: nn.Module) -> None:
        self._name = type(part).__name__
        self._modes = [(module, module.training) for module in _modules(part)]
        self._parameters = _entries(module._parameters for module, _ in self._modes)
        # Those of modules in eval mode stay; flags, as that of first values, are set for good.
        buffers = _entries(module._buffers for module, training in self._modes if training)
        self._buffers = [(of, n, b.clone()) for of, n, b in buffers if b.dtype != torch.bool]
        self._versions: list[int] = []

    @property
    def drops(self) -> bool:
        """Whether some unit may be dropped."""
        dropout = nn.modules.dropout._DropoutNd
        return any(on and isinstance(m, dropout) and m.p > 0 for m, on in self._modes)

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return what surrounds the first evaluation, and each repetition."""
        return self._noting_versions(), _EachTime(self._restored)

    @contextmanager
    def _noting_versions(self) -> Iterator[None]:
        yield
        self._versions = self._current_versions()  # after first values have been set

    def _current_versions(self) -> list[int]:
        return [parameter._version for _, _, parameter in self._parameters]

    @contextmanager
    def _restored(self) -> Iterator[None]:
        if self._versions != self._current_versions():
            # As torch says of what it has kept, rather than gradients at other parameters.
            raise RuntimeError(
                f"parameters of {self._name} have been modified by an inplace operation, such as "
                "an optimizer's step, between a loss and its backward pass"
            )
        modes = [(module, module.training) for module, _ in self._modes]
        # Parameters too: `torch.func.functional_call` puts others in their place for a while.
        first = self._parameters + [(of, name, b.clone()) for of, name, b in self._buffers]
        present = [(of, name, of[name]) for of, name, _ in first]
        try:
            _set_modes(self._modes)
            _put(first)
            yield
        finally:
            _set_modes(modes)
            _put(present)


def _modules(part: nn.Module) -> list[nn.Module]:
    # By hand: nn.Module's own iterator takes a quarter of the time of all that is noted here.
    modules, found = [part], {part}
    for module in modules:  # which grows meanwhile
        new = [m for m in module._modules.values() if m is not None and m not in found]
        found.update(new)
        modules += new
    return modules


_Entry: TypeAlias = "tuple[dict[str, Any], str, Any]"


def _entries(owners: Iterable[dict[str, Any]]) -> list[_Entry]:
    return [
        (of, name, tensor) for of in owners for name, tensor in of.items() if tensor is not None
    ]


def _put(entries: list[_Entry]) -> None:
    for of, name, tensor in entries:
        of[name] = tensor


def _set_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        if module.training != training:
            module.training = training  # not by `train`, by which flows drop what they hold


class _EachTime(AbstractContextManager[None]):
    """Makes a new context manager each time it is entered; those of functions serve once only."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        manager = self._make()
        manager.__enter__()
        self._entered.append(manager)

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)
