"""Base of the distributions whose log-probability, samples and entropy are exact."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import EventShape, Float, Num, Tensor

Self = TypeVar("Self", bound="ExactDistribution")


class ExactDistribution(Configured, TorchDistribution, ABC):
    """Distribution without free parameters of which everything is known.

    A subclass writes :meth:`draw`, :meth:`log_density` and :meth:`entropy_nats` over one leading
    dimension, in float64 from tables that it keeps as tensor attributes; the base does batch
    shapes, dtypes, devices and validation. A value of probability zero inside the support has
    log-probability minus infinity.

    Args:
        event_shape: Sizes of one value.
        num_levels: Values are the integers ``0 .. num_levels - 1``; ``None`` for continuous ones.
        validate_args: Whether values are checked against the support.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.num_levels = num_levels
        self.dtype = torch.get_default_dtype()
        super().__init__(torch.Size(), torch.Size(event_shape), validate_args=validate_args)

    @abstractmethod
    def draw(self, count: int) -> Num[Tensor, "{count} ..."]:
        """Draw values independently, from torch's random state on :attr:`device`."""

    @abstractmethod
    def log_density(self, value: Num[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """Return the log-probability (or log-density) of each value in nats, in float64."""

    @abstractmethod
    def entropy_nats(self) -> float:
        """Return the entropy in nats."""

    @property
    def device(self) -> torch.device:
        """Where the tables are, and so the samples."""
        devices = (value.device for value in vars(self).values() if isinstance(value, Tensor))
        return next(devices, torch.device("cpu"))

    @constraints.dependent_property
    def support(self) -> Any:
        """Integers from 0 to ``num_levels - 1``, or the reals."""
        of_each: Any = constraints.real
        if self.num_levels is not None:
            of_each = constraints.integer_interval(0, self.num_levels - 1)
        return constraints.independent(of_each, len(self.event_shape))

    def to(
        self: Self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Return the same distribution with its tables on a device and its samples in a dtype."""
        new = copy.copy(self)
        new.dtype = dtype or self.dtype
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(new, name, value.to(device))
        return new

    def expand(self, batch_shape: Any, _instance: Any = None) -> ExactDistribution:
        """Return the same distribution with a batch shape of independent copies."""
        # Copies attributes instead of constructing: the recorded arguments stay the user's own.
        new = copy.copy(self) if _instance is None else _instance
        new.__dict__.update(vars(self))
        new._batch_shape = torch.empty(()).expand(self.batch_shape).expand(batch_shape).shape
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Num[Tensor, "*shape"]:
        """Draw exactly, in :attr:`dtype`."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.draw(shape.numel()).to(self.dtype).reshape(shape + self.event_shape)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*shape"]:
        """Return the exact log-probability or log-density of each value, in nats.

        Computed in float64; returned in the value's floating dtype.
        """
        if self._validate_args and value.numel() > 0:  # torch cannot check an empty batch
            self._validate_sample(value)
        leading = value.shape[: value.dim() - len(self.event_shape)]
        # Not -1: an empty batch leaves it ambiguous.
        rows = value.reshape(leading.numel(), *self.event_shape)
        nats = self.log_density(rows).reshape(leading)
        shape = torch.broadcast_shapes(leading, self.batch_shape)
        return nats.to(value.dtype if value.is_floating_point() else self.dtype).expand(shape)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        nats = torch.tensor(self.entropy_nats(), dtype=torch.float64, device=self.device)
        return nats.expand(self.batch_shape)

    def __repr__(self) -> str:
        """Name and arguments, as they were given."""
        given = self.current_arguments().items()
        arguments = ", ".join(f"{name}={value!r}" for name, value in given)
        return f"{type(self).__name__}({arguments})"
