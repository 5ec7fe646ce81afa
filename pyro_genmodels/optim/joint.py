"""One torch optimizer for all parameters of a step, as a ``PyroOptim``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.optim.shared_state import (
    current_name,
    is_equal,
    load_states,
    members_of,
    move_states,
    optimizer_of,
    settings_in,
    states_of,
)


class JointOptim(PyroOptim):
    """A ``PyroOptim`` in which the parameters that first appear together share one optimizer.

    Pyro gives each parameter a torch optimizer of its own. For a small network of three hundred
    parameters that is a tenth of a step on a CPU; on a GPU it is so many times the kernel launches,
    and torch's ``foreach`` and ``fused`` implementations find a single tensor to work on. Here one
    optimizer has them all. The updates are Pyro's own: what appears later starts its count of steps
    (and its schedule) then, in an optimizer of its own, and what a step does not meet is parted
    from the rest for good and stays as it is. The state's format is Pyro's too: what a
    ``PyroOptim`` saved goes on here, and the reverse.

    It differs in three things. A state that is set reaches parameters met before as well, and one
    that is read has what was set for parameters not met yet; Pyro loses both. And a tensor among
    the arguments (a learning rate) is copied for each optimizer, so that a schedule moves each
    once; by Pyro all have one tensor, which each of them moves.

    Args:
        optim_constructor: A ``torch.optim`` optimizer, or one of Pyro's over torch
            (``pyro.optim.clipped_adam.ClippedAdam``).
        optim_args: Its arguments; or a function from a parameter's name to them.
        clip_args: ``clip_norm`` and ``clip_value`` as Pyro has them, for each parameter by itself;
            or a function from module and parameter name to them.
        max_norm: The gradient of all parameters of a step, taken as one vector, is scaled down to
            this length if it is longer (``torch.nn.utils.clip_grad_norm_``), before ``clip_args``.

    Attributes:
        optim_objs: The shared optimizers (or schedulers), each under its first parameter.

    Raises:
        ValueError: If the constructor is no torch optimizer's, but Pyro's ``Adam`` for example; if
            arguments are neither a dictionary nor a function; or if ``max_norm`` is not positive.

    Example:
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> import pyro.distributions as dist
        >>> def model():
        ...     loc = pyro.param("loc", torch.zeros(2))
        ...     scale = pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
        ...     pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=torch.ones(2))
        >>> optimizer = JointOptim(torch.optim.Adam, {"lr": 0.1}, max_norm=5.0)
        >>> _ = SVI(model, lambda: None, optimizer, Trace_ELBO()).step()
        >>> len(optimizer.optim_objs), pyro.param("loc").detach()
        (1, tensor([0.1000, 0.1000]))
        >>> pyro.clear_param_store()
    """

    def __init__(
        self,
        optim_constructor: Callable[..., Any],
        optim_args: Mapping[str, Any] | Callable[..., Mapping[str, Any]],
        clip_args: Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None = None,
        *,
        max_norm: float | None = None,
    ) -> None:
        name = type(optim_constructor).__name__
        check(callable(optim_constructor), "optim_constructor", "make an optimizer", name)
        wrapped = getattr(optim_constructor, "__name__", "")
        rule = f"be torch's optimizer, not Pyro's wrapper of it: torch.optim.{wrapped}"
        own = getattr(pyro.optim, wrapped, None) is not optim_constructor
        check(own, "optim_constructor", rule, f"pyro.optim.{wrapped}")
        for argument, value in {"optim_args": optim_args, "clip_args": clip_args or {}}.items():
            fits = callable(value) or isinstance(value, Mapping)
            check(fits, argument, "be a dictionary or a function that returns one", repr(value))
        if max_norm is not None:
            check_positive(max_norm=max_norm)
        # Pyro asks for a dict proper.
        made: Any = optim_args if callable(optim_args) else dict(optim_args)
        clips: Any = clip_args if callable(clip_args) else dict(clip_args or {})
        super().__init__(optim_constructor, made, clips)
        self.max_norm = max_norm
        # Of every parameter that has an optimizer, the arguments it was made with.
        self._arguments: dict[Tensor, Any] = {}

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """Take a step on these parameters; new ones get their optimizer first.

        Args:
            params: Unconstrained parameters, as Pyro's store has them.
            args: Handed to each optimizer's ``step``.
            kwargs: Likewise.
        """
        present = set(params)
        self._admit(present - self._arguments.keys())
        self._split(present)
        meant = [shared for first, shared in self.optim_objs.items() if first in present]
        if self.max_norm is not None:
            # Out of the optimizers: the order of a set, and so a sum's rounding, varies.
            every = [parameter for shared in meant for parameter in members_of(shared)]
            torch.nn.utils.clip_grad_norm_(every, self.max_norm)
        if self.grad_clip:
            for parameter in present & self.grad_clip.keys():
                self.grad_clip[parameter](parameter)
        for shared in meant:
            optimizer_of(shared).step(*args, **kwargs)

    def get_state(self) -> dict[str, Any]:
        """Return each parameter's optimizer state by its name in the store, in Pyro's format."""
        # What was set and not met yet is no less part of it.
        states = dict(self._state_waiting_to_be_consumed)
        for shared in self.optim_objs.values():
            for parameter, state in states_of(shared).items():
                name = current_name(parameter)
                if name is not None:
                    states[name] = state
        return states

    def set_state(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what ``get_state`` returned, here or in another ``PyroOptim``.

        Parameters that were not met yet take up their state when they are.

        Args:
            state_dict: State by parameter name.

        Raises:
            ValueError: If it is of an optimizer with a schedule and this has none, or the reverse.
        """
        scheduled = isinstance(self, PyroLRScheduler)
        rule = f"be of an optimizer {'with' if scheduled else 'without'} a schedule"
        for name, state in state_dict.items():
            check(("scheduler" in state) == scheduled, "state_dict", rule, f"another for '{name}'")
        waiting = dict(state_dict)
        for first, shared in list(self.optim_objs.items()):
            states = states_of(shared)
            names = {parameter: current_name(parameter) for parameter in states}
            given = {p: waiting.pop(name) for p, name in names.items() if name in waiting}
            if given:
                states |= given
                parted = self._shared((p, self._arguments[p], s) for p, s in states.items())
                del self.optim_objs[first]
                self.optim_objs.update(parted)
        self._state_waiting_to_be_consumed.update(waiting)

    def _admit(self, new: set[Tensor]) -> None:
        if not new:
            return
        store, entries = pyro.get_param_store(), []
        for parameter in sorted(new, key=lambda p: store.param_name(p) or ""):
            state = self._state_waiting_to_be_consumed.get(store.param_name(parameter))
            entries.append((parameter, self._get_optim_args(parameter), state))
            clip = self._get_grad_clip(parameter)  # type: ignore[arg-type]  # Pyro's means a tensor
            if clip is not None:
                self.grad_clip[parameter] = clip
        self.optim_objs.update(self._shared(entries))
        for parameter, arguments, _ in entries:
            self._arguments[parameter] = arguments
            self._state_waiting_to_be_consumed.pop(store.param_name(parameter), None)

    def _shared(self, entries: Iterable[tuple[Tensor, Any, Any]]) -> dict[Tensor, Any]:
        """Make an optimizer for all parameters of the same arguments, and states' settings."""
        groups: list[tuple[Any, list[Tensor], list[Any]]] = []
        for parameter, arguments, state in entries:
            settings = arguments, settings_in(state)
            # Not a dictionary of groups: settings hold lists and tensors, which cannot be its keys.
            group = next((group for group in groups if is_equal(group[0], settings)), None)
            if group is None:
                groups.append(group := (settings, [], []))
            group[1].append(parameter)
            group[2].append(state)
        made = {}
        for (arguments, _), members, states in groups:
            made[members[0]] = self._make(members, arguments)
            if states[0] is not None:
                load_states(made[members[0]], states)
        return made

    def _split(self, present: set[Tensor]) -> None:
        """Part what is here from what is not, or that one's moments and decay would go on too."""
        for first, shared in list(self.optim_objs.items()):
            here = [parameter for parameter in members_of(shared) if parameter in present]
            away = [parameter for parameter in members_of(shared) if parameter not in present]
            if here and away:
                # The old one stays with the absent: a schedule warns of optimizers without a step.
                parted = self._make(here, self._arguments[here[0]])
                move_states(here, shared, parted)
                del self.optim_objs[first]
                self.optim_objs |= {here[0]: parted, away[0]: shared}

    def _make(self, members: list[Tensor], arguments: Mapping[str, Any]) -> Any:
        copied = {k: v.clone() if isinstance(v, Tensor) else v for k, v in arguments.items()}
        make: Any = self.pt_optim_constructor
        return make(members, **copied)


