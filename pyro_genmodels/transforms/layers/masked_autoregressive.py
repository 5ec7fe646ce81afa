"""Gaussian autoregression as a bijection: one layer of a masked autoregressive flow."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from pyro.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.nets.layers import one_hot_context
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform

_BOUND = 5.0  # of the log-scales: factors of 150, which float32 can undo


class MaskedAutoregressive(FlowTransform):
    r"""Standardises each element of a vector given the elements before it.

    .. math:: x_t = (y_t - \mu_t(y_{<t}, c))\, e^{-s_t(y_{<t}, c)}

    from data :math:`y` to noise :math:`x`. With Gaussian noise this is MADE with Gaussian outputs.
    Data are scored by one evaluation of Pyro's masked network; drawing takes one for each element.
    Pyro's ``AffineAutoregressive`` is the same map the other way round, fast to draw.

    Args:
        num_features: Length D of the vectors; one element is standardised by learned constants.
        hidden: Widths of the hidden layers, D or more each.
        num_classes: Condition on labels, which enter as one-hot vectors.
        context_shape: Condition on vectors.

    Raises:
        ValueError: If a size is not positive, a layer is too narrow, or contexts are maps.

    References:
        Papamakarios et al. (2017), Masked autoregressive flow, eq. 2-4.
        https://arxiv.org/abs/1705.07057. Germain et al. (2015), MADE.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> MaskedAutoregressive(4, hidden=(8,))(torch.zeros(2, 4)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        num_features: int,
        *,
        hidden: Sequence[int] = (64, 64),
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        check_positive(num_features=num_features)
        super().__init__(1, event_shape=torch.Size([num_features]))
        fits = len(hidden) > 0 and min(hidden) >= num_features
        check(fits, "hidden", f"be widths of {num_features} or more", tuple(hidden))
        self.num_classes = num_classes
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        rule = "be that of a vector"
        check(self.context_event_dim in (None, 0, 1), "context_shape", rule, context_shape)
        # In the natural order: what turns vectors around between layers is a transform too.
        order: dict[str, Any]
        widths, device = list(hidden), torch.get_default_device()
        # Masks are asked for their values, which "meta" has none of. Of one element Pyro warns that
        # the map is affine, which is what is wanted.
        with torch.device("cpu"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input_dim = 1", category=UserWarning)
            order = {"permutation": torch.arange(num_features), "skip_connections": False}
            if self.context_event_dim is None:
                net: nn.Module = AutoRegressiveNN(num_features, widths, **order)
            else:
                inputs = (num_classes or 0) + (self.context_shape[0] if self.context_shape else 0)
                net = ConditionalAutoRegressiveNN(num_features, inputs, widths, **order)
        self.net = net.to(device)

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant."""
        y = torch.zeros_like(x)
        places = torch.arange(x.shape[-1], device=x.device)
        for place in range(x.shape[-1]):
            loc, log_scale = self._law(y, context)
            y = torch.where(places == place, loc + x * log_scale.exp(), y)
        return y, log_scale.sum(-1)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant."""
        loc, log_scale = self._law(y, context)
        return (y - loc) * torch.exp(-log_scale), -log_scale.sum(-1)

    def _law(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if context is None:
            loc, raw = self.net(y)
        else:
            context = one_hot_context(context, self.num_classes, self.context_shape)
            loc, raw = self.net(y, context.to(y.dtype))
        return loc.to(y.dtype), _BOUND * torch.tanh(raw.to(y.dtype) / _BOUND)


@integers_checked
@takes_arguments_of(MaskedAutoregressive, without=["num_features"])
def masked_autoregressive(input_dim: int, **options: Any) -> MaskedAutoregressive:
    """Return a :class:`MaskedAutoregressive` of vectors of ``input_dim``.

    Args:
        input_dim: Length of the vectors.
        options: Others.

    Example:
        >>> masked_autoregressive(3, hidden=(8,)).num_classes is None
        True
    """
    return MaskedAutoregressive(input_dim, **options)


@integers_checked
@takes_arguments_of(MaskedAutoregressive, without=["num_features", *CONTEXT])
def conditional_masked_autoregressive(
    input_dim: int, context_dim: int, **options: Any
) -> ConditionalFlow:
    """Return a masked autoregression that waits for context vectors of ``context_dim``.

    Args:
        input_dim: Length of the vectors.
        context_dim: Length of the context vectors.
        options: Others.

    Example:
        >>> flow = conditional_masked_autoregressive(3, 2, hidden=(8,))
        >>> flow.condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    return ConditionalFlow(MaskedAutoregressive(input_dim, context_shape=(context_dim,), **options))
