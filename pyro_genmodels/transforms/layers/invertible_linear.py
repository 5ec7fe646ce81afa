"""Invertible linear maps of features: the 1x1 convolution of images, a full matrix for vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.nets.layers import ContextEmbedding, full_precision, set_to_zero
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.featurewise import FeaturewiseFlow


class InvertibleLinear(FeaturewiseFlow):
    r"""Multiplies the features of a vector, or the channels of each pixel, by a matrix.

    .. math:: x = W y, \qquad W = P L (U + \mathrm{diag}(\pm e^{s}))

    from data :math:`y` to noise :math:`x`, with a fixed permutation :math:`P` and fixed signs, unit
    triangular :math:`L` and strictly triangular :math:`U`: then the log-determinant is the sum of
    :math:`s`, and the inverse two triangular solves. Without ``lu`` all of :math:`W` is free and
    the log-determinant costs a decomposition. Either starts as a random rotation.

    With a context, its embedding is added to the learned entries; it starts at zero.

    Args:
        num_features: Length of the vectors or number of channels.
        event_dim: 1 for vectors, 3 for images (an invertible 1x1 convolution).
        lu: Learn the factors rather than the matrix.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)``.

    Raises:
        ValueError: If a number is not positive, ``event_dim`` is another, or contexts are maps.

    References:
        Kingma and Dhariwal (2018), Glow, section 3.2. https://arxiv.org/abs/1807.03039

    Example:
        >>> layer = InvertibleLinear(12)
        >>> layer.inv(torch.zeros(5, 12, 4, 4)).shape
        torch.Size([5, 12, 4, 4])
    """

    permutation: Tensor
    signs: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        event_dim: int = 3,
        lu: bool = True,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        flat = context_shape is None or len(context_shape) == 1
        check(flat, "context_shape", "be that of a vector", context_shape)
        super().__init__(num_features, event_dim=event_dim)
        self.lu = lu
        rotation = torch.linalg.qr(torch.randn(num_features, num_features)).Q
        if lu:
            self._factorize(rotation)
        else:
            self.weight = nn.Parameter(rotation)
        self.embedding = ContextEmbedding(
            num_features**2, num_classes=num_classes, context_shape=context_shape
        )
        self.num_classes, self.context_shape = num_classes, self.embedding.context_shape
        set_to_zero(self.embedding)

    def _factorize(self, weight: Tensor) -> None:
        permutation, lower, upper = torch.linalg.lu(weight)
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", upper.diagonal().sign())
        # One matrix holds L below its diagonal, s on it and U above: nothing is stored twice.
        log_sizes = upper.diagonal().abs().log().diag()
        self.factors = nn.Parameter(lower.tril(-1) + log_sizes + upper.triu(1))

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant."""
        weight, log_det = self._inverse_weight(context) if self.lu else self._weight(context)
        weight = weight if self.lu else torch.linalg.inv(weight)
        return self._multiply(weight, x), -self._over_event(x, log_det)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant."""
        weight, log_det = self._weight(context)
        return self._multiply(weight, y), self._over_event(y, log_det)

    def largest_value(self, noise: float) -> float:
        """Return the bound by the largest row of the inverse matrix."""
        if self.context_event_dim is not None:
            return math.inf
        with torch.no_grad():
            weight = self._inverse_weight(None)[0] if self.lu else torch.linalg.inv(self.weight)
            return float(weight.abs().sum(-1).max()) * noise

    def _weight(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the matrix and its log-determinant."""
        if not self.lu:
            weight = self._moved(self.weight, context)
            # Float64: the slogdet of a 48x48 kernel loses three digits in float32.
            return weight, torch.linalg.slogdet(weight.double()).logabsdet.to(weight.dtype)
        factors, upper, log_det = self._upper(context)
        with full_precision(factors):
            product = upper + factors.tril(-1) @ upper  # L's diagonal is one
            return self.permutation @ product, log_det

    def _inverse_weight(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the inverse matrix and the log-determinant of the matrix."""
        factors, upper, log_det = self._upper(context)
        inner = torch.linalg.solve_triangular(
            factors, self.permutation.mT.expand_as(factors), upper=False, unitriangular=True
        )
        return torch.linalg.solve_triangular(upper, inner, upper=True), log_det

    def _upper(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the factors in one matrix, the upper one alone, and the log-determinant."""
        factors = self._moved(self.factors, context)
        log_sizes = factors.diagonal(dim1=-2, dim2=-1)
        diagonal = torch.diag_embed(self.signs * log_sizes.exp())
        return factors, factors.triu(1) + diagonal, log_sizes.sum(-1)

    def _moved(self, matrix: Tensor, context: Tensor | None) -> Tensor:
        if context is None and self.context_event_dim is None:
            return matrix  # a module call that does nothing costs as much as a product
        moves = self.embedding(context)
        return matrix if moves is None else matrix + moves.unflatten(-1, matrix.shape)

    def _multiply(self, weight: Tensor, x: Tensor) -> Tensor:
        self._check_features(x)
        # Under autocast a product in half precision would lose what the data say.
        with full_precision(x):
            if weight.dim() > 2:
                flat = x.unsqueeze(-1) if self.domain.event_dim == 1 else x.flatten(-2)
                return (weight @ flat).reshape(x.shape)
            if self.domain.event_dim == 1:
                return F.linear(x, weight)
            if x.device.type == "cpu":
                # Its result has a pixel's channels side by side, as convolutions are faster there.
                return F.linear(x.movedim(-3, -1), weight).movedim(-1, -3)
            return over_batch(lambda flat: F.conv2d(flat, weight[:, :, None, None]), (x, 3))


@integers_checked
@takes_arguments_of(InvertibleLinear, without=["num_features"], event_dim=1)
def invertible_linear(input_dim: int, **options: Any) -> InvertibleLinear:
    """Return an :class:`InvertibleLinear` of vectors of ``input_dim``.

    Args:
        input_dim: Length of the vectors.
        options: Others.

    Example:
        >>> invertible_linear(3)(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """
    return InvertibleLinear(input_dim, **options)


@integers_checked
@takes_arguments_of(InvertibleLinear, without=["num_features", *CONTEXT], event_dim=1)
def conditional_invertible_linear(
    input_dim: int, context_dim: int, **options: Any
) -> ConditionalFlow:
    """Return an :class:`InvertibleLinear` of vectors that waits for a context of ``context_dim``.

    Args:
        input_dim: Length of the vectors.
        context_dim: Length of the context vectors.
        options: Others.

    Example:
        >>> conditional_invertible_linear(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    return ConditionalFlow(InvertibleLinear(input_dim, context_shape=(context_dim,), **options))
