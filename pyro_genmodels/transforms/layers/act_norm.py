"""Activation normalisation: a scale and a shift for each feature, first set by data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.nets.layers import (
    ContextEmbedding,
    FirstData,
    is_frozen,
    set_to_zero,
    set_values,
    standardizing,
)
from pyro_genmodels.transforms.base.amplification import FARTHEST, check_amplification, soft_clip
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.featurewise import FeaturewiseFlow


class ActNorm(FeaturewiseFlow):
    r"""Scales and shifts each feature of a vector, or each channel of an image.

    .. math:: x = (y + b)\, e^{c\, l}

    from data :math:`y` to noise :math:`x`; the constant :math:`c` makes the log-scale learn faster
    than the other parameters. The first data that pass in training mode set :math:`b` and
    :math:`l` so that each feature of the noise has mean zero and deviation one; a feature that
    does not vary is only shifted. On several ranks the moments are those of all their data. A
    frozen parameter keeps its values.

    With a context, its embedding is added to :math:`b` and to :math:`c\,l`; it starts at zero.

    Args:
        num_features: Length of the vectors or number of channels.
        event_dim: 1 for vectors, 3 for images.
        log_scale_factor: :math:`c`.
        max_amplification: Bound on the scale from noise to data and on its inverse: the log-scale
            :math:`l` becomes :math:`b \tanh(l / b)` with the bound's logarithm :math:`b`, and the
            shift is clipped at 10,000. For the learned prior of noise, not for data.
        initialized: Start as the identity and take no first values from data.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)``, or for images on maps ``(C, H, W)``.

    Raises:
        ValueError: If a number is not positive, ``event_dim`` is another, or vectors are to be
            conditioned on maps. When called from noise in training mode before there were data.

    References:
        Kingma and Dhariwal (2018), Glow, section 3.1. https://arxiv.org/abs/1807.03039. The factor
        is that of its code, 3.

    Example:
        >>> layer = ActNorm(3, event_dim=1)
        >>> x = layer.inv(5 + 2 * torch.randn(1000, 3))
        >>> bool(x.mean(0).abs().max() < 1e-5), bool((x.std(0) - 1).abs().max() < 1e-2)
        (True, True)
    """

    def __init__(
        self,
        num_features: int,
        *,
        event_dim: int = 3,
        log_scale_factor: float = 3.0,
        max_amplification: float | None = None,
        initialized: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        check_positive(log_scale_factor=log_scale_factor)
        check_amplification(max_amplification)
        super().__init__(num_features, event_dim=event_dim)
        self.max_amplification = max_amplification
        self.log_scale_factor = float(log_scale_factor)
        self.first_data = FirstData(seen=initialized)
        self.shift = nn.Parameter(torch.zeros(num_features))
        self.log_scale = nn.Parameter(torch.zeros(num_features))
        self.embedding = ContextEmbedding(
            2 * num_features, num_classes=num_classes, context_shape=context_shape
        )
        self.num_classes, self.context_shape = num_classes, self.embedding.context_shape
        fits = event_dim == 3 or self.embedding.event_dim != 3
        check(fits, "context_shape", "be that of a vector for vectors", context_shape)
        set_to_zero(self.embedding)

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant."""
        shift, log_scale = self._values(x, context)
        return x * torch.exp(-log_scale) - shift, -self._total(x, log_scale)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant; the first data set both."""
        if self.first_data.is_due and not is_frozen(self):
            self._standardize(y)
        shift, log_scale = self._values(y, context)
        return (y + shift) * torch.exp(log_scale), self._total(y, log_scale)

    def _standardize(self, y: Tensor) -> None:
        self._check_features(y)
        shift, log_scale = standardizing(y, -self.domain.event_dim)
        set_values(self.shift, shift)
        set_values(self.log_scale, log_scale / self.log_scale_factor)
        self.first_data.done()

    def largest_value(self, noise: float) -> float:
        """Return the bound by the largest scale, as learned or as bounded."""
        if self.max_amplification is not None:
            return self.max_amplification * noise + FARTHEST
        if self.context_event_dim is not None:
            return math.inf
        scale = torch.exp(-self.log_scale_factor * self.log_scale.detach())
        return float((scale * noise + self.shift.detach().abs()).max())

    def _values(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return shift and log-scale, of as many dimensions as an event or more."""
        shift, log_scale = self._learned(x, context)
        if self.max_amplification is None:
            return shift, log_scale
        return shift.clamp(-FARTHEST, FARTHEST), soft_clip(log_scale, self.max_amplification)

    def _learned(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check_features(x)
        rank = self.domain.event_dim
        ones = (1,) * (rank - 1)
        shift = self.shift.reshape(-1, *ones)
        log_scale = self.log_scale_factor * self.log_scale.reshape(-1, *ones)
        if context is None and self.context_event_dim is None:
            return shift, log_scale
        features = self.embedding(context, size=x.shape[1 - rank :] if rank == 3 else None)
        if features is None:
            return shift, log_scale
        if self.context_event_dim != 3:
            features = features.reshape(*features.shape, *ones)
        size = self.num_features
        return shift + features.narrow(-rank, 0, size), log_scale + features.narrow(
            -rank, size, size
        )

    def _total(self, x: Tensor, log_scale: Tensor) -> Tensor:
        """Return the sum of the log-scales over an event, for each of the batch."""
        rank = self.domain.event_dim
        event, batch = x.shape[x.dim() - rank :], x.shape[: x.dim() - rank]
        repeats = event.numel() // math.prod(log_scale.shape[log_scale.dim() - rank :])
        return log_scale.sum(list(range(-rank, 0))).expand(batch) * repeats


@integers_checked
@takes_arguments_of(ActNorm, without=["num_features"], event_dim=1)
def act_norm(input_dim: int, **options: Any) -> ActNorm:
    """Return an :class:`ActNorm` of vectors of ``input_dim``.

    Args:
        input_dim: Length of the vectors.
        options: Others.

    Example:
        >>> act_norm(3).num_features
        3
    """
    return ActNorm(input_dim, **options)


@integers_checked
@takes_arguments_of(ActNorm, without=["num_features", *CONTEXT], event_dim=1)
def conditional_act_norm(input_dim: int, context_dim: int, **options: Any) -> ConditionalFlow:
    """Return an :class:`ActNorm` of vectors that waits for a context of ``context_dim``.

    Args:
        input_dim: Length of the vectors.
        context_dim: Length of the context vectors.
        options: Others.

    Example:
        >>> conditional_act_norm(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    return ConditionalFlow(ActNorm(input_dim, context_shape=(context_dim,), **options))
