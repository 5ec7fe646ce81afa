"""Small transforms without a network: permutations and scales of single elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_choice, check_event_shape, integers_checked
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform


class Permute(FlowTransform):
    """Puts the features of a vector, or the channels of an image, in another order.

    Args:
        permutation: For each feature of the data the place of the noise's feature that it is.
        event_dim: 1 for vectors, 3 for images.

    Raises:
        ValueError: If the numbers are not ``0 .. n - 1`` in some order.

    Example:
        >>> Permute([2, 0, 1], event_dim=1)(torch.tensor([10.0, 20.0, 30.0]))
        tensor([30., 10., 20.])
    """

    permutation: Tensor
    back: Tensor

    def __init__(self, permutation: Sequence[int], *, event_dim: int = 3) -> None:
        order = [int(i) for i in permutation]
        rule = "be the numbers 0 to n - 1 in some order"
        check(
            len(order) > 0 and sorted(order) == list(range(len(order))), "permutation", rule, order
        )
        check_choice("event_dim", event_dim, (1, 3))
        super().__init__(event_dim)
        self.register_buffer("permutation", torch.tensor(order))
        self.register_buffer("back", torch.tensor(order).argsort())

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return ``x`` in the data's order, and zero."""
        return self._select(x, self.permutation)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return ``y`` in the noise's order, and zero."""
        return self._select(y, self.back)

    def _select(self, x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        rank = self.domain.event_dim
        check(x.shape[-rank] == len(order), "event", f"have {len(order)} features", x.shape[-rank])
        return x.index_select(-rank, order), self._volume_kept(x)


class Reverse(FlowTransform):
    """Turns the order of a vector's features, or of an image's channels, around.

    Args:
        event_dim: 1 for vectors, 3 for images.

    Raises:
        ValueError: If ``event_dim`` is neither.

    Example:
        >>> Reverse(1)(torch.tensor([10.0, 20.0, 30.0]))
        tensor([30., 20., 10.])
    """

    def __init__(self, event_dim: int = 3) -> None:
        check_choice("event_dim", event_dim, (1, 3))
        super().__init__(event_dim)

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return ``x`` turned around, and zero."""
        return x.flip(-self.domain.event_dim), self._volume_kept(x)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return ``y`` turned back, and zero."""
        return self.forward_and_log_det(y)


class DiagonalScale(FlowTransform):
    r"""Scales every element of an event by a learned factor.

    .. math:: x = y\, e^{s}

    from data :math:`y` to noise :math:`x`: the last layer of NICE, whose couplings keep volumes.

    Args:
        event_shape: Sizes of an event, ``(D,)`` or ``(C, H, W)``.

    Raises:
        ValueError: If the sizes are impossible.

    References:
        Dinh et al. (2014), NICE, section 3.3. https://arxiv.org/abs/1410.8516

    Example:
        >>> DiagonalScale((3,)).inv(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        shape = check_event_shape(event_shape)
        super().__init__(len(shape), event_shape=shape)
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant."""
        return x * torch.exp(-self.log_scale), -self._total(x)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant."""
        return y * torch.exp(self.log_scale), self._total(y)

    def _total(self, x: Tensor) -> Tensor:
        return self.log_scale.sum().expand(x.shape[: x.dim() - self.domain.event_dim])


@integers_checked
def permute(input_dim: int, permutation: Sequence[int] | None = None) -> Permute:
    """Return a :class:`Permute` of vectors; in a random order unless one is given.

    Example:
        >>> permute(3, [1, 2, 0])(torch.tensor([10.0, 20.0, 30.0]))
        tensor([20., 30., 10.])
    """
    order: Any = torch.randperm(input_dim).tolist() if permutation is None else permutation
    return Permute(order, event_dim=1)
