"""torch's side of a transform: calls, shapes, the inverse, and the slot between them."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn
from torch.distributions import Transform
from torch.distributions.transforms import _InverseTransform

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._changes import in_functorch
from pyro_genmodels._checks import check
from pyro_genmodels.transforms.base.single_use_cache import Dependencies, Slot

_Evaluated: TypeAlias = "tuple[Tensor, Tensor]"

_ORDINARY = 40.0
"""Noise of every base here stays below it; if such a value overflows, it is not the value's fault.
"""


@runtime_checkable
class _Flow(Protocol):
    """The module behind a transform: what ``HandOver`` calls of a ``FlowTransform``."""

    maps_everything: bool
    _generation: int

    def check_event(self, argument: str, tensor: Tensor) -> None: ...

    def check_has_seen_data(self) -> None: ...

    def broadcast_shape(self, shape: torch.Size, context: Tensor | None) -> torch.Size: ...

    def forward_and_log_det(self, x: Tensor, context: Tensor | None = None) -> _Evaluated: ...

    def inverse_and_log_det(self, y: Tensor, context: Tensor | None = None) -> _Evaluated: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


class _Inverse(_InverseTransform):
    """torch's inverse, except that copies and pickles of it keep the transform it inverts."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def clear_cache(self) -> None:
        cast(HandOver, self.inv).clear_cache()


