"""The gated PixelCNN."""

from __future__ import annotations

from pyro_genmodels._checks import check
from pyro_genmodels._typing import EventShape
from pyro_genmodels.nets.gated_pixelcnn.stack import GatedStackNet


class GatedPixelCNNNet(GatedStackNet):
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
        event_shape: ``(C, H, W)``, any number of channels; or ``(H, W)``.
        num_levels: Levels of a sub-pixel.
        hidden_channels: Features of each stack.
        num_layers: Gated layers after the first.
        kernel_size: Size of the first layer's kernel.
        layer_kernel_size: Size of the other layers' kernels.
        output_channels: Features of the skip connections and of the 1x1 layer at the end;
            ``hidden_channels`` by default.
        residual_channels: Features of a rectified layer inside each residual connection, which by
            default is linear.
        num_output_layers: Residual 1x1 layers behind the skip connections, each with
            ``residual_channels`` inside.
        embedding_size: Size of a vector looked up for each level: for codes, whose numbers mean
            nothing. By default levels enter as numbers.
        dropout: Share of features dropped behind each gate, in training mode.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)`` or maps ``(C, H, W)``, averaged to the
            image's size.

    Shape:
        ``(*batch, *event_shape)`` to logits ``(*batch, *event_shape, num_levels)``.

    Raises:
        ValueError: If a size is impossible, or too small to give each colour a feature.

    References:
        van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, section 2.
        https://arxiv.org/abs/1606.05328

    Example:
        >>> import torch
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
        residual_channels: int | None = None,
        num_output_layers: int = 0,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check(num_layers >= 0, "num_layers", "not be negative", num_layers)
        super().__init__(
            event_shape,
            num_levels,
            hidden_channels=hidden_channels,
            output_channels=output_channels,
            residual_channels=residual_channels,
            num_output_layers=num_output_layers,
            embedding_size=embedding_size,
            dropout=dropout,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        sizes = [kernel_size, *[layer_kernel_size] * num_layers]
        for index, size in enumerate(sizes):
            self.add_gated(size, last=index == num_layers)
