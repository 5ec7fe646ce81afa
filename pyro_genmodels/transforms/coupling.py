"""Couplings: one part of an event is changed by a map that the other part determines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_genmodels._typing import Float, Num
from pyro_genmodels.transforms._base import FlowTransform
from pyro_genmodels.transforms.masks import Mask


class _Coupling(FlowTransform):
    """A mask and a network that sees the part that the mask passes."""

    def __init__(self, mask: Mask, net: nn.Module, cache_size: int) -> None:
        super().__init__(mask.event_dim, cache_size=cache_size)
        self.mask = mask
        self.net = net
        self.num_classes = getattr(net, "num_classes", None)
        self.context_shape = getattr(net, "context_shape", None)

    def _changes(self, x: Tensor) -> Tensor:
        """Return 1 where elements change and 0 where they pass."""
        event = x.shape[x.dim() - self.mask.event_dim :]
        return (~self.mask(event, x.device)).to(x.dtype)

    def _evaluate(self, passed: Tensor, context: Tensor | None) -> Tensor:
        output: Tensor = self.net(passed) if context is None else self.net(passed, context)
        # Under autocast the network answers in half precision; the map itself stays in x's.
        return output.to(passed.dtype)

    def _event_dims(self) -> list[int]:
        return list(range(-self.mask.event_dim, 0))


class AdditiveCoupling(_Coupling):
    r"""Shifts one part of an event by a function of the other.

    .. math:: y_a = x_a, \qquad y_b = x_b + m(x_a)

    The Jacobian is unit triangular, so the log-determinant is zero.

    Args:
        mask: Which part passes unchanged.
        shift: Network :math:`m`, from ``(*batch, *event)`` to the same shape. It sees zeros in
            place of the part that changes.
        cache_size: 0 or 1; see :meth:`FlowTransform.with_cache`.

    Raises:
        ValueError: If an event has too few dimensions for the mask.

    References:
        Dinh et al. (2014), NICE, eq. 3. https://arxiv.org/abs/1410.8516

    Example:
        >>> from pyro_genmodels import nets, transforms
        >>> layer = transforms.AdditiveCoupling(transforms.Checkerboard(), nets.ConvNet(1, 1))
        >>> layer(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(self, mask: Mask, shift: nn.Module, *, cache_size: int = 0) -> None:
        super().__init__(mask, shift, cache_size)

    def _shift(self, passed_and_rest: Tensor, context: Tensor | None) -> Tensor:
        changes = self._changes(passed_and_rest)
        return self._evaluate(passed_and_rest * (1 - changes), context) * changes

    def forward_and_log_det(
        self, x: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return ``x`` shifted, and zero."""
        return x + self._shift(x, context), self._zero(x)

    def inverse_and_log_det(
        self, y: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return ``y`` shifted back, and zero."""
        return y - self._shift(y, context), self._zero(y)

    def _zero(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[: x.dim() - self.mask.event_dim])


class AffineCoupling(_Coupling):
    r"""Scales and shifts one part of an event by functions of the other.

    .. math:: y_a = x_a, \qquad y_b = x_b \, e^{r \tanh s(x_a)} + t(x_a)

    The learned :math:`r` bounds every log-scale, so the map cannot overflow where it was not
    trained; it starts at 2. (The paper's code writes :math:`(x_b + t)\,e^s`; the two describe the
    same maps.)

    Args:
        mask: Which part passes unchanged.
        net: Network that returns :math:`s` and :math:`t`: from ``(*batch, C, H, W)`` to
            ``(*batch, 2 C, H, W)``, or from ``(*batch, D)`` to ``(*batch, 2 D)``. It sees zeros in
            place of the part that changes.
        cache_size: 0 or 1; see :meth:`FlowTransform.with_cache`.

    Raises:
        ValueError: If an event has too few dimensions for the mask.

    References:
        Dinh et al. (2017), RealNVP, eq. 4 and 7. https://arxiv.org/abs/1605.08803

    Example:
        >>> from pyro_genmodels import nets, transforms
        >>> layer = transforms.AffineCoupling(transforms.HalfMask(), nets.MLP(3, 6))
        >>> x = torch.randn(4, 3)
        >>> layer.log_abs_det_jacobian(x, layer(x)).shape
        torch.Size([4])
    """

    def __init__(self, mask: Mask, net: nn.Module, *, cache_size: int = 0) -> None:
        super().__init__(mask, net, cache_size)
        self.rescale = nn.Parameter(torch.full((), 2.0))

    def _log_scale_and_shift(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        changes, dim = self._changes(x), -self.mask.event_dim
        output = self._evaluate(x * (1 - changes), context)
        size = x.shape[dim]
        log_scale = self.rescale * torch.tanh(output.narrow(dim, 0, size))
        return log_scale * changes, output.narrow(dim, size, size) * changes

    def forward_and_log_det(
        self, x: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return ``x`` scaled and shifted, and the sum of the log-scales."""
        log_scale, shift = self._log_scale_and_shift(x, context)
        return x * log_scale.exp() + shift, log_scale.sum(self._event_dims())

    def inverse_and_log_det(
        self, y: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return ``y`` shifted and scaled back, and minus the sum of the log-scales."""
        log_scale, shift = self._log_scale_and_shift(y, context)
        return (y - shift) * (-log_scale).exp(), -log_scale.sum(self._event_dims())
