"""Short form: masked autoregressive flows of Pyro's own parts; one layer is a Gaussian MADE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import transforms as pt
from pyro.distributions.conditional import ConditionalTransformModule
from torch.distributions.transforms import Transform

from pyro_genmodels._checks import check, check_event_shape, check_positive
from pyro_genmodels._typing import EventShape, Tensor
from pyro_genmodels.models.flow import FlowModel


class AutoregressiveGaussian(ConditionalTransformModule):
    r"""Noise to data whose elements are Gaussian given those before.

    .. math:: y_t = \mu_t(y_{<t}, c) + \sigma_t(y_{<t}, c)\, x_t

    Pyro's ``AffineAutoregressive`` the other way round: data are scored in one evaluation, and
    drawn element by element. A label enters as a one-hot vector.
    """

    def __init__(self, input_dim: int, context_dim: int, *, is_label: bool, **options: Any) -> None:
        super().__init__()
        self.context_dim, self.is_label = context_dim, is_label
        self.affine = pt.conditional_affine_autoregressive(input_dim, context_dim, **options)

    def condition(self, context: Tensor) -> Transform:
        """Return the transform at this context."""
        if self.is_label:
            dtype = next(self.parameters()).dtype
            context = F.one_hot(context.long(), self.context_dim).to(dtype)
        to_noise: Transform = self.affine.condition(context)
        return to_noise.inv


def maf(
    event_shape: EventShape,
    *,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    num_layers: int = 5,
    hidden: Sequence[int] = (64, 64),
) -> FlowModel:
    """Make a masked autoregressive flow of real-valued vectors; one layer is a Gaussian MADE.

    Each layer gives an element's mean and scale from the elements before it; the order of the
    elements is reversed between layers. Data are scored in one evaluation of each network, drawn
    in as many as there are elements.

    Args:
        event_shape: ``(D,)``.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector ``(C,)``.
        num_layers: Layers; with one the model is MADE with Gaussian outputs.
        hidden: Widths of the hidden layers of each network, at least ``D`` each.

    Returns:
        The model.

    Raises:
        ValueError: If a size is impossible, or both kinds of context are given.

    References:
        Papamakarios et al. (2017), Masked autoregressive flow for density estimation.
        https://arxiv.org/abs/1705.07057. Germain et al. (2015), MADE.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> maf((4,), num_layers=1).sample(3).shape
        torch.Size([3, 4])
    """
    (size,) = check_event_shape(event_shape, ranks=(1,))
    check_positive(num_layers=num_layers)
    fits = all(width >= size for width in hidden)
    check(fits, "hidden", f"have widths of {size} or more, the length of a vector", tuple(hidden))
    if context_shape is not None:
        check_event_shape(context_shape, ranks=(1,), argument="context_shape")
    context = num_classes if context_shape is None else context_shape[0]
    parts: list[Any] = []
    for index in range(num_layers):
        if index:
            parts.append(pt.Permute(torch.arange(size).flip(0)))
        options: dict[str, Any] = {"hidden_dims": list(hidden)}
        if context is None:
            parts.append(pt.affine_autoregressive(size, **options).inv)
        else:
            is_label = num_classes is not None
            parts.append(AutoregressiveGaussian(size, context, is_label=is_label, **options))
    return FlowModel((size,), parts, num_classes=num_classes, context_shape=context_shape)
