"""Couplings: one part of an event is changed by a map that the other part determines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import as_shape, check_choice, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.transforms.base.amplification import FARTHEST, check_amplification, soft_clip
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.couplings.base import GIVEN, Coupling, coupling_net, default_mask
from pyro_genmodels.transforms.couplings.masks import Mask

ScaleName = Literal["tanh", "exp", "sigmoid"]


class AdditiveCoupling(Coupling):
    r"""Shifts one part of an event by a function of the other.

    .. math:: x_a = y_a, \qquad x_b = y_b + m(y_a)

    from data :math:`y` to noise :math:`x`. The Jacobian is unit triangular, so the
    log-determinant is zero.

    Args:
        mask: Which part passes unchanged.
        net: Network :math:`m`: returns one value for each feature that changes; see
            :class:`Coupling`.

    Raises:
        ValueError: If an event has too few dimensions for the mask, the mask leaves a part of it
            empty, or the network returns another number of features.

    References:
        Dinh et al. (2014), NICE, eq. 3. https://arxiv.org/abs/1410.8516

    Example:
        >>> from pyro_genmodels import nets, transforms
        >>> layer = transforms.AdditiveCoupling(transforms.Checkerboard(), nets.ConvNet(1, 1))
        >>> layer(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(self, mask: Mask, net: nn.Module) -> None:
        super().__init__(mask, net, num_parameters=1)

    def _to_noise(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, None]:
        return y + self._split(parameters)[0], None

    def _to_data(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, None]:
        return x - self._split(parameters)[0], None


class AffineCoupling(Coupling):
    r"""Scales and shifts one part of an event by functions of the other.

    .. math:: x_a = y_a, \qquad x_b = y_b \, e^{s(y_a)} + t(y_a)

    from data :math:`y` to noise :math:`x`. The network's first value for an element, :math:`h`,
    becomes its log-scale in one of three ways:

    * ``"tanh"``: :math:`s = r \tanh h` with a learned :math:`r` that starts at 2 and bounds every
      log-scale, so that the map cannot overflow where it was not trained (RealNVP's code);
    * ``"exp"``: :math:`s = h` (RealNVP's paper; also a conditional Gaussian);
    * ``"sigmoid"``: :math:`e^s = \sigma(h + 2) + 10^{-3}` (Glow's code, with the least scale that
      later codes add: without it the inverse can overflow).

    Args:
        mask: Which part passes unchanged.
        net: Network that returns :math:`h` for each feature that changes, and then :math:`t` for
            each; see :class:`Coupling`.
        scale: ``"tanh"``, ``"exp"`` or ``"sigmoid"``.
        max_amplification: Bound, above 1, on how many times larger a difference of noise becomes in
            data. Then :math:`e^s` of ``"sigmoid"`` goes from its inverse to 1, :math:`s` of
            ``"exp"`` becomes :math:`b \tanh(h / b)` with its logarithm :math:`b`, and :math:`r` of
            ``"tanh"`` and, at 10,000, :math:`t` are clipped. ``None`` leaves the map as above.

    Raises:
        ValueError: If ``max_amplification`` is not above 1, an event has too few dimensions for
            the mask, the mask leaves a part of it empty, or the network returns another number of
            features.

    References:
        Dinh et al. (2017), RealNVP, eq. 4 and 7. https://arxiv.org/abs/1605.08803. Kingma and
        Dhariwal (2018), Glow, table 1. https://arxiv.org/abs/1807.03039

    Example:
        >>> from pyro_genmodels import nets, transforms
        >>> layer = transforms.AffineCoupling(transforms.HalfMask(), nets.MLP(1, 4))
        >>> x = torch.randn(4, 3)
        >>> layer.log_abs_det_jacobian(x, layer(x)).shape
        torch.Size([4])
    """

    def __init__(
        self,
        mask: Mask,
        net: nn.Module,
        *,
        scale: ScaleName = "tanh",
        max_amplification: float | None = None,
    ) -> None:
        super().__init__(mask, net, num_parameters=2)
        check_choice("scale", scale, get_args(ScaleName))
        check_amplification(max_amplification)
        self.max_amplification = max_amplification
        self.scale = scale
        self.rescale = nn.Parameter(torch.full((), 2.0)) if scale == "tanh" else None

    def _scales(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and log-scale."""
        most = self.max_amplification
        if self.scale == "sigmoid":
            scale = torch.sigmoid(raw + 2)
            scale = scale + 1e-3 if most is None else scale * (1 - 1 / most) + 1 / most
            return scale, scale.log()
        if self.rescale is not None:
            range_ = self.rescale if most is None else soft_clip(self.rescale, most)
            log_scale = range_ * torch.tanh(raw)
        else:
            log_scale = raw if most is None else soft_clip(raw, most)
        return log_scale.exp(), log_scale

    def _shift(self, shift: Tensor) -> Tensor:
        return shift if self.max_amplification is None else shift.clamp(-FARTHEST, FARTHEST)

    def largest_value(self, noise: float) -> float:
        """Return the bound of the elements that change; infinite without ``max_amplification``."""
        most = math.inf if self.max_amplification is None else self.max_amplification
        return most * (noise + FARTHEST)

    def _to_noise(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self._split(parameters)
        scale, log_scale = self._scales(raw)
        return torch.addcmul(self._shift(shift), y, scale), log_scale

    def _to_data(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self._split(parameters)
        scale, log_scale = self._scales(raw)
        return (x - self._shift(shift)) / scale, -log_scale


@integers_checked
@takes_arguments_of(coupling_net, without=GIVEN)
def additive_coupling(
    input_dim: int | Sequence[int], *, mask: Mask | None = None, **options: Any
) -> AdditiveCoupling:
    """Return an :class:`AdditiveCoupling` of vectors or images with a network of its own.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        mask: Halves for vectors and a checkerboard for images if not given.
        options: Others.

    Example:
        >>> additive_coupling(3, hidden=(8,))(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    mask = default_mask(input_dim, mask)
    return AdditiveCoupling(mask, coupling_net(mask, input_dim, 1, **options))


@integers_checked
@takes_arguments_of(additive_coupling, without=["input_dim", *CONTEXT])
def conditional_additive_coupling(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalFlow:
    """Return an additive coupling that waits for context vectors of ``context_dim`` or maps.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        context_dim: Length of the context vectors, or sizes of a map.
        options: Others.

    Example:
        >>> conditional_additive_coupling(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    context_shape = as_shape(context_dim)
    return ConditionalFlow(additive_coupling(input_dim, context_shape=context_shape, **options))


@integers_checked
@takes_arguments_of(coupling_net, without=GIVEN)
def affine_coupling(
    input_dim: int | Sequence[int],
    *,
    mask: Mask | None = None,
    scale: ScaleName = "tanh",
    **options: Any,
) -> AffineCoupling:
    """Return an :class:`AffineCoupling` of vectors or images with a network of its own.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        mask: Halves for vectors and a checkerboard for images if not given.
        scale: As for :class:`AffineCoupling`.
        options: Others.

    Example:
        >>> affine_coupling((1, 4, 4))(torch.ones(2, 1, 4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    mask = default_mask(input_dim, mask)
    return AffineCoupling(mask, coupling_net(mask, input_dim, 2, **options), scale=scale)


@integers_checked
@takes_arguments_of(affine_coupling, without=["input_dim", *CONTEXT])
def conditional_affine_coupling(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalFlow:
    """Return an affine coupling that waits for context vectors of ``context_dim`` or maps.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        context_dim: Length of the context vectors, or sizes of a map.
        options: Others.

    Example:
        >>> conditional_affine_coupling(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    context_shape = as_shape(context_dim)
    return ConditionalFlow(affine_coupling(input_dim, context_shape=context_shape, **options))
