"""What the maps of a transform take and return."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from pyro_genmodels._typing import Float, Num

Event: TypeAlias = Float[Tensor, "*event"]
"""Events in any batch: vectors or images."""

Context: TypeAlias = Num[Tensor, "*context"] | None
"""Labels, vectors or maps, or none; their batch shape is broadcastable to that of the events."""

Mapped: TypeAlias = tuple[Float[Tensor, "*result"], Float[Tensor, "*batch"]]
"""What a map makes of events, and its log-determinants in nats."""

MappedEvent: TypeAlias = tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]
"""The same of a map that keeps the shape of an event."""
