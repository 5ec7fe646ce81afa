"""The base of every transform: subclasses write pure maths, the base does the rest.

Forward goes from noise to data, as Pyro's ``TransformedDistribution`` has it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_genmodels._batching import broadcast_shapes
from pyro_genmodels._checks import check, check_trailing
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets.layers import FirstData, awaits_data, context_event_dim
from pyro_genmodels.transforms.base.torch_protocol import HandOver


class FlowTransform(Configured, HandOver, TransformModule):
    r"""Invertible map from noise to data with the log-determinant of its Jacobian.

    A subclass writes two pure functions, :meth:`forward_and_log_det` and
    :meth:`inverse_and_log_det`, for inputs of any batch shape and an optional context whose batch
    shape is broadcastable to theirs. Flows compose these functions of their parts.

    One evaluation serves an inverse and its log-determinant, and also a sample and its density.
    Scoring a sample that this transform has just made gives the noise that it was made from, so
    no gradient flows from the density to that sample; score ``sample.clone()`` if you want one.

    Args:
        event_dim: Rank of an event: 1 for vectors, 3 for images.
        event_shape: Sizes of an event, if only these fit.
        cache_size: 0 or 1, for torch's protocol; see :meth:`with_cache`.

    Raises:
        ValueError: If ``cache_size`` is neither 0 nor 1.
    """

    num_classes: int | None = None
    context_shape: torch.Size | None = None
    maps_everything = True
    """Whether a value without a finite image is a mistake, rather than outside of the support."""
    _generation = 0
    _has_seen_data = False

    def __init__(
        self,
        event_dim: int,
        *,
        event_shape: torch.Size | None = None,
        cache_size: int = 0,
    ) -> None:
        super().__init__(cache_size=cache_size)
        self.domain = constraints.independent(constraints.real, event_dim)
        self.codomain = constraints.independent(constraints.real, event_dim)
        self.event_shape = event_shape

    @abstractmethod
    def forward_and_log_det(
        self, x: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*result"], Float[Tensor, "*batch"]]:
        """Return the data of the noise ``x`` and ``log |dy/dx|``, a pure function."""

    @abstractmethod
    def inverse_and_log_det(
        self, y: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*result"], Float[Tensor, "*batch"]]:
        """Return the noise of the data ``y`` and ``log |dx/dy|``, a pure function."""

    @property
    def context_event_dim(self) -> int | None:
        """Rank of a context: label 0, vector 1, map 3; ``None`` if it takes none."""
        return context_event_dim(self.num_classes, self.context_shape)

    @property
    def _flow(self) -> FlowTransform:
        return self

    def forward(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*result"]:
        """Return the data that the noise ``x`` becomes."""
        return self._call(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the data that the noise ``x`` becomes, running the module's hooks."""
        return cast(Tensor, nn.Module.__call__(self, x))

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
