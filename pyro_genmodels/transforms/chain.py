"""Flows made of flows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.transforms._base import FlowTransform
from pyro_genmodels.transforms.squeeze import squeeze, unsqueeze


class Chain(FlowTransform):
    """Applies transforms one after the other, the first nearest to the noise.

    Unlike torch's ``ComposeTransform`` it evaluates each part once per density and per sample
    scored, copies and pickles at any time, and hands a context to the parts that take one.

    Args:
        transforms: Transforms of this package, from noise to data, of one event rank.
        cache_size: 0 or 1; see :meth:`FlowTransform.with_cache`.

    Raises:
        ValueError: If there are none, or their event ranks or contexts differ.

    Example:
        >>> from pyro_genmodels import nets, transforms
        >>> masks = [transforms.HalfMask(), transforms.HalfMask(inverted=True)]
        >>> flow = Chain([transforms.AffineCoupling(m, nets.MLP(3, 6)) for m in masks])
        >>> flow.inv(flow(torch.zeros(2, 3))).shape
        torch.Size([2, 3])
    """

    def __init__(self, transforms: Sequence[FlowTransform], *, cache_size: int = 0) -> None:
        check(len(transforms) > 0, "transforms", "have at least one transform", "none")
        ranks = sorted({t.domain.event_dim for t in transforms})
        check(len(ranks) == 1, "transforms", "have one event rank", ranks)
        super().__init__(ranks[0], cache_size=cache_size)
        self.parts = nn.ModuleList(transforms)
        self.codomain = transforms[-1].codomain
        self.num_classes, self.context_shape = _common_context(transforms)

    def forward_and_log_det(
        self, x: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*result"], Float[Tensor, "*batch"]]:
        """Return what the last part makes, and the sum of the log-determinants."""
        total = x.new_zeros(x.shape[: x.dim() - self.domain.event_dim])
        for part in self._parts():
            x, log_det = part.forward_and_log_det(x, _context_for(part, context))
            total = total + log_det
        return x, total

    def inverse_and_log_det(
        self, y: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*result"], Float[Tensor, "*batch"]]:
        """Undo the parts, the last first."""
        total = y.new_zeros(y.shape[: y.dim() - self.domain.event_dim])
        for part in reversed(self._parts()):
            y, log_det = part.inverse_and_log_det(y, _context_for(part, context))
            total = total + log_det
        return y, total

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


class OnSqueezed(FlowTransform):
    """Applies a transform to the squeezed image, or to half of its channels.

    Args:
        transform: Transform of ``(4 C, H / 2, W / 2)``, or of ``(2 C, H / 2, W / 2)``.
        factor_out: Squeeze in alternating order and let the first half of the channels through
            unchanged: the part that a multi-scale flow factors out at this scale.

    References:
        Dinh et al. (2017), RealNVP, section 3.6. https://arxiv.org/abs/1605.08803
    """

    def __init__(self, transform: FlowTransform, *, factor_out: bool = False) -> None:
        super().__init__(3)
        self.transform = transform
        self.factor_out = factor_out
        self.num_classes, self.context_shape = _common_context([transform])

    def forward_and_log_det(
        self, x: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return the image after the transform, and its log-determinant."""
        through, rest = self._split(x)
        rest, log_det = self.transform.forward_and_log_det(rest, context)
        return self._merge(through, rest), log_det

    def inverse_and_log_det(
        self, y: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return the image before the transform, and the log-determinant of its inverse."""
        through, rest = self._split(y)
        rest, log_det = self.transform.inverse_and_log_det(rest, context)
        return self._merge(through, rest), log_det

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        channels = squeeze(x, alternating=self.factor_out)
        size = channels.shape[-3] // 2 if self.factor_out else 0
        return channels[..., :size, :, :], channels[..., size:, :, :]

    def _merge(self, through: Tensor, rest: Tensor) -> Tensor:
        return unsqueeze(torch.cat([through, rest], dim=-3), alternating=self.factor_out)


def _common_context(transforms: Iterable[FlowTransform]) -> tuple[int | None, torch.Size | None]:
    kinds = {(t.num_classes, t.context_shape) for t in transforms}
    kinds.discard((None, None))
    check(len(kinds) < 2, "transforms", "take one kind of context", sorted(map(str, kinds)))
    return next(iter(kinds), (None, None))


def _context_for(part: FlowTransform, context: Tensor | None) -> Tensor | None:
    return None if part.context_event_dim is None else context
