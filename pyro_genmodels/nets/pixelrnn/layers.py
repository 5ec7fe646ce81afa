"""Row LSTM and Diagonal BiLSTM layers, over images whose pixels come first in memory."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._batching import padded
from pyro_genmodels._typing import EventShape, Float
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d, MaskedRowConv2d, draw_weight
from pyro_genmodels.nets.layers.mlp import make_dropout
from pyro_genmodels.nets.pixelrnn.scan import LSTMScan
from pyro_genmodels.nets.pixelrnn.wavefront import diagonal_wavefront, row_wavefront

PointwiseConv: TypeAlias = "MaskedConv2d | MaskedRowConv2d"


def pointwise(
    conv: PointwiseConv, x: Float[Tensor, "*batch features"]
) -> Float[Tensor, "*batch out"]:
    """Return a masked 1x1 convolution of features that come last in memory."""
    return F.linear(x, conv.masked_weight[:, :, 0, 0], conv.bias)


class LSTMLayer(nn.Module, Abstract):
    r"""One layer of LSTMs, with a residual and a skip connection if asked.

    .. math:: y = x + U s, \qquad [o, f, i, g] = [\sigma, \sigma, \sigma, \tanh](K x + V c + W s')

    The input-to-state convolution :math:`K` has mask B; the state-to-state weights :math:`W` meet
    finished pixels only and need none.

    Args:
        image: ``(C, H, W)`` of the image.
        in_channels: Features of the input.
        channels: Features of the state.
        residual: Bring the state to the input's features by a 1x1 convolution, and add them.
        skip_channels: Features for the network's output, if there is such a connection.
        dropout: Share of the state's features dropped behind the layer, in training mode.
        context: Number of a context's features.
        level_channels: Number of features of the levels themselves, if the layer is given them.
    """

    ways: ClassVar[int]
    columns: ClassVar[int]

    def __init__(
        self,
        image: EventShape,
        in_channels: int,
        channels: int,
        *,
        residual: bool,
        skip_channels: int | None,
        dropout: float,
        context: int | None,
        level_channels: int | None = None,
    ) -> None:
        super().__init__()
        groups, _, self.width = image
        self.channels, gates = channels, 4 * channels
        self.scan = self.make_scan(image)
        reads = self.scan.wavefront.num_taps * channels
        self.enter = MaskedRowConv2d(
            in_channels, channels, self.columns, num_groups=groups, parts=4 * self.ways
        )
        self.recur = nn.Parameter(torch.empty(self.ways, reads, gates))
        draw_weight(self.recur, reads, gain=1.0)
        with torch.no_grad():  # forget gates start open, so that what is far is seen at all
            bias = cast(Tensor, self.enter.bias)
            bias.view(self.ways, 4, channels)[:, 1].add_(1)
        self.context = None if context is None else nn.Linear(context, self.ways * gates, False)
        self.levels = None if level_channels is None else nn.Linear(level_channels, gates, False)
        self.dropout = make_dropout(dropout)
        # Without biases: the sums that they enter have one already.
        self.up = self.skip = None
        if residual:
            self.up = MaskedRowConv2d(channels, in_channels, num_groups=groups, bias=False)
        if skip_channels is not None:
            self.skip = MaskedRowConv2d(channels, skip_channels, num_groups=groups, bias=False)

    @abstractmethod
    def make_scan(self, image: EventShape) -> LSTMScan:
        """Return how the recurrence crosses an image."""

    @abstractmethod
    def input_gates(self, x: Tensor) -> Tensor:
        """Return the input's share of the gates."""

    @abstractmethod
    def joined(self, states: Tensor) -> Tensor:
        """Return one state a pixel from those of all ways."""

    def forward(
        self,
        x: Float[Tensor, "pixels batch features"],
        features: Float[Tensor, "places batch context"] | None,
        levels: Float[Tensor, "pixels batch levels"] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the features for the next layer, and the skip connection's."""
        gates = self.input_gates(x)
        if self.context is not None:
            gates = gates + self.context(features)
        if self.levels is not None:
            gates = gates + padded(self.levels(levels), (4 * self.channels, 0))
        state = self.dropout(self.joined(self.scan(gates, self.recur)))
        y = state if self.up is None else x + pointwise(self.up, state)
        return y, None if self.skip is None else pointwise(self.skip, state)


class RowLSTMLayer(LSTMLayer):
    """Goes down row by row; a pixel's context widens by one to each side with every row above.

    The input-to-state convolution is 3x1 with mask B, so it sees the pixel and the one to its
    left; the state-to-state convolution is 3x1.
    """

    ways, columns = 1, 2

    def make_scan(self, image: EventShape) -> LSTMScan:
        """Return a scan by rows."""
        _, height, width = image
        return LSTMScan(row_wavefront(height, width), width, (False,))

    def input_gates(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        rows = x.unflatten(0, (len(x) // self.width, self.width))
        left = padded(rows, (0, 0, 0, 0, 1, -1)).flatten(0, 1)
        weight = self.enter.masked_weight[:, :, 0].transpose(1, 2).flatten(1)
        return F.linear(torch.cat([left, x], -1), weight, self.enter.bias)

    def joined(self, states: Tensor) -> Tensor:
        """Return the states."""
        return states[0]


class DiagonalLSTMLayer(LSTMLayer):
    """Goes along the diagonals from both upper corners: a pixel's context is all of its past.

    What comes from the right has seen pixels to the right, so it is moved down a row. It may
    therefore see its own pixel as well. The first layer gives it the pixel's levels, which the
    paper does not: its first convolution hides a pixel's own level, and so the last pixel of a row
    was seen by nothing in the row below that lies beyond that convolution's reach.
    """

    ways, columns = 2, 1

    def make_scan(self, image: EventShape) -> LSTMScan:
        """Return a scan by diagonals, from the left and from the right."""
        _, height, width = image
        return LSTMScan(diagonal_wavefront(height, width), width, (False, True))

    def input_gates(self, x: Tensor) -> Tensor:
        """Return the 1x1 convolution."""
        return pointwise(self.enter, x)

    def joined(self, states: Tensor) -> Tensor:
        """Return the sum of the left state and of the right one from the row above."""
        left, right = states.unbind(0)
        return left + moved_down(right, self.width)


def moved_down(x: Float[Tensor, "pixels batch h"], width: int) -> Float[Tensor, "pixels batch h"]:
    """Return an image moved down by a row.

    Example:
        >>> moved_down(torch.arange(6.0).reshape(6, 1, 1), 2).flatten()
        tensor([0., 0., 0., 1., 2., 3.])
    """
    return padded(x, (0, 0, 0, 0, width, -width))


LAYERS: dict[str, type[LSTMLayer]] = {"row": RowLSTMLayer, "diagonal": DiagonalLSTMLayer}
