"""The original PixelCNN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check
from pyro_genmodels._typing import EventShape, Float
from pyro_genmodels.nets.autoregressive.base import IncrementalEvaluation
from pyro_genmodels.nets.autoregressive.image_net import Maps, RasterEvaluation, SoftmaxImageNet
from pyro_genmodels.nets.autoregressive.row_cache import (
    OutputEvaluation,
    RowCache,
    colour_products,
    group_views,
    matrix,
    row_biases,
)
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d
from pyro_genmodels.nets.layers.mlp import make_dropout


class MaskedResidualBlock(nn.Module):
    """Residual block: ReLU and 1x1 to half, ReLU and kxk, ReLU and 1x1 back, all masked "B"."""

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        num_groups: int,
        dropout: float,
        context: int | None,
    ) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = MaskedConv2d(channels, half, 1, kind="B", num_groups=num_groups)
        self.spatial = MaskedConv2d(half, half, kernel_size, kind="B", num_groups=num_groups)
        self.expand = MaskedConv2d(half, channels, 1, kind="B", num_groups=num_groups)
        self.dropout = make_dropout(dropout)
        self.context = None if context is None else nn.Conv2d(context, half, 1, bias=False)

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Return ``x`` plus the branch, to which a context adds before its last ReLU."""
        y = self.dropout(self.reduce(x.relu()).relu())
        y = self.spatial(y)
        if self.context is not None:
            y = y + self.context(features)
        return cast(Tensor, x + self.expand(y.relu()))


class PixelCNNNet(SoftmaxImageNet):
    r"""The original PixelCNN: masked convolutions in residual blocks, a softmax over levels.

    A 7x7 convolution with mask A, ``num_blocks`` residual blocks with mask B, two 1x1 layers and
    the logits. As published it has a blind spot: a growing part of the rows above, to the right of
    a pixel, is not seen. The features are split between the colours, in order: the red part of a
    pixel's features feeds its green and its blue, never the other way.

    Beyond the paper: dropout in the blocks, and a context, which is added to the first layer and
    in each block (the paper's multi-scale model does so with a map).

    Args:
        event_shape: ``(C, H, W)``, any number of channels; or ``(H, W)``.
        num_levels: Levels of a sub-pixel.
        hidden_channels: The paper's :math:`h`; blocks carry :math:`2h` features.
        num_blocks: Residual blocks.
        kernel_size: Size of the first convolution.
        block_kernel_size: Size of the convolution in a block.
        output_channels: Features of the two last 1x1 layers; ``2 * hidden_channels`` by default.
        embedding_size: Size of a vector looked up for each level: for codes, whose numbers mean
            nothing. By default levels enter as numbers.
        dropout: Share of features dropped in each block, in training mode.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)`` or maps ``(C, H, W)``, averaged to the
            image's size.

    Shape:
        ``(*batch, *event_shape)`` to logits ``(*batch, *event_shape, num_levels)``.

    Raises:
        ValueError: If a size is impossible, or too small to give each colour a feature.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks, sections 3.3, 3.5 and table 1.
        https://arxiv.org/abs/1601.06759

    Example:
        >>> net = PixelCNNNet((1, 8, 8), 17, num_classes=10)
        >>> net(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])).shape
        torch.Size([4, 1, 8, 8, 17])
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        hidden_channels: int = 32,
        num_blocks: int = 5,
        kernel_size: int = 7,
        block_kernel_size: int = 3,
        output_channels: int | None = None,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check(num_blocks >= 0, "num_blocks", "not be negative", num_blocks)
        super().__init__(
            event_shape,
            num_levels,
            hidden_channels=hidden_channels,
            embedding_size=embedding_size,
            dropout=dropout,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        groups, width, context = self.levels.num_groups, 2 * hidden_channels, self.context_channels
        self.first = MaskedConv2d(
            self.levels.channels, width, kernel_size, kind="A", num_groups=groups
        )
        self.first_context = None if context is None else nn.Conv2d(context, width, 1, bias=False)
        self.blocks = nn.ModuleList(
            MaskedResidualBlock(
                width, block_kernel_size, num_groups=groups, dropout=dropout, context=context
            )
            for _ in range(num_blocks)
        )
        outputs = width if output_channels is None else output_channels
        self.add_outputs(width, outputs, outputs)

    def hidden(self, levels: Maps, features: Maps | None) -> Maps:
        """Return the residual stream."""
        y = self.first(levels)
        if self.first_context is not None:
            y = y + self.first_context(features)
        for block in self.blocks:
            y = block(y, features)
        return cast(Tensor, y)

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that keeps the last rows of each convolution's input."""
        return PixelCNNEvaluation(self, batch_size, self.as_map(features, batch_size))


