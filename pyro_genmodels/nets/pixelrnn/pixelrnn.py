"""PixelRNN: Row LSTM and Diagonal BiLSTM."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from pyro_genmodels._checks import check_choice, check_event_shape, check_positive
from pyro_genmodels._typing import EventShape, Float
from pyro_genmodels.nets.autoregressive.base import IncrementalEvaluation
from pyro_genmodels.nets.autoregressive.image_net import Maps, SoftmaxImageNet
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d
from pyro_genmodels.nets.pixelrnn.incremental import PixelRNNEvaluation
from pyro_genmodels.nets.pixelrnn.layers import LAYERS, LSTMLayer


class PixelRNNNet(SoftmaxImageNet):
    r"""PixelRNN: layers of two-dimensional LSTMs behind a masked convolution.

    .. math:: [o, f, i, g] = [\sigma, \sigma, \sigma, \tanh](K^{is} * x + K^{ss} * h'), \qquad
        c = f \odot c' + i \odot g, \qquad h = o \odot \tanh c

    *Row LSTM*: from row to row, where a pixel's state reads the three states above it; its context
    is a triangle above the pixel. *Diagonal BiLSTM*: along the diagonals from both upper corners,
    where a state reads those to its side and above it; its context is the whole past.

    With residual connections layers carry :math:`2h` features and add to them, without :math:`h`.
    Skip connections lead from each layer to two 1x1 layers at the end. The features are split
    between the colours, in order, as in :class:`~pyro_genmodels.nets.PixelCNNNet`. A context is
    added to the gates of every layer, as in the paper's multi-scale model, for which see
    :class:`~pyro_genmodels.nets.MultiScaleNet`. Beyond the paper: dropout of the states, forget
    gates that start open, and a 1x1 convolution that shows the levels to what comes from the right
    in the first Diagonal BiLSTM; without it the last sub-pixel of the row above is not seen.

    Args:
        event_shape: ``(C, H, W)``; any number of channels, any height and width.
        num_levels: Levels of a sub-pixel.
        layer: ``"diagonal"`` or ``"row"``.
        hidden_channels: The paper's :math:`h`.
        num_layers: LSTM layers.
        kernel_size: Size of the first convolution.
        residual: Whether layers have residual connections.
        skip: Whether layers have skip connections to the output.
        output_channels: Features of the two last 1x1 layers; by default as many as a layer gives.
        embedding_size: Size of a vector looked up for each level: for codes, whose numbers mean
            nothing. By default levels enter as numbers.
        dropout: Share of a layer's states dropped, in training mode.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)`` or maps ``(C, H, W)``, averaged to the
            image's size.

    Shape:
        ``(*batch, C, H, W)`` to logits ``(*batch, C, H, W, num_levels)``.

    Raises:
        ValueError: If a size is impossible, or too small to give each colour a feature.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> import torch
        >>> net = PixelRNNNet((1, 8, 8), 17, hidden_channels=8, num_layers=2, num_classes=10)
        >>> net(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])).shape
        torch.Size([4, 1, 8, 8, 17])
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        layer: str = "diagonal",
        hidden_channels: int = 32,
        num_layers: int = 3,
        kernel_size: int = 7,
        residual: bool = True,
        skip: bool = True,
        output_channels: int | None = None,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check_choice("layer", layer, LAYERS)
        check_positive(num_layers=num_layers)
        super().__init__(
            check_event_shape(event_shape, ranks=(3,)),
            num_levels,
            hidden_channels=hidden_channels,
            embedding_size=embedding_size,
            dropout=dropout,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        groups, width = self.levels.num_groups, (1 + residual) * hidden_channels
        outputs = width if output_channels is None else output_channels
        self.check_features(hidden_channels=hidden_channels, output_channels=outputs)
        self.first = MaskedConv2d(
            self.levels.channels, width, kernel_size, kind="A", num_groups=groups
        )
        self.layers = nn.ModuleList(
            LAYERS[layer](
                self.event_shape,
                width,
                hidden_channels,
                residual=residual,
                skip_channels=width if skip else None,
                dropout=dropout,
                context=self.context_channels,
                level_channels=self.levels.channels if (layer, index) == ("diagonal", 0) else None,
            )
            for index in range(num_layers)
        )
        self.add_outputs(width, outputs, outputs)

    def hidden(self, levels: Maps, features: Maps | None) -> Maps:
        """Return the last layer's features, and the sum of the skip connections."""
        # Pixels first, features last: a step of the recurrence is then one piece of memory.
        places = None if features is None else pixels_first(features)
        y, seen = pixels_first(self.first(levels)), pixels_first(levels)
        skips = []
        for layer in self.layers:
            y, skip = layer(y, places, seen)
            if skip is not None:
                skips.append(skip)
        y = sum(skips, start=y)
        return cast(Tensor, y.unflatten(0, self.event_shape[1:]).permute(2, 3, 0, 1))

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that keeps one row of states a layer."""
        layers = [cast(LSTMLayer, layer) for layer in self.layers]
        features = self.as_map(features, batch_size)
        return PixelRNNEvaluation(self, self.first, layers, batch_size, features)


def pixels_first(x: Float[Tensor, "batch features h w"]) -> Float[Tensor, "pixels batch features"]:
    """Return an image's features with pixels first in memory and features last."""
    return x.permute(2, 3, 0, 1).flatten(0, 1).contiguous()
