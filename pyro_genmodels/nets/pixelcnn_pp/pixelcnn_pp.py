"""PixelCNN++."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_event_shape, check_positive
from pyro_genmodels._logistic_mixture import channel_laws, link_count, linked_mixture
from pyro_genmodels._typing import EventShape, Float, Num
from pyro_genmodels.nets.autoregressive.base import IncrementalEvaluation
from pyro_genmodels.nets.autoregressive.image_net import ImageNet, RasterEvaluation
from pyro_genmodels.nets.pixelcnn_pp.incremental import ScaleEvaluation
from pyro_genmodels.nets.pixelcnn_pp.layer_cache import PixelConv, RowConv, matrix
from pyro_genmodels.nets.pixelcnn_pp.layers import GatedPair, Resizing, ShiftedConv2d, pointwise


class PixelCNNPlusPlusNet(ImageNet):
    r"""PixelCNN++: two streams through several sizes with shortcuts, a mixture for each pixel.

    One stream sees the rows above, the other also the pixels to the left. Both go through
    ``num_resnets`` gated residual blocks at each size, halving it in between, and back up through
    as many, each of which takes a shortcut from the way down. One mixture a pixel gives all its
    channels: a channel's location depends, linearly, on the channels before it. Weights are
    normed; the first data that pass in training mode set their lengths and biases.

    With several sizes, a pixel of every second row sees of its own row, and of the row above to its
    right, only what the image's own size shows: the nearest ``4 * num_resnets + 2`` pixels.

    Args:
        event_shape: ``(C, H, W)``; any number of channels, sides divisible by
            ``2 ** (num_scales - 1)``.
        num_levels: Levels of a sub-pixel.
        hidden_channels: Channels of each stream; 160 in the paper.
        num_resnets: Gated residual blocks at each size; 5 in the paper.
        num_scales: Sizes: the image's, its half ...; 3 in the paper.
        num_mixtures: Components of a mixture; 10 in the paper.
        min_log_scale: The components' log-scales on [-1, 1] are at least this.
        dropout: Share of features dropped in each block, in training mode; 0.5 in the paper.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)`` or maps ``(C, H, W)``, averaged to each size.

    Shape:
        ``(*batch, C, H, W)`` to ``(*batch, C, H, W, 3 * num_mixtures)``: for each sub-pixel,
        given all before it, logits, locations and log-scales.

    Raises:
        ValueError: If a size is impossible, or a side cannot be halved so often.

    References:
        Salimans et al. (2017), PixelCNN++. https://arxiv.org/abs/1701.05517

    Example:
        >>> net = PixelCNNPlusPlusNet((3, 8, 8), 256, num_classes=10)
        >>> net(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])).shape
        torch.Size([4, 3, 8, 8, 30])
    """

    num_mixtures: int

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        hidden_channels: int = 32,
        num_resnets: int = 2,
        num_scales: int = 3,
        num_mixtures: int = 10,
        min_log_scale: float = -7.0,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check_positive(num_scales=num_scales, num_mixtures=num_mixtures)
        check(num_resnets >= 0, "num_resnets", "not be negative", num_resnets)
        check(-40 <= min_log_scale < 0, "min_log_scale", "be in [-40, 0)", min_log_scale)
        super().__init__(
            check_event_shape(event_shape, ranks=(3,)),
            num_levels,
            hidden_channels=hidden_channels,
            dropout=dropout,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        factor, sides = 2 ** (num_scales - 1), self.event_shape[1:]
        rule = f"have sides divisible by {factor}, for num_scales = {num_scales}"
        fits = all(side % factor == 0 for side in sides)
        check(fits, "event_shape", rule, tuple(self.event_shape))
        self.num_mixtures, self.min_log_scale = num_mixtures, min_log_scale
        self.num_linked = self.event_shape[0]
        self.num_scales = num_scales
        self._add_layers(hidden_channels, num_resnets, num_scales, dropout)

    def _add_layers(self, width: int, resnets: int, scales: int, dropout: float) -> None:
        channels = self.event_shape[0]
        # One more channel marks the image, whose borders are then seen.
        self.first_above = ShiftedConv2d(channels + 1, width, (2, 3), left=False)
        self.first_row = ShiftedConv2d(channels + 1, width, (1, 3), left=False)
        self.first_column = ShiftedConv2d(channels + 1, width, (2, 1), left=True)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        options: dict[str, Any] = {"dropout": dropout, "context": self.context_channels}
        for scale in range(scales):
            if scale > 0:
                self.down.append(Resizing(width, "down"))
                self.up.append(Resizing(width, "up"))
            self.down.extend(GatedPair(width, shortcut=0, **options) for _ in range(resnets))
            # The way up takes each of the way down's results once, its last as the start.
            count = resnets if scale == 0 else resnets + 1
            self.up.extend(GatedPair(width, shortcut=width, **options) for _ in range(count))
        self.last = pointwise(width, link_count(channels) * self.num_mixtures)

    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return the mixtures' parameters ``(batch, C, H, W, 3 * num_mixtures)``."""
        raw = self.pixel_parameters(x, features).movedim(1, -1)
        parameters = linked_mixture(
            raw, x.movedim(1, -1), self.num_levels, min_log_scale=self.min_log_scale
        )
        return parameters.movedim(-2, 1)

    def pixel_parameters(
        self, x: Float[Tensor, "batch C H W"], features: Tensor | None
    ) -> Float[Tensor, "batch K H W"]:
        """Return the numbers of each pixel's mixture, given the pixels before it."""
        by_height = self.features_by_height(features)
        results = [self._first(x)]
        for layer in self.down:
            height = results[-1][0].shape[-2]
            results.append(layer(results[-1], None, by_height[height]))
        streams = results.pop()
        for layer in self.up:
            shortcut = results.pop() if isinstance(layer, GatedPair) else None
            streams = layer(streams, shortcut, by_height[streams[0].shape[-2]])
        return cast(Tensor, self.last(F.elu(streams[1])))

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that keeps one row of each layer's input."""
        return PixelCNNPlusPlusEvaluation(self, batch_size, self.features_by_height(features))

    def _first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.levels(x), torch.ones_like(x[:, :1])], 1)
        above = _moved_down(self.first_above(x))
        left = F.pad(self.first_column(x), (1, -1))
        return above, _moved_down(self.first_row(x)) + left

    def features_by_height(self, features: Tensor | None) -> dict[int, Tensor | None]:
        """Return the context's features for each size, keyed by its height, from large to small."""
        _, height, width = self.event_shape
        by_height = {height: self.as_map(features, 1)}
        for _ in range(self.num_scales - 1):
            features, height, width = by_height[height], height // 2, width // 2
            if features is not None and self.context_event_dim == 3:
                features = F.adaptive_avg_pool2d(features, (height, width))
            by_height[height] = features
        return by_height


