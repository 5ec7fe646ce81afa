"""What networks over images share: how levels enter, how logits leave, the order of generation."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import EventShape, Float, Num
from pyro_genmodels.nets.autoregressive.base import AutoregressiveNet, IncrementalEvaluation
from pyro_genmodels.nets.autoregressive.levels import LevelInput, image_shape
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d
from pyro_genmodels.nets.layers.mlp import check_dropout

Maps: TypeAlias = Float[Tensor, "_ _ _ _"]
"""Features of images, ``(batch, features, height, width)``."""


class ImageNet(AutoregressiveNet, Abstract):
    """An autoregressive network over images.

    Its modules are the context's embedding, the input of the levels (:attr:`levels`), and what a
    subclass adds.

    Args:
        event_shape: ``(C, H, W)``, or ``(H, W)`` for a map of one channel.
        num_levels: Levels of a sub-pixel.
        hidden_channels: Features that a context is brought to.
        embedding_size: Size of a vector looked up for each level; levels as numbers by default.
        dropout: Share of features that the subclass drops, in training mode.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors or maps.
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        hidden_channels: int,
        embedding_size: int | None = None,
        dropout: float,
        num_classes: int | None,
        context_shape: EventShape | None,
    ) -> None:
        check_positive(hidden_channels=hidden_channels)
        check_dropout(dropout)
        channels = image_shape(event_shape)[0]
        super().__init__(
            event_shape,
            num_levels,
            context_features=hidden_channels,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        self.levels = LevelInput(num_levels, channels, embedding_size=embedding_size)

    def check_features(self, **widths: int) -> None:
        """Raise ``ValueError`` unless each width gives every channel of the image a feature."""
        channels = self.levels.num_groups
        for name, width in widths.items():
            check(width >= channels, name, f"be at least the image's channels, {channels}", width)

    def as_map(self, features: Tensor | None, batch_size: int) -> Tensor | None:
        """Return the context's features ``(batch, F, rows, columns)``, sizes 1 if all alike."""
        del batch_size
        if features is None or features.dim() == 4:
            return features
        return features[:, :, None, None]


class SoftmaxImageNet(ImageNet, Abstract):
    """Layers of masked convolutions, then 1x1 layers to a softmax over levels.

    The features are split between the channels, in order. A subclass adds its layers, then the
    last ones by :meth:`add_outputs`, and writes :meth:`hidden`; to be sampled fast also
    :meth:`incremental`, which returns a :class:`RasterEvaluation`.

    Example:
        >>> import torch
        >>> class TwoLayerNet(SoftmaxImageNet):
        ...     def __init__(self, event_shape, num_levels, *, hidden_channels=8):
        ...         options = {"dropout": 0.0, "num_classes": None, "context_shape": None}
        ...         super().__init__(
        ...             event_shape, num_levels, hidden_channels=hidden_channels, **options
        ...         )
        ...         groups = self.levels.num_groups
        ...         sizes = (self.levels.channels, hidden_channels)
        ...         self.first = MaskedConv2d(*sizes, 5, kind="A", num_groups=groups)
        ...         self.add_outputs(hidden_channels)
        ...     def hidden(self, levels, features):
        ...         return self.first(levels)
        >>> TwoLayerNet((3, 8, 8), 16)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8, 16])
    """

    def add_outputs(self, *widths: int) -> None:
        """Add masked 1x1 layers between features of these widths, and one to the logits."""
        groups = self.levels.num_groups
        sizes = (*widths, groups * self.num_levels)
        self.outputs = nn.ModuleList(
            MaskedConv2d(a, b, 1, kind="B", num_groups=groups) for a, b in itertools.pairwise(sizes)
        )

    @abstractmethod
    def hidden(self, levels: Maps, features: Maps | None) -> Maps:
        """Return the features that enter the last layers.

        Args:
            levels: Features of the levels, from :attr:`levels`.
            features: Features of the context, from :meth:`as_map`.
        """

    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return the logits ``(batch, *event_shape, K)``."""
        levels = self.levels(x if x.dim() == 4 else x[:, None])
        y = self.hidden(levels, self.as_map(features, len(x)))
        for layer in self.outputs:
            y = layer(y.relu())
        logits: Tensor = y.unflatten(1, (self.levels.num_groups, self.num_levels)).movedim(2, -1)
        return logits.reshape(len(x), *self.event_shape, self.num_levels)


class RasterEvaluation(IncrementalEvaluation):
    """Evaluates a network over images row by row, pixel by pixel, channel by channel.

    Args:
        net: The network.
    """

    targets: Sequence[Sequence[Tensor]]
    """Where the features of a row's levels are written, by column and channel."""

    def __init__(self, net: ImageNet) -> None:
        self._levels, self._width = net.levels, net.event_shape[-1]
        self._row = self._column = self._channel = 0

    @abstractmethod
    def start_row(self, row: int) -> None:
        """Make what a row reads of those above it."""

    @abstractmethod
    def step(self, column: int, channel: int) -> Float[Tensor, "batch parameters"]:
        """Return the parameters of a sub-pixel."""

    def finish(self, column: int) -> None:
        """Take in a pixel whose channels are all there."""

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the parameters of the next sub-pixel."""
        if self._column == self._channel == 0:
            self.start_row(self._row)
        return self.step(self._column, self._channel)

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the value of the sub-pixel."""
        self._levels.write(level, self._channel, self.targets[self._column][self._channel])
        self._channel = (self._channel + 1) % self._levels.num_groups
        if self._channel == 0:
            self.finish(self._column)
            self._column = (self._column + 1) % self._width
            self._row += self._column == 0
