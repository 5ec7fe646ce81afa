"""The hand-over of a log-determinant from the evaluation that made it to the call that wants it.

``TransformedDistribution.log_prob`` asks for the inverse and then for the log-determinant, two
calls that share all their work. The slot lets the second call have the result of the first, once,
and only while nothing that it depends on has changed.

What can be trusted to notice a change: versions count in-place edits, but fused optimizers and
writes through ``.data`` leave them alone. So values of every parameter, buffer and of the two
tensors are compared as well: all of a small tensor, some hundreds spread over a large one, since a
whole copy costs a deep flow a fifth of its step, and what leaves the versions alone (an optimizer,
an average, a copy) writes whole tensors. The comparison waits for the device; on an accelerator
it is therefore made only where user code runs between the two calls (a sample that is scored
later), not between a training step's inverse and its log-determinant, where a hook on every
optimizer takes its place.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_genmodels._optimizer_steps import latest_step

_SPREAD = 256


class Dependencies(NamedTuple):
    """What the value of a transform depends on, besides its two tensors."""

    module: nn.Module
    generation: int
    context: Tensor | None = None

    def state(self) -> tuple[tuple[bool, ...], list[Tensor]]:
        """Return the training flags and the tensors of all sub-modules, shared ones repeated."""
        training: list[bool] = []
        tensors: list[Tensor | None] = [self.context]
        modules: list[nn.Module | None] = [self.module]
        # By hand: nn.Module's own iterators cost a tenth of a small flow's evaluation.
        for module in modules:  # which grows meanwhile
            if module is not None:
                training.append(module.training)
                tensors += module._parameters.values()
                tensors += module._buffers.values()
                modules += module._modules.values()
        return tuple(training), [tensor for tensor in tensors if tensor is not None]


def in_functorch() -> bool:
    """Whether a ``torch.func`` transform is active, in which values cannot be looked at."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _stamp(
    dependencies: Dependencies, x: Tensor, y: Tensor
) -> tuple[tuple[Any, ...], list[Tensor]]:
    """Describe the state by what can be compared without waiting; return its tensors too."""
    if in_functorch():
        return (), []
    switches = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    training, tensors = dependencies.state()
    tensors += [x, y]
    versions = tuple((id(t), _version(t), t.requires_grad) for t in tensors)
    modes = latest_step(), dependencies.generation, *switches, *autocast
    return (*modes, training, versions), tensors


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _snapshot(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Copy values spread over the tensors, joined to one for each device and dtype."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(_spread(tensor))
    return [torch.cat(flats) for flats in groups.values()]


def _spread(tensor: Tensor) -> Tensor:
    """Return a view of all values of a small tensor, of some of a large one, its last with them."""
    flat, count = tensor.detach().reshape(-1), tensor.numel()
    step = count // _SPREAD
    if step < 2:
        return flat
    start = flat.storage_offset() + (count - 1) % step
    return flat.as_strided(((count - 1) // step + 1,), (flat.stride(0) * step,), start)


@dataclass(eq=False)
class _Entry:
    """One evaluation; the tensor that it made is held weakly, the one it was given strongly."""

    given: Tensor
    made: weakref.ref[Tensor]
    log_det: Tensor
    forward: bool
    stamp: tuple[Any, ...]
    snapshot: list[Tensor] | None
    is_handed_out: bool = False

    def fits(self, x: Tensor, y: Tensor, dependencies: Dependencies) -> bool:
        given, made = (x, y) if self.forward else (y, x)
        if self.given is not given or self.made() is not made:
            return False
        stamp, tensors = _stamp(dependencies, x, y)
        if stamp != self.stamp:
            return False
        return self.snapshot is None or all(map(torch.equal, self.snapshot, _snapshot(tensors)))


class Slot:
    """Holds the latest evaluation while the tensor that it made is alive."""

    def __init__(self) -> None:
        self._entry: _Entry | None = None

    def drop(self) -> None:
        """Forget the evaluation."""
        self._entry = None

    def put(
        self, x: Tensor, y: Tensor, log_det: Tensor, dependencies: Dependencies, *, forward: bool
    ) -> None:
        """Remember a pair and the log-determinant of the map from ``x`` to ``y``.

        Args:
            x: Input of the map.
            y: Its output.
            log_det: Their log-determinant.
            dependencies: What else the values depend on.
            forward: Whether ``y`` was made from ``x``, rather than ``x`` from ``y``.
        """
        self.drop()
        given, made = (x, y) if forward else (y, x)
        # An edit of a sample made in inference mode leaves no version behind.
        if made is given or (forward and made.is_inference()):
            return
        stamp, tensors = _stamp(dependencies, x, y)
        looks = not in_functorch() and (forward or made.device.type == "cpu")
        snapshot = _snapshot(tensors) if looks and made.device.type != "meta" else None
        self._entry = _Entry(given, self._weak(made), log_det, forward, stamp, snapshot)

    def _weak(self, tensor: Tensor) -> weakref.ref[Tensor]:
        # Neither the tensor nor this slot may be kept alive by the callback.
        owner = weakref.ref(self)

        def tensor_died(reference: weakref.ref[Tensor]) -> None:
            slot = owner()
            if slot is not None and slot._entry is not None and slot._entry.made is reference:
                slot.drop()

        return weakref.ref(tensor, tensor_died)

    def has(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` went into the evaluation that is held, or came out of it."""
        entry = self._entry
        return entry is not None and (entry.given is tensor or entry.made() is tensor)

    def take_input(self, y: Tensor, dependencies: Dependencies) -> Tensor | None:
        """Return the x from which ``y`` was made, once; its log-determinant stays to be taken."""
        entry = self._entry
        if entry is None or not entry.forward or entry.is_handed_out:
            return None
        return self._hand_out(entry) if entry.fits(entry.given, y, dependencies) else None

    def take_output(self, x: Tensor, dependencies: Dependencies) -> Tensor | None:
        """Return the y from which ``x`` was made, for the density of a draw by the inverse."""
        entry = self._entry
        if entry is None or entry.forward or entry.is_handed_out:
            return None
        if entry.snapshot is None:
            return None  # without values to compare, an edit would go unnoticed
        return self._hand_out(entry) if entry.fits(x, entry.given, dependencies) else None

    def _hand_out(self, entry: _Entry) -> Tensor:
        # The log-determinant is asked for next; on an accelerator a look would wait again.
        snapshot = entry.snapshot if entry.given.device.type == "cpu" else None
        self._entry = replace(entry, snapshot=snapshot, is_handed_out=True)
        return entry.given

    def take_log_det(self, x: Tensor, y: Tensor, dependencies: Dependencies) -> Tensor | None:
        """Return the log-determinant of the pair, once."""
        entry, self._entry = self._entry, None
        return entry.log_det if entry is not None and entry.fits(x, y, dependencies) else None