class PixelCNNPlusPlusEvaluation(RasterEvaluation):
    """Evaluates a PixelCNN++ pixel by pixel, each multiplication done once.

    The stream of the rows above is made a row at a time, with all that the other stream takes of
    it and of its own row above; what is left for a pixel are the taps of its own row.

    Args:
        net: The network.
        batch_size: Number of images.
        by_height: The context's features for each size, from large to small.
    """

    def __init__(
        self, net: PixelCNNPlusPlusNet, batch_size: int, by_height: dict[int, Tensor | None]
    ) -> None:
        super().__init__(net)
        self._net = net
        self._laws: Generator[Tensor, Tensor, None]
        self._above = RowConv(net.first_above, batch_size, self._width)
        self._beside = RowConv(net.first_row, batch_size, self._width)
        self._left = PixelConv(net.first_column, batch_size, self._width)
        channels = net.levels.num_groups
        self._row_of_image = net.last.bias.new_ones(batch_size, self._width, channels + 1)
        pixels = self._row_of_image.unbind(1)
        self.targets = [[pixel[:, c : c + 1] for c in range(channels)] for pixel in pixels]
        features = list(by_height.values())
        self._scales = ScaleEvaluation(net.down, net.up, batch_size, self._width, features)
        self._last = matrix(net.last)

    def start_row(self, row: int) -> None:
        """Make the first stream's row, and what the second takes of it and of its row above."""
        if row == 0:
            size = (*self._row_of_image.shape[:2], len(self._net.first_above.bias))
            above = self._from_above = self._row_of_image.new_zeros(size)
        else:
            above = self._above(self._row_of_image)
            self._from_above = self._beside(self._row_of_image)
        self._left.start_row()
        self._scales.start_row(above)

    def step(self, column: int, channel: int) -> Float[Tensor, "batch parameters"]:
        """Return the parameters of a sub-pixel."""
        if channel > 0:
            return self._laws.send(self._level)
        x = self._from_above[:, column]
        if column > 0:
            x = x + self._left(column - 1)
        weight, bias = self._last
        self._laws = channel_laws(
            torch.addmm(bias, F.elu(self._scales.step(column, x)), weight),
            self._net.levels.num_groups,
            self._net.num_levels,
            min_log_scale=self._net.min_log_scale,
        )
        return next(self._laws)

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the value of the sub-pixel."""
        self._level = level.to(self._row_of_image.dtype)
        super().append(level)

    def finish(self, column: int) -> None:
        """Have a pixel read by those to its right."""
        self._left.put(column, self._row_of_image[:, column])


def _moved_down(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 1, -1))
