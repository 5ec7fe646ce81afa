"""Flows made of flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Transform

from pyro_genmodels._changes import in_functorch
from pyro_genmodels._checks import check
from pyro_genmodels.nets.layers import checkpointed
from pyro_genmodels.transforms.base.event_types import Context, Event, Mapped
from pyro_genmodels.transforms.base.flow_transform import FlowTransform, as_flow


class Chain(FlowTransform):
    """Applies transforms one after the other, the first nearest to the noise.

    Unlike torch's ``ComposeTransform`` it evaluates each part once per density and per sample
    scored, copies and pickles at any time, and hands a context to the parts that take one.

    Args:
        transforms: Transforms of this package, from noise to data, of one event rank.
        checkpoint: In training, keep only what passes between the parts, and evaluate each part
            anew in the backward pass: memory for about a third more time.

    Raises:
        ValueError: If there are none, one is not of this package, or their event ranks or contexts
            differ.

    Example:
        >>> from pyro_genmodels import transforms
        >>> masks = [transforms.HalfMask(), transforms.HalfMask(inverted=True)]
        >>> flow = Chain([transforms.affine_coupling(3, mask=mask) for mask in masks])
        >>> flow.inv(flow(torch.zeros(2, 3))).shape
        torch.Size([2, 3])
    """

    def __init__(self, transforms: Sequence[Transform], *, checkpoint: bool = False) -> None:
        check(len(transforms) > 0, "transforms", "have at least one transform", "none")
        flows = [as_flow("transforms", part) for part in transforms]
        ranks = sorted({t.domain.event_dim for t in flows})
        check(len(ranks) == 1, "transforms", "have one event rank", ranks)
        super().__init__(ranks[0])
        self.parts = nn.ModuleList(flows)
        self.checkpoint = checkpoint
        self.domain, self.codomain = flows[0].domain, flows[-1].codomain
        self.num_classes, self.context_shape = common_context(flows)

    def forward_and_log_det(self, x: Event, context: Context = None) -> Mapped:
        """Return what the last part makes, and the sum of the log-determinants."""
        total = self._volume_kept(x)
        for part in self._parts():
            x, log_det = self._evaluate(part, part.forward_and_log_det, x, context)
            total = total + log_det
        return x, total

    def inverse_and_log_det(self, y: Event, context: Context = None) -> Mapped:
        """Undo the parts, the last first."""
        total = self._volume_kept(y)
        for part in reversed(self._parts()):
            y, log_det = self._evaluate(part, part.inverse_and_log_det, y, context)
            total = total + log_det
        return y, total

    def largest_value(self, noise: float) -> float:
        """Return what the parts make of the bound, one after the other."""
        for part in self._parts():
            noise = part.largest_value(noise)
        return noise

    def _evaluate(
        self,
        part: FlowTransform,
        function: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]],
        x: Tensor,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        context = context_for(part, context)
        anew = self.checkpoint and torch.is_grad_enabled() and not in_functorch()
        if anew and not _saves_memory_itself(part):
            return checkpointed(function, x, context)
        return function(x, context)

    def _parts(self) -> list[FlowTransform]:
        return [cast(FlowTransform, part) for part in self.parts]

    def forward_shape(self, shape: Any) -> torch.Size:
        """Return the shape of the last part's output."""
        shape = self.broadcast_shape(torch.Size(shape), None)
        for part in self._parts():
            shape = part.forward_shape(shape)
        return torch.Size(shape)

    def inverse_shape(self, shape: Any) -> torch.Size:
        """Return the shape of the first part's input."""
        shape = self.broadcast_shape(torch.Size(shape), None)
        for part in reversed(self._parts()):
            shape = part.inverse_shape(shape)
        return torch.Size(shape)


def _saves_memory_itself(part: nn.Module) -> bool:
    # A part evaluated anew inside of one that is evaluated anew would be evaluated three times.
    return any(isinstance(module, Chain) and module.checkpoint for module in part.modules())


def common_context(transforms: Iterable[FlowTransform]) -> tuple[int | None, torch.Size | None]:
    """Return ``num_classes`` and ``context_shape`` of parts that take one context or none."""
    kinds = {(t.num_classes, t.context_shape) for t in transforms}
    kinds.discard((None, None))
    check(len(kinds) < 2, "transforms", "take one kind of context", sorted(map(str, kinds)))
    return next(iter(kinds), (None, None))


def context_for(part: FlowTransform, context: Tensor | None) -> Tensor | None:
    """Return the context if a part takes one."""
    return None if part.context_event_dim is None else context