class PixelCNNEvaluation(RasterEvaluation):
    """Evaluates a :class:`PixelCNNNet` sub-pixel by sub-pixel, each multiplication done once.

    In a pixel, each colour's turn computes its own group of features from its own and the earlier
    colours' groups. Memory: for each convolution the rows that its kernel reaches.
    """

    def __init__(self, net: PixelCNNNet, batch_size: int, features: Tensor | None) -> None:
        super().__init__(net)
        self._first = RowCache(net.first, batch_size, self._width)
        self.targets = self._first.targets
        self._rows = [(self._first, _biases(net.first, net.first_context, features))]
        residual = net.first.weight.new_empty(batch_size, net.first.out_channels)
        self._blocks = []
        for layer in (cast(MaskedResidualBlock, layer) for layer in net.blocks):
            block = BlockEvaluation(layer, residual, self._width)
            self._blocks.append(block)
            self._rows.append((block.spatial, _biases(layer.spatial, layer.context, features)))
        self._output = OutputEvaluation(net.outputs, residual)
        self._residual = group_views(residual, net.levels.num_groups)

    def start_row(self, row: int) -> None:
        """Make what each convolution reads of the rows above, and what the context adds."""
        for cache, biases in self._rows:
            cache.start_row(next(biases))

    def step(self, column: int, channel: int) -> Float[Tensor, "batch parameters"]:
        """Return the logits of a sub-pixel."""
        self._first.evaluate(column, channel, out=self._residual[channel])
        for block in self._blocks:
            block.step(column, channel)
        return self._output.step(channel)


class BlockEvaluation:
    """A residual block at one sub-pixel after another; adds to ``residual`` in place."""

    def __init__(self, block: MaskedResidualBlock, residual: Tensor, width: int) -> None:
        batch = len(residual)
        groups, half = block.spatial.num_groups, block.spatial.in_channels
        self.spatial = RowCache(block.spatial, batch, width)
        self._residual = group_views(residual, groups)
        active, self._hidden = torch.empty_like(residual), residual.new_ones(batch, 1 + half)
        self._active = group_views(active, groups)
        self._spatial_out = group_views(self._hidden[:, 1:], groups)
        self._reduce = colour_products(block.reduce, active)
        # A column of ones carries the last bias, for the residual takes addmm's place for one.
        self._expand = [
            (self._hidden[:, : 1 + x.shape[1]], torch.cat([bias[None], weight]))
            for x, weight, bias in colour_products(block.expand, self._hidden[:, 1:])
        ]

    def step(self, j: int, c: int) -> None:
        """Add the branch's output for colour ``c`` of pixel ``j``."""
        torch.clamp_min(self._residual[c], 0, out=self._active[c])
        x, weight, bias = self._reduce[c]
        target = self.spatial.targets[j][c]
        torch.addmm(bias, x, weight, out=target).relu_()
        self.spatial.evaluate(j, c, out=self._spatial_out[c]).relu_()
        self._residual[c].addmm_(*self._expand[c])


def _biases(
    layer: MaskedConv2d, context: nn.Conv2d | None, features: Tensor | None
) -> Iterator[Tensor]:
    return row_biases(layer.bias, None if context is None else matrix(context), features)