class HandOver(Transform, Abstract):
    """torch's side of a transform: calls, shapes and the slot between them."""

    bijective = True

    def __init__(self) -> None:
        super().__init__()
        self._slot: Slot | None = None
        self._traced: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    @abstractmethod
    def _flow(self) -> _Flow:
        """The module that has the parameters and the maths."""

    @property
    def _context(self) -> Tensor | None:
        return None

    @abstractmethod
    def clear_cache(self) -> None:
        """Drop pending evaluations."""

    def _run(self, tensor: Tensor, *, forward: bool) -> tuple[Tensor, Tensor]:
        flow, context = self._flow, self._context
        flow.check_event("x" if forward else "y", tensor)
        if forward:
            flow.check_has_seen_data()
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()  # log-determinants add up many small terms
        self.forward_shape(tensor.shape) if forward else self.inverse_shape(tensor.shape)
        shape = flow.broadcast_shape(torch.Size(tensor.shape), context)
        tensor = tensor if tensor.shape == shape else tensor.expand(shape)
        evaluate = flow.forward_and_log_det if forward else flow.inverse_and_log_det
        result, log_det = evaluate(tensor, context)
        if flow.maps_everything and _validates(result):
            _check_finite(flow, tensor, result, log_det, forward=forward)
        return result, log_det

    __hash__ = object.__hash__

    def _dependencies(self) -> Dependencies:
        flow = self._flow
        return Dependencies(cast(nn.Module, flow), flow._generation, self._context)

    def _hold(self, x: Tensor, y: Tensor, log_det: Tensor, *, forward: bool) -> None:
        if torch.compiler.is_compiling():
            # The forward pass hands nothing over here: what nobody takes becomes a graph output.
            self._traced = None if forward else (x, y, log_det)
            return
        if self._slot is None:
            self._slot = Slot()
        self._slot.put(x, y, log_det, self._dependencies(), forward=forward)

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self._run(x, forward=True)
        self._hold(x, y, log_det, forward=True)
        return y

    def __call__(self, x: Tensor) -> Tensor:
        """Return the data that the noise ``x`` becomes."""
        y = self._made_from(x)
        return self._call(x) if y is None else y

    def _made_from(self, x: Tensor) -> Tensor | None:
        """Return the data that the inverse has just made ``x`` from, if it has."""
        if torch.compiler.is_compiling() or self._slot is None:
            return None
        return self._slot.take_output(x, self._dependencies())

    def _inverse(self, y: Tensor) -> Tensor:
        x, log_det = self._run(y, forward=False)
        self._hold(x, y, -log_det, forward=False)
        return x

    def _inv_call(self, y: Tensor) -> Tensor:
        # Compilation is asked first: a compiled graph must not depend on what the slot holds.
        if not torch.compiler.is_compiling() and self._slot is not None:
            x = self._slot.take_input(y, self._dependencies())
            if x is not None:
                return x
        return self._inverse(y)

    def undo(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of the data ``y`` and ``log |dy/dx|`` at once.

        What :meth:`inv` and then :meth:`log_abs_det_jacobian` return, without the slot between
        them, which costs a small flow a tenth of its training step.
        """
        if self._slot is not None and self._slot.has(y):
            x = cast(Tensor, self.inv(y))
            return x, self.log_abs_det_jacobian(x, y)
        x, log_det = self._run(y, forward=False)
        return x, -log_det

    def redo(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the data of the noise ``x`` and ``log |dy/dx|`` at once, as :meth:`undo` does."""
        if self._slot is not None and self._slot.has(x):
            y = self(x)
            return y, self.log_abs_det_jacobian(x, y)
        return self._run(x, forward=True)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``log |dy/dx|`` of shape ``(*batch,)``.

        The first call after an evaluation of this very pair takes its log-determinant over; any
        other call evaluates the transform at ``x``.
        """
        held = self._take_log_det(x, y)
        return self._run(x, forward=True)[1] if held is None else held

    def _take_log_det(self, x: Tensor, y: Tensor) -> Tensor | None:
        if torch.compiler.is_compiling():
            traced, self._traced = self._traced, None
            return traced[2] if traced and traced[0] is x and traced[1] is y else None
        return None if self._slot is None else self._slot.take_log_det(x, y, self._dependencies())

    @property
    def inv(self) -> Transform:
        """The inverse transform; ``t.inv.inv is t``."""
        if self._inv is None:
            self._inv = _Inverse(self)
        return self._inv

    def with_cache(self, cache_size: int = 1) -> Any:
        """Return this transform, or one sharing its parameters, with that ``cache_size``.

        The size is torch's protocol and changes nothing: what a cache would serve again after a
        parameter has moved cannot be told from what is still right at the price of a cache, so
        an evaluation is handed over once, whatever the size.
        """
        check(cache_size in (0, 1), "cache_size", "be 0 or 1", cache_size)
        if cache_size == self._cache_size:
            return self
        other = copy.copy(self)
        other._cache_size = cache_size
        return other

    def forward_shape(self, shape: Any) -> torch.Size:
        """Return the shape of the output: the batch shape broadcasts with the context's."""
        return self._flow.broadcast_shape(torch.Size(shape), self._context)

    def inverse_shape(self, shape: Any) -> torch.Size:
        """Return the shape of the input: events keep their size."""
        return self.forward_shape(shape)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along: no pending evaluation, no inverse."""
        state = self.__dict__.copy()
        state.update(_inv=None, _slot=None, _traced=None)
        return state


def _validates(tensor: Tensor) -> bool:
    """Whether values are to be looked at, and can be."""
    if torch.compiler.is_compiling() or tensor.device.type == "meta" or in_functorch():
        return False
    # Pyro's switch, not torch's, which other libraries turn off as they are imported.
    return bool(is_validation_enabled())


def _check_finite(
    flow: _Flow, given: Tensor, result: Tensor, log_det: Tensor, *, forward: bool
) -> None:
    """Raise ``ValueError`` if an overflow would go on as NaN, or as a density of zero."""
    given, result, log_det = given.detach(), result.detach(), log_det.detach()
    # One number for all is quick, and mostly settles it; only if not, each event is looked at.
    sizes = [torch.linalg.vector_norm(t) for t in (result, log_det)]
    if bool(torch.isfinite(sizes[0] + sizes[1])):
        return
    image = result.reshape(*log_det.shape, -1)
    if not forward:
        # The squares' sum: that of noise is its Gaussian log-density, which overflows before noise.
        image = torch.linalg.vector_norm(image, dim=-1, keepdim=True)
    bad = ~(image.isfinite().all(-1) & log_det.isfinite())
    if not bool(bad.any()):
        return
    largest = float(given.reshape(*bad.shape, -1)[bad].abs().max())
    fault = f"{int(bad.sum())} of {bad.numel()} {'draws' if forward else 'events'}"
    rule = f"a finite image and log-determinant in {result.dtype}"
    if not largest <= _ORDINARY:
        argument = "x" if forward else "y"
        rule = f"have {rule}, as what is trained on has"
        check(False, argument, rule, f"values up to {largest:.3g} in {fault}")
    broken = [name for name, tensor in flow.named_parameters() if not tensor.isfinite().all()]
    check(not broken, "transform", "have finite parameters", ", ".join(broken[:3]))
    problem = f"none for {fault}, of values up to {largest:.3g}, in {type(flow).__name__}"
    check(False, "transform", f"give ordinary values {rule}", problem)
