"""Couplings: one part of an event is changed by a map that the other part determines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import as_shape, check, check_choice, check_event_shape
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets import MLP, ConvNet
from pyro_genmodels.transforms._base import FlowTransform
from pyro_genmodels.transforms.conditional import ConditionalFlow
from pyro_genmodels.transforms.masks import Checkerboard, HalfMask, Mask

ScaleName = Literal["tanh", "exp", "sigmoid"]


class Coupling(FlowTransform, ABC):
    """A mask, a network that sees the part that passes, and an elementwise map of the other part.

    A subclass writes the elementwise map, from data to noise and back, given its parameters.

    Args:
        mask: Which part passes unchanged.
        net: Network that returns ``num_parameters`` values for each feature that changes, those of
            one kind together: it takes as many features as the first and returns
            ``num_parameters`` times as many as the second number of ``mask.sizes(event_shape)``.
            Its ``num_classes`` and ``context_shape`` say what context it takes, if any.
        num_parameters: Parameters of the elementwise map.
        cache_size: 0 or 1; see :meth:`FlowTransform.with_cache`.
    """

    def __init__(
        self, mask: Mask, net: nn.Module, *, num_parameters: int, cache_size: int = 0
    ) -> None:
        super().__init__(mask.event_dim, cache_size=cache_size)
        self.mask = mask
        self.net = net
        self.num_parameters = num_parameters
        self.num_classes = getattr(net, "num_classes", None)
        self.context_shape = getattr(net, "context_shape", None)
        self._known_shape: torch.Size | None = None

    @abstractmethod
    def _to_noise(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the noise of the changing elements and the log-slopes; ``None`` for zeros."""

    @abstractmethod
    def _to_data(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the data of the changing elements and the log-slopes; ``None`` for zeros."""

    def forward_and_log_det(
        self, x: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return the data of the noise ``x`` and the log-determinant."""
        return self._couple(x, context, self._to_data)

    def inverse_and_log_det(
        self, y: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return the noise of the data ``y`` and the log-determinant."""
        return self._couple(y, context, self._to_noise)

    def _couple(
        self,
        x: Tensor,
        context: Tensor | None,
        change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
    ) -> tuple[Tensor, Tensor]:
        self._check_shape(x.shape[x.dim() - self.mask.event_dim :])
        seen, changed = self.mask.divide(x)
        changed, log_slope = change(changed, self._elementwise(seen, x, context))
        y = self.mask.merge(seen, changed)
        if log_slope is None:
            return y, x.new_zeros(x.shape[: x.dim() - self.mask.event_dim])
        return y, log_slope.sum(list(range(-self.mask.changed_dim, 0)))

    def _check_shape(self, shape: torch.Size) -> None:
        if shape != self._known_shape:
            self.mask.check(shape)
            self._known_shape = shape

    def _elementwise(self, seen: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        """Return ``(*batch, num_parameters, *changed)``."""
        output: Tensor = self.net(seen) if context is None else self.net(seen, context)
        shape = x.shape[x.dim() - self.mask.event_dim :]
        features = self.mask.sizes(shape)[1]
        expected = self.num_parameters * features
        found = output.shape[-self.mask.event_dim]
        check(
            found == expected, "net", f"return {expected} features for events {tuple(shape)}", found
        )
        # Under autocast the network answers in half precision; the map itself stays in x's.
        answers = self.mask.answers(output.to(x.dtype))
        split = (self.num_parameters, features)
        parameters: Tensor = answers.unflatten(-self.mask.changed_dim, split)
        return parameters

    def _split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Return each of the parameters in the shape of the changing elements."""
        return parameters.unbind(-1 - self.mask.changed_dim)


class AdditiveCoupling(Coupling):
    r"""Shifts one part of an event by a function of the other.

    .. math:: x_a = y_a, \qquad x_b = y_b + m(y_a)

    from data :math:`y` to noise :math:`x`. The Jacobian is unit triangular, so the
    log-determinant is zero.

    Args:
        mask: Which part passes unchanged.
        net: Network :math:`m`: returns one value for each feature that changes; see
            :class:`Coupling`.
        cache_size: 0 or 1; see :meth:`FlowTransform.with_cache`.

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

    def __init__(self, mask: Mask, net: nn.Module, *, cache_size: int = 0) -> None:
        super().__init__(mask, net, num_parameters=1, cache_size=cache_size)

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
        cache_size: 0 or 1; see :meth:`FlowTransform.with_cache`.

    Raises:
        ValueError: If an event has too few dimensions for the mask, the mask leaves a part of it
            empty, or the network returns another number of features.

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
        self, mask: Mask, net: nn.Module, *, scale: ScaleName = "tanh", cache_size: int = 0
    ) -> None:
        super().__init__(mask, net, num_parameters=2, cache_size=cache_size)
        check_choice("scale", scale, get_args(ScaleName))
        self.scale = scale
        self.rescale = nn.Parameter(torch.full((), 2.0)) if scale == "tanh" else None

    def _scales(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and log-scale."""
        if self.scale == "sigmoid":
            scale = torch.sigmoid(raw + 2) + 1e-3
            return scale, scale.log()
        log_scale = raw if self.rescale is None else self.rescale * torch.tanh(raw)
        return log_scale.exp(), log_scale

    def _to_noise(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self._split(parameters)
        scale, log_scale = self._scales(raw)
        return torch.addcmul(shift, y, scale), log_scale

    def _to_data(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self._split(parameters)
        scale, log_scale = self._scales(raw)
        return (x - shift) / scale, -log_scale


def default_mask(input_dim: int | Sequence[int], mask: Mask | None = None) -> Mask:
    """Return the mask, or halves for vectors and a checkerboard for images."""
    if mask is not None:
        return mask
    return HalfMask() if len(as_shape(input_dim)) == 1 else Checkerboard()


def coupling_net(
    mask: Mask,
    input_dim: int | Sequence[int],
    num_parameters: int,
    *,
    context_dim: int | Sequence[int] | None = None,
    hidden: Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    """Return a network for a coupling of such events, zero at the start.

    Raises:
        ValueError: If the mask leaves a part of the events empty.
    """
    shape = check_event_shape(as_shape(input_dim))
    mask.check(shape)
    seen, changed = mask.sizes(shape)
    options = {"zero_init": True} | options
    if context_dim is not None:
        options["context_shape"] = as_shape(context_dim)
    if len(shape) == 1:
        hidden = (64, 64) if hidden is None else hidden
        return MLP(seen, num_parameters * changed, hidden=hidden, **options)
    hidden = (32, 32) if hidden is None else hidden
    return ConvNet(seen, num_parameters * changed, hidden=hidden, **options)


def additive_coupling(
    input_dim: int | Sequence[int], *, mask: Mask | None = None, **options: Any
) -> AdditiveCoupling:
    """Return an :class:`AdditiveCoupling` of vectors or images with a network of its own.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        mask: Halves for vectors and a checkerboard for images if not given.
        options: ``hidden`` widths and others, as for :class:`~pyro_genmodels.nets.MLP` or, for
            images, :class:`~pyro_genmodels.nets.ConvNet`.

    Example:
        >>> additive_coupling(3, hidden=(8,))(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    mask = default_mask(input_dim, mask)
    return AdditiveCoupling(mask, coupling_net(mask, input_dim, 1, **options))


def conditional_additive_coupling(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalFlow:
    """Return an additive coupling that waits for context vectors of ``context_dim`` or maps.

    Example:
        >>> conditional_additive_coupling(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    return ConditionalFlow(additive_coupling(input_dim, context_dim=context_dim, **options))


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
        options: As for :func:`additive_coupling`.

    Example:
        >>> affine_coupling((1, 4, 4))(torch.ones(2, 1, 4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    mask = default_mask(input_dim, mask)
    return AffineCoupling(mask, coupling_net(mask, input_dim, 2, **options), scale=scale)


def conditional_affine_coupling(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalFlow:
    """Return an affine coupling that waits for context vectors of ``context_dim`` or maps.

    Example:
        >>> conditional_affine_coupling(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    return ConditionalFlow(affine_coupling(input_dim, context_dim=context_dim, **options))
