"""Maps of codes, each given those above it, as one autoregressive network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets.autoregressive.base import AutoregressiveNet, IncrementalEvaluation
from pyro_genmodels.nets.code_priors.code_conditioner import CodeConditioner
from pyro_genmodels.nets.layers.context import ContextEmbedding

# Natural logarithm of how much less likely than any of its codes a map makes a value that is none.
_NO_CODE = 60.0


class RawContext(ContextEmbedding):
    """Takes a context and hands it on: each map's network makes its own features of it."""

    def _make_embedding(self) -> nn.Module | None:
        return None


class CodeHierarchyNet(AutoregressiveNet):
    r"""The networks of several maps of codes as one, over the codes of all maps side by side.

    .. math:: p(c) = p(c_0) \prod_i p(c_i \mid c_{<i})

    An event is a vector: the codes of the top map in the order of generation, then those of the
    next. :meth:`split` and :meth:`join` go from one to the other. So a hierarchy is sampled,
    completed, trained and compressed as any autoregressive distribution is.

    Where maps have different numbers of codes, a value that is no code of its map has no more
    than :math:`e^{-60}` times the probability of any code.

    Args:
        maps: Networks with a softmax over the codes of each map, from the top.
        conditioners: For each map what brings the maps above, and the context, to its network's;
            ``None`` for a map that sees none of the others.

    Raises:
        ValueError: If there is no map, or the parts do not fit each other.

    Example:
        >>> from pyro_genmodels.nets import GatedPixelCNNNet
        >>> top = GatedPixelCNNNet((2, 2), 8, embedding_size=4)
        >>> below = CodeConditioner([(2, 2)], 8, (4, 4), features=6)
        >>> bottom = GatedPixelCNNNet((4, 4), 8, embedding_size=4, context_shape=(6, 4, 4))
        >>> net = CodeHierarchyNet([top, bottom], [None, below])
        >>> net(torch.zeros(3, 20)).shape, [tuple(c.shape) for c in net.split(torch.zeros(3, 20))]
        (torch.Size([3, 20, 8]), [(3, 2, 2), (3, 4, 4)])
    """

    def __init__(
        self,
        maps: Sequence[AutoregressiveNet],
        conditioners: Sequence[CodeConditioner | None] | None = None,
    ) -> None:
        check(len(maps) > 0, "maps", "have at least one network", len(maps))
        given = [None] * len(maps) if conditioners is None else list(conditioners)
        check(len(given) == len(maps), "conditioners", f"be {len(maps)} in number", len(given))
        size = sum(net.event_shape.numel() for net in maps)
        super().__init__((size,), max(net.num_levels for net in maps))
        self.maps = nn.ModuleList(maps)
        self.conditioners = nn.ModuleDict(
            {str(i): each for i, each in enumerate(given) if each is not None}
        )
        for index in range(len(maps)):
            self._check_conditioner(index)
        self.num_classes, self.context_shape = self._common_context()
        self.context = RawContext(
            1, num_classes=self.num_classes, context_shape=self.context_shape, ranks=(1, 2, 3)
        )

    def _check_conditioner(self, index: int) -> None:
        net, conditioner = self._parts[index]
        if conditioner is None:
            return
        above = [(tuple(a.event_shape), a.num_levels) for a, _ in self._parts[:index]]
        taken = list(zip(map(tuple, conditioner.above_shapes), conditioner.num_codes, strict=True))
        check(taken == above, "conditioners", f"take {above} for map {index}", taken)
        beside = "maps", "take no labels beside a conditioner, which takes them"
        check(net.num_classes is None, *beside, net.num_classes)
        shape = None if net.context_shape is None else tuple(net.context_shape)
        wanted = tuple(conditioner.features_shape)
        check(shape == wanted, "maps", f"take the features {wanted} at map {index}", shape)

    def _common_context(self) -> tuple[int | None, torch.Size | None]:
        declared = {
            (part.context.num_classes, part.context.context_shape)
            for part in (conditioner or net for net, conditioner in self._parts)
            if part.context.event_dim is not None
        }
        check(
            len(declared) <= 1, "maps", "take one and the same context", sorted(map(str, declared))
        )
        return declared.pop() if declared else (None, None)

    @property
    def _parts(self) -> list[tuple[AutoregressiveNet, CodeConditioner | None]]:
        conditioners = dict(self.conditioners.items())
        return [
            (cast(AutoregressiveNet, net), cast("CodeConditioner | None", conditioners.get(str(i))))
            for i, net in enumerate(self.maps)
        ]

    def context_features(self, context: Tensor | None) -> Tensor | None:
        """Return the context as it is: each map's network makes its own features of it."""
        self.context.check(context)
        return context

    @property
    def features_event_dim(self) -> int:
        """Rank of one context."""
        return self.context_event_dim or 0

    def split(self, value: Num[Tensor, "*batch elements"]) -> list[Num[Tensor, ...]]:
        """Return the maps ``(*batch, *map_shape)`` of codes side by side, from the top."""
        sizes = [net.event_shape.numel() for net, _ in self._parts]
        return [
            part[..., net.order.argsort()].unflatten(-1, tuple(net.event_shape))
            for part, (net, _) in zip(value.split(sizes, -1), self._parts, strict=True)
        ]

    def join(self, maps: Sequence[Num[Tensor, ...]]) -> Num[Tensor, "*batch elements"]:
        """Lay maps ``(*batch, *map_shape)`` side by side: the inverse of :meth:`split`."""
        flat = [
            codes.flatten(codes.dim() - len(net.event_shape))[..., net.order]
            for codes, (net, _) in zip(maps, self._parts, strict=True)
        ]
        return torch.cat(flat, -1)

    def map_context(
        self, index: int, above: Sequence[Tensor], context: Tensor | None
    ) -> Tensor | None:
        """Return the context of one map's network, given the maps above and the context of all."""
        net, conditioner = self._parts[index]
        part = conditioner or net
        if self.context_event_dim == 0 and context is not None:
            context = context.long()  # samplers keep features in floating point
        own = None if part.context.event_dim is None else context
        return own if conditioner is None else conditioner(above, own)

    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Num[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return the logits ``(batch, elements, K)``."""
        maps = [
            codes.clamp(max=net.num_levels - 1)
            for codes, (net, _) in zip(self.split(x), self._parts, strict=True)
        ]
        logits = []
        for index, (net, _) in enumerate(self._parts):
            own = net.context_features(self.map_context(index, maps[:index], features))
            of_map = net.evaluate(maps[index], own)
            logits.append(self.padded(of_map.flatten(1, -2)[:, net.order]))
        return torch.cat(logits, 1)

    def padded(self, logits: Float[Tensor, "*batch codes"]) -> Float[Tensor, "*batch K"]:
        """Add logits for values that are no codes of a map."""
        missing = self.num_levels - logits.shape[-1]
        if missing == 0:
            return logits
        none = logits.detach().amin(-1, keepdim=True) - _NO_CODE
        return torch.cat([logits, none.expand(*none.shape[:-1], missing)], -1)

    def incremental(
        self, batch_size: int, features: Num[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that goes through the maps' own, one after another."""
        return HierarchyEvaluation(self, batch_size, features)


class HierarchyEvaluation(IncrementalEvaluation):
    """Evaluates one map after another, each incrementally once those above are whole."""

    def __init__(self, net: CodeHierarchyNet, batch_size: int, features: Tensor | None) -> None:
        self._net, self._batch_size, self._features = net, batch_size, features
        self._above: list[Tensor] = []
        self._start_map()

    def _start_map(self) -> None:
        index = len(self._above)
        net = self._map = cast(AutoregressiveNet, self._net.maps[index])
        context = self._net.map_context(index, self._above, self._features)
        self._state = net.incremental(self._batch_size, net.context_features(context))
        self._codes: list[Tensor] = []

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the next code's logits."""
        return self._net.padded(self._state.parameters())

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the next code."""
        level = level.clamp(max=self._map.num_levels - 1)
        self._state.append(level)
        self._codes.append(level)
        if len(self._codes) == self._map.event_shape.numel():
            codes = torch.stack(self._codes, 1)[:, self._map.order.argsort()]
            self._above.append(codes.view(-1, *self._map.event_shape))
            if len(self._above) < len(self._net.maps):
                self._start_map()
