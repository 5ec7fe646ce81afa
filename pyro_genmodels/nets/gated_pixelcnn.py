"""The gated PixelCNN."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_event_shape, check_positive
from pyro_genmodels._typing import EventShape, Float, Num
from pyro_genmodels.nets._autoregressive import AutoregressiveNet, IncrementalEvaluation
from pyro_genmodels.nets._gated import GatedLayer
from pyro_genmodels.nets._gated_cache import LayerEvaluation, skip_products
from pyro_genmodels.nets._row_cache import OutputEvaluation
from pyro_genmodels.nets.masked import MaskedConv2d


class GatedPixelCNNNet(AutoregressiveNet):
    r"""The gated PixelCNN: a vertical and a horizontal stack of gated convolutions.

    .. math:: y = \tanh(W_f * x + V_f c) \odot \sigma(W_g * x + V_g c)

    The vertical stack sees all rows above a pixel, the horizontal one the pixels to its left and,
    by a 1x1 layer, the vertical stack; together, given enough layers, the whole past: there is no
    blind spot. Residual connections in the horizontal stack only; from each layer a skip
    connection to the two 1x1 layers at the end. A context is added in every layer, to the gates
    of both stacks: a label's or vector's features everywhere alike, a map's place by place.

    The first layer is shifted (mask A), with a larger kernel and no residual connection; the
    horizontal features are split between the colours, in order, as in
    :class:`~pyro_genmodels.nets.PixelCNNNet`. Beyond the paper: dropout of the gated features.

    Args:
        event_shape: ``(C, H, W)``; any number of channels.
        num_levels: Levels of a sub-pixel.
        hidden_channels: Features of each stack.
        num_layers: Gated layers after the first.
        kernel_size: Size of the first layer's kernel.
        layer_kernel_size: Size of the other layers' kernels.
        output_channels: Features of the skip connections and of the 1x1 layer at the end;
            ``2 * hidden_channels`` by default.
        dropout: Share of features dropped behind each gate, in training mode.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)`` or maps ``(C, H, W)``, averaged to the
            image's size.

    Shape:
        ``(*batch, C, H, W)`` to logits ``(*batch, C, H, W, num_levels)``.

    Raises:
        ValueError: If a size is impossible, or too small to give each colour a feature.

    References:
        van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, section 2.
        https://arxiv.org/abs/1606.05328

    Example:
        >>> net = GatedPixelCNNNet((1, 8, 8), 17, num_classes=10)
        >>> net(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])).shape
        torch.Size([4, 1, 8, 8, 17])
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        hidden_channels: int = 32,
        num_layers: int = 5,
        kernel_size: int = 7,
        layer_kernel_size: int = 3,
        output_channels: int | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check_positive(hidden_channels=hidden_channels)
        check(num_layers >= 0, "num_layers", "not be negative", num_layers)
        check(0 <= dropout < 1, "dropout", "be in [0, 1)", dropout)
        super().__init__(
            check_event_shape(event_shape, ranks=(3,)),
            num_levels,
            context_features=hidden_channels,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        groups = self.event_shape[0]
        rule = f"be at least the number of image channels, {groups}"
        check(hidden_channels >= groups, "hidden_channels", rule, hidden_channels)
        outputs = 2 * hidden_channels if output_channels is None else output_channels
        check(outputs >= groups, "output_channels", rule, outputs)
        self.layers = nn.ModuleList(
            GatedLayer(
                hidden_channels if index else groups,
                hidden_channels,
                layer_kernel_size if index else kernel_size,
                skip_channels=outputs,
                num_groups=groups,
                kind="B" if index else "A",
                last=index == num_layers,
                dropout=dropout,
                context=None if self.context_event_dim is None else hidden_channels,
            )
            for index in range(1 + num_layers)
        )
        sizes = (outputs, outputs, groups * num_levels)
        self.outputs = nn.ModuleList(
            MaskedConv2d(a, b, 1, kind="B", num_groups=groups) for a, b in itertools.pairwise(sizes)
        )

    def scaled(self, x: Tensor) -> Tensor:
        """Return levels brought to [-1, 1]."""
        return x * (2 / (self.num_levels - 1)) - 1

    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return the logits ``(batch, C, H, W, K)``."""
        if features is not None and features.dim() == 2:
            features = features[:, :, None, None]
        v = h = self.scaled(x)
        y: Tensor | float = 0.0
        for layer in self.layers:
            v, h, skip = layer(v, h, features)
            y = y + skip
        for layer in self.outputs:
            y = layer(y.relu())  # type: ignore[union-attr]
        logits: Tensor = y.unflatten(1, (self.event_shape[0], self.num_levels))  # type: ignore
        return logits.movedim(2, -1)

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that makes the vertical stack a row at a time."""
        return GatedPixelCNNEvaluation(self, batch_size, features)


class GatedPixelCNNEvaluation(IncrementalEvaluation):
    """Evaluates a stack of gated layers sub-pixel by sub-pixel, each multiplication done once.

    Memory: for each layer a row of gates, and the rows that its kernel reaches.

    Args:
        net: The network.
        batch_size: Number of images.
        features: Features of the context.
    """

    def __init__(self, net: GatedPixelCNNNet, batch_size: int, features: Tensor | None) -> None:
        self._scale = 2 / (net.num_levels - 1)
        self._colours, _, self._width = net.event_shape
        self._row = self._column = self._colour = 0
        layers = [cast(GatedLayer, layer) for layer in net.layers]
        skip = layers[0].skip.weight
        gated = skip.new_zeros(batch_size, len(layers), layers[0].channels)
        pairs = zip(layers, gated.unbind(1), strict=True)
        self._layers = [LayerEvaluation(layer, y, self._width, features) for layer, y in pairs]
        for layer, following in itertools.pairwise(self._layers):
            layer.feed(following.vertical)
        sums = skip.new_empty(batch_size, skip.shape[0])
        self._skips = skip_products([layer.skip for layer in layers], gated, sums)
        self._output = OutputEvaluation([cast(MaskedConv2d, layer) for layer in net.outputs], sums)
        self._steps = [
            [self._steps_at(j, c) for c in range(self._colours)] for j in range(self._width)
        ]

    def _steps_at(self, j: int, c: int) -> tuple[list[tuple[Tensor, ...]], tuple[Tensor, ...]]:
        inner = [
            layer.gate_step(j, c) + layer.branch_step(following.row, j, c)
            for layer, following in itertools.pairwise(self._layers)
        ]
        return inner, self._layers[-1].gate_step(j, c)

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the logits of the next sub-pixel."""
        c = self._colour
        if self._column == c == 0:
            self._start_row()
        steps, last = self._steps[self._column][c]
        for gates, window, weight, tanh, sigmoid, y, past, seen, branch, target in steps:
            gates.addmm_(window, weight).tanh_()
            torch.addcmul(tanh, tanh, sigmoid, out=y)
            torch.addmm(past, seen, branch, out=target)
        gates, window, weight, tanh, sigmoid, y = last
        gates.addmm_(window, weight).tanh_()
        torch.addcmul(tanh, tanh, sigmoid, out=y)
        bias, gated, weight, target = self._skips[c]
        # Of the last colour a view, of the others a copy.
        torch.addmm(bias, gated.flatten(1), weight, out=target)
        return self._output.step(c)

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the value of the sub-pixel."""
        target = self._layers[0].row.targets[self._column][self._colour]
        target.copy_(level[:, None]).mul_(self._scale).sub_(1)
        self._colour = (self._colour + 1) % self._colours
        if self._colour == 0:
            self._column = (self._column + 1) % self._width

    def _start_row(self) -> None:
        first = self._layers[0]
        if self._row:
            first.vertical.make_room()
            first.vertical.newest.copy_(first.row.pixels)
        for layer in self._layers:
            layer.start_row(self._row)
        self._row += 1
