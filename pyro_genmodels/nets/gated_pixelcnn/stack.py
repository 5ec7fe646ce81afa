"""What networks of gated layers share: how levels enter, how logits leave, how all is sampled."""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import EventShape, Float
from pyro_genmodels.nets.autoregressive.base import AutoregressiveNet, IncrementalEvaluation
from pyro_genmodels.nets.autoregressive.levels import LevelInput, image_shape
from pyro_genmodels.nets.gated_pixelcnn.attention import CausalAttention
from pyro_genmodels.nets.gated_pixelcnn.incremental import StackEvaluation
from pyro_genmodels.nets.gated_pixelcnn.layers import GatedLayer
from pyro_genmodels.nets.gated_pixelcnn.output_layers import output_stack
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d


class GatedStackNet(AutoregressiveNet, Abstract):
    """A vertical and a horizontal stack; the skip connections' sum through two 1x1 layers.

    A subclass adds layers by :meth:`add_gated` and ``self.layers.append``.

    Args:
        event_shape: ``(C, H, W)``, or ``(H, W)`` for a map of one channel.
        num_levels: Levels of a sub-pixel.
        hidden_channels: Features of each stack.
        output_channels: Features of the skip connections; as many as hidden ones by default.
        residual_channels: Features inside the residual connections of gated and of output layers.
        num_output_layers: Residual 1x1 layers behind the sum of the skip connections.
        embedding_size: Size of a vector looked up for each level; levels as numbers by default.
        dropout: Share of the features behind a gate that is dropped in training mode.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors or maps.
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        hidden_channels: int,
        output_channels: int | None,
        embedding_size: int | None,
        dropout: float,
        num_classes: int | None,
        context_shape: EventShape | None,
        residual_channels: int | None = None,
        num_output_layers: int = 0,
    ) -> None:
        check_positive(hidden_channels=hidden_channels)
        check(0 <= dropout < 1, "dropout", "be in [0, 1)", dropout)
        image = image_shape(event_shape)
        super().__init__(
            event_shape,
            num_levels,
            context_features=hidden_channels,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        groups = image[0]
        outputs = hidden_channels if output_channels is None else output_channels
        inner = outputs if residual_channels is None else residual_channels
        sized = {"hidden_channels": hidden_channels, "output_channels": outputs}
        for name, size in (sized | {"residual_channels": inner}).items():
            check(size >= groups, name, f"be at least the image's channels, {groups}", size)
        check(num_output_layers >= 0, "num_output_layers", "not be negative", num_output_layers)
        self._common: dict[str, Any] = {
            "skip_channels": outputs,
            "num_groups": groups,
            "dropout": dropout,
            "context": None if self.context_event_dim is None else hidden_channels,
        }
        self._channels, self._residual_channels = hidden_channels, residual_channels
        self.levels = LevelInput(num_levels, groups, embedding_size=embedding_size)
        self.layers = nn.ModuleList()
        self.output_stack = output_stack(num_output_layers, outputs, inner, num_groups=groups)
        sizes = (outputs, outputs, groups * num_levels)
        self.outputs = nn.ModuleList(
            MaskedConv2d(a, b, 1, kind="B", num_groups=groups) for a, b in itertools.pairwise(sizes)
        )

    def add_gated(self, kernel_size: int, *, last: bool = False) -> None:
        """Add a gated layer; the first one is shifted."""
        inputs, kind = (self._channels, "B") if self.layers else (self.levels.channels, "A")
        options: dict[str, Any] = {"kind": kind, "last": last, **self._common}
        options["residual_channels"] = self._residual_channels
        self.layers.append(GatedLayer(inputs, self._channels, kernel_size, **options))

    def as_map(self, features: Tensor | None, batch_size: int) -> Tensor | None:
        """Return the context's features ``(batch, F, rows, columns)``, sizes 1 if all alike."""
        del batch_size
        if features is None or features.dim() == 4:
            return features
        return features[:, :, None, None]

    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return the logits ``(batch, *event_shape, K)``."""
        features = self.as_map(features, len(x))
        x = x if x.dim() == 4 else x[:, None]
        v = h = levels = self.levels(x)
        y = x.new_zeros(())
        for layer in self.layers:
            if isinstance(layer, CausalAttention):
                h, skip = layer(levels, h, features)
            else:
                v, h, skip = layer(v, h, features)
            y = y + skip
        for layer in self.output_stack:
            y = layer(y)
        for layer in self.outputs:
            y = layer(y.relu())
        logits: Tensor = y.unflatten(1, (self.levels.num_groups, self.num_levels)).movedim(2, -1)
        return logits.reshape(len(x), *self.event_shape, self.num_levels)

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that makes the vertical stack a row at a time."""
        return StackEvaluation(
            self.levels,
            self.layers,
            self.outputs,
            stack=self.output_stack,
            width=self.event_shape[-1],
            batch_size=batch_size,
            features=self.as_map(features, batch_size),
        )
