"""What can be compressed: distributions that a coder can go through element by element."""

from __future__ import annotations

import copy
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check, check_levels, check_trailing
from pyro_genmodels._progress import progress_bar
from pyro_genmodels._typing import Int, Num
from pyro_genmodels.compression.coder import Coder, code_element, code_uniform
from pyro_genmodels.compression.deterministic_evaluation import (
    NO_CONTEXT,
    fingerprint,
    in_float64,
    plain_digest,
)
from pyro_genmodels.distributions import AutoregressiveDistribution, UniformLevels
from pyro_genmodels.nets.layers import check_finite_context


class Source(ABC):
    """A distribution as the coder sees it: arrays of data points, each a row of elements.

    Attributes:
        device: Where levels are decoded.
    """

    def __init__(self, distribution: Any, num_levels: int, device: torch.device) -> None:
        self.distribution, self.num_levels, self.device = distribution, num_levels, device
        self.event_shape = tuple(distribution.event_shape)

    def check(self, x: Num[Tensor, ...]) -> tuple[int, ...]:
        """Return the leading sizes of an array.

        Raises:
            ValueError: If it is no array of levels, or has not the batch shape.
        """
        check_trailing("x", x, self.event_shape)
        batch_shape = tuple(x.shape[: x.dim() - len(self.event_shape)])
        self.check_batch("x", batch_shape)
        check_levels("x", x, self.num_levels)
        return batch_shape

    def check_batch(self, argument: str, batch_shape: Sequence[int]) -> None:
        """Raise ``ValueError`` unless leading sizes end with the distribution's."""
        own = tuple(self.distribution.batch_shape)
        fits = tuple(batch_shape)[len(batch_shape) - len(own) :] == own
        rule = f"have leading dimensions that end with the batch shape {own}"
        check(fits, argument, rule, tuple(batch_shape))

    @property
    def network(self) -> torch.nn.Module:
        """What is evaluated; without parameters there is nothing that could round."""
        return torch.nn.Identity()

    @abstractmethod
    def fingerprint(self) -> bytes:
        """Return 8 bytes that another network would not have."""

    def context_fingerprint(self) -> bytes:
        """Return 4 bytes that another context would not have."""
        return NO_CONTEXT

    @abstractmethod
    def code(
        self,
        coder: Coder,
        batch_shape: Sequence[int],
        chunk_size: int,
        levels: Int[Tensor, "rows elements"] | None,
    ) -> Int[Tensor, "rows elements"]:
        """Write the rows, or read as many as there are; elements in the order of generation."""

    def in_order(self, x: Num[Tensor, ...]) -> Int[Tensor, "rows elements"]:
        """Return levels in the order of generation."""
        return x.reshape(-1, torch.Size(self.event_shape).numel()).long()

    def in_event_order(self, levels: Int[Tensor, "rows elements"]) -> Int[Tensor, "rows elements"]:
        """Undo :meth:`in_order`, up to the shape."""
        return levels


class UniformSource(Source):
    """Elements that are uniform over their levels: a number of bits each that is the same."""

    def __init__(self, distribution: UniformLevels) -> None:
        super().__init__(distribution, distribution.num_levels, distribution._nothing.device)

    def fingerprint(self) -> bytes:
        """Return what says that nothing was learned."""
        return b"uniform "

    def code(
        self,
        coder: Coder,
        batch_shape: Sequence[int],
        chunk_size: int,
        levels: Int[Tensor, "rows elements"] | None,
    ) -> Int[Tensor, "rows elements"]:
        """Write or read all elements at once."""
        rows, elements = torch.Size(batch_shape).numel(), torch.Size(self.event_shape).numel()
        flat = None if levels is None else levels.reshape(-1)
        coded = code_uniform(coder, self.num_levels, rows * elements, flat)
        return coded.view(rows, elements).to(self.device)


