"""Networks whose output at each element depends only on the elements before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._batching import over_batch
from pyro_genmodels._checks import check, check_event_shape, check_trailing
from pyro_genmodels._configuration import Configured
from pyro_genmodels._modules import first_tensor
from pyro_genmodels._typing import EventShape, Float, Int, Num
from pyro_genmodels.nets.layers.context import ContextEmbedding

_LONGEST_PART = 64


def raster_indices(event_shape: EventShape) -> Int[Tensor, " elements"]:
    """Return the indices of a flattened event's elements, row by row, pixel by pixel."""
    indices = torch.arange(torch.Size(event_shape).numel())
    if len(event_shape) < 3:
        return indices
    return indices.view(torch.Size(event_shape)).movedim(0, -1).reshape(-1)


class AutoregressiveNet(Configured, nn.Module, Abstract):
    r"""Gives, for each element :math:`x_t`, the parameters of :math:`p(x_t \mid x_{<t}, c)`.

    A subclass writes :meth:`evaluate` (all elements at once, which scores and trains) and, for
    sampling near the cost of one such pass, :meth:`incremental` (one element after another, kept
    intermediate results). Without the second it can still be sampled, one pass an element.

    What the parameters are, the network says: logits of a softmax over levels, unless it sets
    :attr:`num_mixtures`.

    Args:
        event_shape: Sizes of one data point: ``(D,)``, ``(C, H, W)``, or ``(H, W)`` for a map
            without channels, such as one of codes.
        num_levels: Elements are integers ``0 .. num_levels - 1``.
        context_features: Number of features that a context is brought to.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)``, maps ``(C, H, W)`` or sequences ``(C, L)``.
        context_ranks: Ranks of ``context_shape`` that the network can use.

    Raises:
        ValueError: If a size is impossible.
    """

    num_mixtures: int | None = None
    """Components of a discretised mixture of logistics; ``None`` of a softmax over levels.

    The parameters are then as many logits, locations and log-scales, on data scaled to [-1, 1].
    """

    num_linked: int = 1
    """Number of successive elements whose mixture is one, as that of a pixel's channels may be.

    The logits of all but the first of them hold log-masses of those before.
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        context_features: int = 1,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
        context_ranks: Iterable[int] = (1, 3),
    ) -> None:
        super().__init__()
        self.event_shape = check_event_shape(event_shape, ranks=(1, 2, 3))
        check(num_levels >= 2, "num_levels", "be at least 2", num_levels)
        self.num_levels = num_levels
        self.num_classes = num_classes
        self.context = ContextEmbedding(
            context_features,
            num_classes=num_classes,
            context_shape=context_shape,
            ranks=context_ranks,
        )
        self.context_shape = self.context.context_shape

    @property
    def context_event_dim(self) -> int | None:
        """Rank of one context (label 0, vector 1, sequence 2, map 3); ``None`` if there is none."""
        return self.context.event_dim

    @property
    def context_channels(self) -> int | None:
        """Number of the features that a context is brought to; ``None`` if there is none."""
        return None if self.context_event_dim is None else self.context.features

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the parameters, in which the network computes."""
        return first_tensor(self).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return first_tensor(self).device

    @property
    def order(self) -> Int[Tensor, " elements"]:
        """Indices of the elements of the flattened event, in the order of generation.

        For images: row by row, in a row pixel by pixel, in a pixel channel by channel.
        """
        return raster_indices(self.event_shape).to(self.device)

    @property
    def row_length(self) -> int:
        """Number of successive elements whose noise is drawn, and whose draws are checked, at once.

        A row of an image; of a sequence a part, so that long ones take no more memory.
        """
        if len(self.event_shape) == 1:
            return min(self.event_shape.numel(), _LONGEST_PART)
        return self.event_shape.numel() // self.event_shape[-2]

    def check_dtype(self) -> None:
        """Raise ``ValueError`` unless the network's dtype holds every level exactly."""
        most = int(2 / torch.finfo(self.dtype).eps) + 1
        rule = f"have a dtype that holds {self.num_levels} levels (autocast keeps float32)"
        check(self.num_levels <= most, "net", rule, f"{self.dtype}, which holds {most}")

    def forward(
        self, x: Num[Tensor, ...], context: Num[Tensor, ...] | None = None
    ) -> Float[Tensor, ...]:
        """Return the parameters of every element's law given the elements before it.

        Args:
            x: Levels, ``(*batch, *event_shape)``, of any dtype.
            context: ``(*batch, *context_event)``; batch shapes broadcast.

        Returns:
            ``(*batch, *event_shape, parameters)``: for a softmax over levels, its logits.

        Raises:
            ValueError: If ``x`` or ``context`` has another shape than declared, or the network's
                dtype does not hold all levels.
        """
        check_trailing("x", x, self.event_shape)
        self.check_dtype()
        features = self.context_features(context)
        event_dim = len(self.event_shape)
        return over_batch(
            self.evaluate, (x.to(self.dtype), event_dim), (features, self.features_event_dim)
        )

    def context_features(self, context: Tensor | None) -> Tensor | None:
        """Return what :meth:`evaluate` takes of a context.

        Returns:
            ``(*batch, F)``, for a map ``(*batch, F, H, W)``, for a sequence ``(*batch, F, T)``
            with a feature for each element; ``None`` for none.

        Raises:
            ValueError: If the context is missing, unwanted, out of range or of another shape.
        """
        shape: EventShape = self.event_shape
        # A map's height and width, a sequence's length; there is no map for a vector.
        size = shape[-2:] if len(shape) > 1 or self.context_event_dim == 2 else None
        return self.context(context, size)

    @property
    def features_event_dim(self) -> int:
        """Rank of one context's features: 3 for maps, 2 for sequences, else 1."""
        return max(1, self.context_event_dim or 0)

    @abstractmethod
    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return the parameters for one batch dimension; ``x`` holds levels."""

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that starts at the first element."""
        return WholeEvaluation(self, batch_size, features)


class IncrementalEvaluation(ABC):
    """Evaluates a network element by element, in the order of generation.

    Call :meth:`parameters`, then :meth:`append`, for each element in turn.
    """

    @abstractmethod
    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the next element's parameters; the tensor is overwritten by the next call."""

    @abstractmethod
    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the next element's value."""


class WholeEvaluation(IncrementalEvaluation):
    """Evaluates the whole network for each element: slow, but right by construction."""

    def __init__(self, net: AutoregressiveNet, batch_size: int, features: Tensor | None) -> None:
        self._net, self._features = net, features
        size = (batch_size, net.event_shape.numel())
        self._levels = torch.zeros(size, dtype=net.dtype, device=net.device)
        self._order: list[int] = net.order.tolist()
        self._position = 0

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the next element's parameters."""
        x = self._levels.view(-1, *self._net.event_shape)
        parameters = self._net.evaluate(x, self._features).flatten(1, x.dim() - 1)
        return parameters[:, self._order[self._position]]

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the next element's value."""
        self._levels[:, self._order[self._position]] = level.to(self._levels.dtype)
        self._position += 1
