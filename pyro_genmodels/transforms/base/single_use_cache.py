"""The hand-over of a log-determinant from the evaluation that made it to the call that wants it.

``TransformedDistribution.log_prob`` asks for the inverse and then for the log-determinant, two
calls that share all their work. The slot lets the second call have the result of the first, once,
and only while nothing that it depends on has changed.

What can be trusted to notice a change: versions count in-place edits, but fused optimizers and
writes through NumPy or ``.data`` leave them alone. So values are compared as well. Of the two
tensors, of the context and of tensors that are plain attributes of modules, which anyone may edit
in one place, a checksum; of parameters and buffers all of a small one and some hundreds spread over
a large one, since a whole copy costs a deep flow a fifth of its step, and what leaves the versions
alone (an optimizer, an average, a copy) writes whole tensors. The comparison waits for the device;
on an accelerator it is therefore made only where user code runs between the two calls (a sample
that is scored later), not between a training step's inverse and its log-determinant, where a hook
on every optimizer takes its place.

Other attributes of the flow's modules must be the very objects that they were. What a network reads
from elsewhere is not seen: a global, an attribute of its class, what lies in a list or in another
object. Who changes such a thing between a draw and its score calls ``clear_cache``, or scores a
clone.
"""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass, replace
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_genmodels._changes import checksum, in_functorch, latest_step

_SPREAD = 256


class Dependencies(NamedTuple):
    """What the value of a transform depends on, besides its two tensors."""

    module: nn.Module
    generation: int
    context: Tensor | None = None

    def state(self) -> State:
        """Return what all sub-modules hold, shared ones repeated."""
        learned: list[Tensor | None] = []
        edited: list[Tensor] = [] if self.context is None else [self.context]
        plain: list[Any] = []
        modules: list[nn.Module | None] = [self.module]
        # By hand: nn.Module's own iterators cost a tenth of a small flow's evaluation.
        for module in modules:  # which grows meanwhile
            if module is not None:
                learned += module._parameters.values()
                learned += module._buffers.values()
                modules += module._modules.values()
                held = module.__dict__
                names = _names_of(type(module))  # type: ignore[arg-type]
                if names is not None:
                    plain += map(held.get, names)
                elif "_slot" in held:
                    plain += [value for name, value in held.items() if name not in _REMEMBERED]
                else:
                    plain += held.values()
        if any(map(_is_tensor, set(map(type, plain)))):
            edited += [value for value in plain if isinstance(value, Tensor)]
        return State([tensor for tensor in learned if tensor is not None], edited, plain)


class State(NamedTuple):
    """What modules hold: parameters and buffers, other tensors, and all attributes."""

    learned: list[Tensor]
    edited: list[Tensor]
    plain: list[Any]


# What a transform remembers of its evaluations.
_REMEMBERED = ("_inv", "_slot", "_traced", "_cached_x_y")


@functools.cache
def _names_of(kind: type[nn.Module]) -> tuple[str, ...] | None:
    """Return what a layer of torch reads besides parameters and buffers; ``None`` of others.

    Torch lists it; to go through all that a module holds would cost a small flow a twentieth.
    """
    if not kind.__module__.startswith("torch.nn.modules."):
        return None
    return ("training", *getattr(kind, "__constants__", ()))


@functools.cache
def _is_tensor(kind: type) -> bool:
    return issubclass(kind, Tensor)  # torch's own check of an instance takes ten times as long


class _Identities(list[Any]):
    """Objects that equal others if they are the same: what ``==`` says of any is for it to say."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and len(self) == len(other) and all(map(is_, self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other


def _stamp(dependencies: Dependencies, x: Tensor, y: Tensor) -> tuple[tuple[Any, ...], State]:
    """Describe the state by what can be compared without waiting; return its tensors too."""
    if in_functorch():
        return (), State([], [], [])
    switches = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    state = dependencies.state()
    state.edited.extend((x, y))
    versions = tuple((id(t), _version(t), t.requires_grad) for t in (*state.learned, *state.edited))
    modes = latest_step(), dependencies.generation, *switches, *autocast
    return (*modes, versions, _Identities(state.plain)), state


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


@torch.no_grad()
def _snapshot(state: State) -> list[Tensor]:
    """Copy what tells that values have changed, joined to one for each device and dtype."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    values = [_spread(tensor) for tensor in state.learned]
    # Of few values a copy costs less than their checksum.
    values += [checksum(t) if t.numel() > 2 * _SPREAD else _spread(t) for t in state.edited]
    for tensor in values:
        groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return [torch.cat(flats) for flats in groups.values()]


def _spread(tensor: Tensor) -> Tensor:
    """Return a view of all values of a small tensor, of some of a large one, its last with them."""
    count = tensor.numel()
    step = count // _SPREAD
    if step < 2:
        return tensor.reshape(-1)
    tensor = tensor.contiguous()
    start = tensor.storage_offset() + (count - 1) % step
    return tensor.as_strided(((count - 1) // step + 1,), (step,), start)


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
        stamp, state = _stamp(dependencies, x, y)
        if stamp != self.stamp:
            return False
        return self.snapshot is None or all(map(torch.equal, self.snapshot, _snapshot(state)))


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
        stamp, state = _stamp(dependencies, x, y)
        looks = not in_functorch() and (forward or made.device.type == "cpu")
        snapshot = _snapshot(state) if looks and made.device.type != "meta" else None
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