class NetworkSource(Source):
    """An autoregressive distribution: its network is evaluated element by element, in float64.

    Writing and reading take the same steps on batches of the same size. What rounding could still
    do (another number of threads, another processor) happens in the fifteenth digit, where the
    coder's weights do not reach.
    """

    def __init__(self, distribution: AutoregressiveDistribution) -> None:
        super().__init__(distribution, distribution.net.num_levels, distribution.net.device)
        check_finite_context(distribution.context)

    @property
    def network(self) -> torch.nn.Module:
        """The distribution's own."""
        return self.distribution.net

    def fingerprint(self) -> bytes:
        """Return a digest of names and values of the parameters, and of the classes."""
        net, law = self.distribution.net, self.distribution.law
        names = type(net).__name__, type(law).__name__, self.event_shape, self.num_levels
        return fingerprint(net, *names)

    def context_fingerprint(self) -> bytes:
        """Return a digest of the context of each data point."""
        context = self.distribution.context
        if context is None:
            return NO_CONTEXT
        event = context.shape[context.dim() - (self.distribution.net.context_event_dim or 0) :]
        expanded = context.expand(self.distribution.batch_shape + event)
        return plain_digest(expanded)[:4]

    def code(
        self,
        coder: Coder,
        batch_shape: Sequence[int],
        chunk_size: int,
        levels: Int[Tensor, "rows elements"] | None,
    ) -> Int[Tensor, "rows elements"]:
        """Write or read chunk after chunk."""
        rule = "be where float64 is: on a CPU or a CUDA device"
        check(self.device.type != "mps", "distribution", rule, self.device)
        exact = copy.copy(self.distribution)
        exact.net = in_float64(exact.net)
        if exact.context is not None and exact.context.is_floating_point():
            exact.context = exact.context.double()
        shape, features = torch.Size(batch_shape), exact._flat_features(torch.Size(batch_shape))
        coded = []
        steps = math.ceil(shape.numel() / chunk_size) * torch.Size(self.event_shape).numel()
        with progress_bar("coding", steps, unit="step") as bar:
            for start in range(0, shape.numel(), chunk_size):
                rows = slice(start, min(start + chunk_size, shape.numel()))
                part = None if features is None else features[rows]
                given = None if levels is None else levels[rows]
                coded.append(_code_rows(coder, exact, rows.stop - rows.start, part, given, bar))
        if not coded:
            return torch.empty(0, torch.Size(self.event_shape).numel(), dtype=torch.long)
        return torch.cat(coded)

    def in_order(self, x: Num[Tensor, ...]) -> Int[Tensor, "rows elements"]:
        """Return levels in the order of generation."""
        return super().in_order(x).to(self.device)[:, self.distribution.net.order]

    def in_event_order(self, levels: Int[Tensor, "rows elements"]) -> Int[Tensor, "rows elements"]:
        """Undo :meth:`in_order`, up to the shape."""
        return levels[:, self.distribution.net.order.argsort().to(levels.device)]


def _code_rows(
    coder: Coder,
    distribution: AutoregressiveDistribution,
    number: int,
    features: Tensor | None,
    levels: Tensor | None,
    bar: Any,
) -> Tensor:
    net, law = distribution.net, distribution.law
    state, coded = net.incremental(number, features), list[Tensor]()
    for position in range(net.event_shape.numel()):
        given = None if levels is None else levels[:, position]
        coded.append(code_element(coder, law, state.parameters(), net.num_levels, given))
        state.append(coded[-1])
        bar.update(1)
    return torch.stack(coded, 1)


@functools.singledispatch
def source_of(distribution: Any) -> Source:
    """Return a distribution as the coder sees it.

    Raises:
        ValueError: If the coder cannot go through it.
    """
    rule = "be an AutoregressiveDistribution or UniformLevels"
    raise ValueError(f"`distribution` must {rule}; got {type(distribution).__name__}.")


source_of.register(UniformLevels, UniformSource)
source_of.register(AutoregressiveDistribution, NetworkSource)