class JointLRScheduler(PyroLRScheduler, JointOptim):  # type: ignore[misc]  # narrower in Pyro
    """A ``PyroLRScheduler`` in which parameters that first appear together share one optimizer.

    Pyro's scheduler over :class:`JointOptim`: ``step()``, called by hand once an epoch or however
    long the schedule's unit is, moves every optimizer's learning rate.

    Args:
        scheduler_constructor: A class of ``torch.optim.lr_scheduler``.
        optim_args: Its arguments, and ``"optimizer"``, a ``torch.optim`` optimizer, with its
            ``"optim_args"``, a dictionary or a function from a parameter's name to one.
        clip_args: As in :class:`JointOptim`.
        max_norm: As in :class:`JointOptim`.

    Raises:
        ValueError: If ``optim_args`` lacks the optimizer or its arguments, or as by
            :class:`JointOptim`.

    Example:
        >>> from torch.optim.lr_scheduler import CosineAnnealingLR
        >>> inner = {"optimizer": torch.optim.Adamax, "optim_args": {"lr": 1e-2}}
        >>> scheduler = JointLRScheduler(CosineAnnealingLR, {**inner, "T_max": 100})
        >>> scheduler([torch.zeros(3, requires_grad=True)])  # as SVI calls it, once a step
        >>> for _ in range(50):
        ...     scheduler.step()
        >>> [round(s.get_last_lr()[0], 6) for s in scheduler.optim_objs.values()]
        [0.005]
    """

    def __init__(
        self,
        scheduler_constructor: Callable[..., Any],
        optim_args: Mapping[str, Any],
        clip_args: Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None = None,
        *,
        max_norm: float | None = None,
    ) -> None:
        name = type(scheduler_constructor).__name__
        check(callable(scheduler_constructor), "scheduler_constructor", "make a scheduler", name)
        needed = {"optimizer", "optim_args"}
        fits = isinstance(optim_args, Mapping) and needed <= optim_args.keys()
        check(fits, "optim_args", "have the keys 'optimizer' and 'optim_args'", repr(optim_args))
        if max_norm is not None:
            check_positive(max_norm=max_norm)
        # A copy, since Pyro takes the two keys out of what it is given.
        clips: Any = clip_args
        super().__init__(scheduler_constructor, dict(optim_args), clips)
        self.max_norm = max_norm

    def _make(self, members: list[Tensor], arguments: Mapping[str, Any]) -> Any:
        return self.pt_scheduler_constructor(super()._make(members, arguments), **self.kwargs)
