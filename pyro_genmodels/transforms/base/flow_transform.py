"""The base of every transform: subclasses write pure maths, the base does the rest.

Forward goes from noise to data, as Pyro's ``TransformedDistribution`` has it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, cast

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from pyro_genmodels._batching import broadcast_shapes
from pyro_genmodels._checks import check, check_trailing
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers import (
    FirstData,
    FullPrecisionWeights,
    awaits_data,
    check_finite_context,
    context_event_dim,
)
from pyro_genmodels.transforms.base.event_types import Context, Event, Mapped
from pyro_genmodels.transforms.base.torch_protocol import HandOver


class FlowTransform(Configured, HandOver, FullPrecisionWeights, TransformModule):
    r"""Invertible map from noise to data with the log-determinant of its Jacobian.

    A subclass writes two pure functions, :meth:`forward_and_log_det` and
    :meth:`inverse_and_log_det`, for inputs of any batch shape and an optional context whose batch
    shape is broadcastable to theirs. Flows compose these functions of their parts.

    One evaluation serves an inverse and its log-determinant, and also a sample and its density.
    Scoring a sample that this transform has just made gives the noise that it was made from, so
    no gradient flows from the density to that sample; score ``sample.clone()`` if you want one.
    An edit of the sample is noticed, through NumPy and ``.data`` too, and a change of parameters,
    buffers and attributes of the flow's modules. What a network reads from elsewhere, a global or
    the inside of a list, is not: after such a change call :meth:`clear_cache`.

    Args:
        event_dim: Rank of an event: 1 for vectors, 3 for images.
        event_shape: Sizes of an event, if only these fit.
    """

    num_classes: int | None = None
    context_shape: torch.Size | None = None
    maps_everything = True
    """Whether a value without a finite image is a mistake, rather than outside of the support."""
    _generation = 0
    _has_seen_data = False

    def __init__(self, event_dim: int, *, event_shape: torch.Size | None = None) -> None:
        super().__init__()
        self.domain = constraints.independent(constraints.real, event_dim)
        self.codomain = constraints.independent(constraints.real, event_dim)
        self.event_shape = event_shape

    @abstractmethod
    def forward_and_log_det(self, x: Event, context: Context = None) -> Mapped:
        """Return the data of the noise ``x`` and ``log |dy/dx|``, a pure function."""

    @abstractmethod
    def inverse_and_log_det(self, y: Event, context: Context = None) -> Mapped:
        """Return the noise of the data ``y`` and ``log |dx/dy|``, a pure function."""

    @property
    def context_event_dim(self) -> int | None:
        """Rank of a context: label 0, vector 1, map 3; ``None`` if it takes none."""
        return context_event_dim(self.num_classes, self.context_shape)

    def _volume_kept(self, x: Tensor) -> Tensor:
        """Return the log-determinants of a map that keeps volumes: zero for each event of ``x``."""
        return x.new_zeros(x.shape[: x.dim() - self.domain.event_dim])

    def _sum(self, terms: Tensor) -> Tensor:
        """Return the sums over the elements of each event."""
        return terms.sum(list(range(-self.domain.event_dim, 0)))

    def largest_value(self, noise: float) -> float:
        """Return a bound on the size of the elements of data, whatever the networks say.

        Args:
            noise: Size that no element of the noise exceeds; a million Gaussian draws of a
                thousand elements stay below 7.

        Returns:
            The bound, of the learned constants as they are; infinite where none is known.
        """
        return math.inf

    @property
    def _flow(self) -> FlowTransform:
        return self

    @property
    def inv(self) -> FlowTransform:
        """The inverse, a module that has this one's parameters; ``t.inv.inv is t``."""
        if self._inv is None:
            # Past nn.Module, which would make the inverse a part of what is a part of it.
            self.__dict__["_inv"] = Inverse(self)
        return cast(FlowTransform, self._inv)

    def forward(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*result"]:
        """Return the data that the noise ``x`` becomes."""
        return self._call(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the data that the noise ``x`` becomes, running the module's hooks."""
        y = self._made_from(x)
        return cast(Tensor, nn.Module.__call__(self, x)) if y is None else y

    def check_event(self, argument: str, tensor: Tensor) -> None:
        """Raise ``ValueError`` unless ``tensor`` has events that this transform takes."""
        if self.event_shape is not None:
            check_trailing(argument, tensor, self.event_shape)
        rank = self.domain.event_dim
        shape = f"shape {tuple(tensor.shape)}"
        check(tensor.dim() >= rank, argument, f"have at least {rank} dimensions", shape)
        check(tensor.is_floating_point(), argument, "be of a floating dtype", tensor.dtype)

    def check_has_seen_data(self) -> None:
        """Raise ``ValueError`` if training from noise would skip a first look at data."""
        if not self.training or self._has_seen_data:
            return
        waits = awaits_data(self)
        rule = "score data once in training mode, or call `initialize`, before noise"
        check(not waits, "transform", rule, f"noise first, in {type(self).__name__}")
        self._has_seen_data = True

    @torch.no_grad()
    def initialize(self, y: Float[Tensor, "*event"], context: Tensor | None = None) -> None:
        """Let data set the first values of the parameters that take them from data.

        What has had its first values, or is frozen, keeps them, and so do parts in eval mode of a
        transform in training mode. No mode is changed.

        Args:
            y: A batch of data, some hundreds.
            context: Their contexts, if the transform takes any.
        """
        # Alone these are switched: what else is in eval mode stays as it is.
        waiting = [] if self.training else [m for m in self.modules() if isinstance(m, FirstData)]
        for part in waiting:
            part.training = True
        try:
            self.check_event("y", y)
            check_finite_context(context)
            self.inverse_and_log_det(y.expand(self.broadcast_shape(y.shape, context)), context)
        finally:
            for part in waiting:
                part.training = False

    def broadcast_shape(self, shape: torch.Size, context: Tensor | None) -> torch.Size:
        """Return ``shape`` with its batch part broadcast against that of ``context``."""
        rank = self.domain.event_dim
        event = shape[len(shape) - rank :]
        expected = self.event_shape
        fits = len(shape) >= rank and (expected is None or event == expected)
        sizes = f"{rank} sizes" if expected is None else f"{tuple(expected)}"
        check(fits, "shape", f"end in {sizes}", tuple(shape))
        if context is None:
            return shape
        context_batch = context.shape[: context.dim() - (self.context_event_dim or 0)]
        return broadcast_shapes(shape[: len(shape) - rank], context_batch) + event

    def clear_cache(self) -> None:
        """Drop pending evaluations here, in parts and in transforms conditioned from here."""
        for module in self.modules():
            if isinstance(module, FlowTransform):
                module._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle takes along: no pending evaluation, no tie to Pyro."""
        for parameter in self.parameters():
            # Pyro leaves a weak reference on each parameter it has seen, which does not pickle.
            parameter.__dict__.pop("unconstrained", None)
        return super().__getstate__()

    def _forget(self) -> None:
        self._generation += 1
        self._slot = self._traced = None

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation; pending evaluations are dropped."""
        self._forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._forget()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        self._has_seen_data = False
        super()._load_from_state_dict(*args, **kwargs)


def as_flow(argument: str, value: Transform) -> FlowTransform:
    """Return ``value``, or raise ``ValueError`` unless it can be a part of other flows."""
    fits = isinstance(value, FlowTransform)
    rule = "be of this package's transforms (others stand beside them, in a list)"
    check(fits, argument, rule, type(value).__name__)
    return cast(FlowTransform, value)


class Inverse(FlowTransform):
    """The inverse of a flow, itself a flow: its noise is the other's data.

    ``flow.inv`` makes it. It is a module that has the flow as its part, so that the parameters
    are trained, moved and saved with whatever holds the inverse: a guide, a ``PyroModule``, a
    :class:`Chain`. A sample and its density take one evaluation together, as of every flow.

    Args:
        flow: The flow that is inverted.

    Example:
        >>> from pyro_genmodels import transforms
        >>> flow = transforms.masked_autoregressive(3)
        >>> len(list(flow.inv.parameters())) == len(list(flow.parameters()))
        True
        >>> flow.inv(flow(torch.zeros(2, 3)).clone()).shape, flow.inv.inv is flow
        (torch.Size([2, 3]), True)
    """

    def __init__(self, flow: FlowTransform) -> None:
        rank = flow.codomain.event_dim
        super().__init__(rank, event_shape=flow.event_shape)
        self.flow = flow
        self._cache_size = flow._cache_size
        self.domain, self.codomain = flow.codomain, flow.domain
        self.num_classes, self.context_shape = flow.num_classes, flow.context_shape
        self.maps_everything = flow.maps_everything

    @property
    def inv(self) -> FlowTransform:
        """The flow that is inverted."""
        if self.flow._inv is None:  # in a copy, which has no ties from the flow to its inverse
            self.flow.__dict__["_inv"] = self
        return self.flow

    def forward_and_log_det(self, x: Event, context: Context = None) -> Mapped:
        """Return what the flow makes noise of ``x``, and the log-determinant."""
        return self.flow.inverse_and_log_det(x, context)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> Mapped:
        """Return the data that the flow makes of ``y``, and the log-determinant."""
        return self.flow.forward_and_log_det(y, context)

    # Calls are the flow's, so that both have one slot: what one has evaluated serves the other.

    def forward(self, x: Tensor) -> Tensor:
        """Return the noise that the flow makes of the data ``x``."""
        return self.flow._inv_call(x)

    def _call(self, x: Tensor) -> Tensor:
        return self.flow._inv_call(x)

    def _inv_call(self, y: Tensor) -> Tensor:
        return self.flow(y)

    def undo(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of ``y`` and ``log |dy/dx|`` at once; see :meth:`HandOver.undo`."""
        x, log_det = self.flow.redo(y)
        return x, -log_det

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``log |dy/dx|`` of shape ``(*batch,)``."""
        return -self.flow.log_abs_det_jacobian(y, x)

    def check_has_seen_data(self) -> None:
        """Raise nothing: the flow's first look is at what comes to it as data."""

    def with_cache(self, cache_size: int = 1) -> Any:
        """Return the inverse of the flow with that ``cache_size``."""
        return self.flow.with_cache(cache_size).inv

    def forward_shape(self, shape: Any) -> torch.Size:
        """Return the shape of the noise that the flow makes of data of this shape."""
        return self.flow.inverse_shape(shape)

    def inverse_shape(self, shape: Any) -> torch.Size:
        """Return the shape of the data that the flow makes of noise of this shape."""
        return self.flow.forward_shape(shape)
