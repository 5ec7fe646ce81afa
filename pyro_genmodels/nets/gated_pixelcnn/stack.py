"""What networks of gated layers share."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check
from pyro_genmodels._typing import EventShape, Float
from pyro_genmodels.nets.autoregressive.base import IncrementalEvaluation
from pyro_genmodels.nets.autoregressive.image_net import Maps, SoftmaxImageNet
from pyro_genmodels.nets.gated_pixelcnn.attention import CausalAttention
from pyro_genmodels.nets.gated_pixelcnn.incremental import StackEvaluation
from pyro_genmodels.nets.gated_pixelcnn.layers import GatedLayer
from pyro_genmodels.nets.gated_pixelcnn.output_layers import ResidualOutput


class GatedStackNet(SoftmaxImageNet, Abstract):
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
        super().__init__(
            event_shape,
            num_levels,
            hidden_channels=hidden_channels,
            embedding_size=embedding_size,
            dropout=dropout,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        groups = self.levels.num_groups
        outputs = hidden_channels if output_channels is None else output_channels
        inner = outputs if residual_channels is None else residual_channels
        self.check_features(
            hidden_channels=hidden_channels, output_channels=outputs, residual_channels=inner
        )
        check(num_output_layers >= 0, "num_output_layers", "not be negative", num_output_layers)
        self._common: dict[str, Any] = {
            "skip_channels": outputs,
            "num_groups": groups,
            "dropout": dropout,
            "context": self.context_channels,
        }
        self._channels, self._residual_channels = hidden_channels, residual_channels
        self.layers = nn.ModuleList()
        self.output_stack = nn.ModuleList(
            ResidualOutput(outputs, inner, num_groups=groups) for _ in range(num_output_layers)
        )
        self.add_outputs(outputs, outputs)

    def add_gated(self, kernel_size: int, *, last: bool = False) -> None:
        """Add a gated layer; the first one is shifted."""
        inputs, kind = (self._channels, "B") if self.layers else (self.levels.channels, "A")
        options = {"residual_channels": self._residual_channels, **self._common}
        layer = GatedLayer(inputs, self._channels, kernel_size, kind=kind, last=last, **options)
        self.layers.append(layer)

    def hidden(self, levels: Maps, features: Maps | None) -> Maps:
        """Return the sum of the skip connections, behind the residual 1x1 layers."""
        v = h = levels
        y = levels.new_zeros(())
        for layer in self.layers:
            if isinstance(layer, CausalAttention):
                h, skip = layer(levels, h, features)
            else:
                v, h, skip = layer(v, h, features)
            y = y + skip
        for layer in self.output_stack:
            y = layer(y)
        return y

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that makes the vertical stack a row at a time."""
        layers = [cast("GatedLayer | CausalAttention", layer) for layer in self.layers]
        stack = [cast(ResidualOutput, layer) for layer in self.output_stack]
        features = self.as_map(features, batch_size)
        return StackEvaluation(self, layers, stack, batch_size, features)
