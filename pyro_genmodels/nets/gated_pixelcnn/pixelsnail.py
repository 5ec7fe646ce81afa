"""Causal self-attention over a gated stack."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import EventShape, Float
from pyro_genmodels.nets.gated_pixelcnn.attention import CausalAttention
from pyro_genmodels.nets.gated_pixelcnn.stack import GatedStackNet
from pyro_genmodels.nets.layers.derived_buffers import DerivedBuffers


class PixelSNAILNet(GatedStackNet, DerivedBuffers):
    r"""Blocks of gated layers, each followed by causal self-attention, as in PixelSNAIL.

    The layers are those of :class:`~pyro_genmodels.nets.GatedPixelCNNNet`, two stacks without a
    blind spot; the attention lets a pixel look at all pixels strictly before it, wherever they
    are. Keys and values see the levels as well, queries the features and the place. The paper's
    two coordinates enter here in every layer, beside the features of the context.

    For maps of codes (the prior of a VQ-VAE) give ``event_shape=(H, W)``, as many levels as codes
    and an ``embedding_size``; the codes above, brought to a map, are the context.

    Args:
        event_shape: ``(C, H, W)``, any number of channels; or ``(H, W)``.
        num_levels: Levels of a sub-pixel.
        hidden_channels: Features of each stack.
        num_blocks: Blocks, each with one attention at its end.
        num_layers: Gated layers of a block; before the first block stands one more.
        kernel_size: Size of the first layer's kernel.
        layer_kernel_size: Size of the other layers' kernels.
        num_heads: Attention heads.
        head_size: Features of a head's keys and values; by default half the hidden ones are
            shared out between the heads.
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
        Chen et al. (2018), PixelSNAIL: an improved autoregressive generative model.
        https://arxiv.org/abs/1712.09763
        Razavi et al. (2019), Generating diverse high-fidelity images with VQ-VAE-2.
        https://arxiv.org/abs/1906.00446

    Example:
        >>> codes = torch.randint(32, (4, 8, 8))
        >>> net = PixelSNAILNet((8, 8), 32, embedding_size=16, num_blocks=1)
        >>> net(codes).shape
        torch.Size([4, 8, 8, 32])
    """

    coordinates: Tensor

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        hidden_channels: int = 32,
        num_blocks: int = 2,
        num_layers: int = 2,
        kernel_size: int = 7,
        layer_kernel_size: int = 3,
        num_heads: int = 2,
        head_size: int | None = None,
        output_channels: int | None = None,
        residual_channels: int | None = None,
        num_output_layers: int = 0,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check_positive(num_blocks=num_blocks, num_heads=num_heads)
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
        self.register_derived("coordinates", partial(_coordinates, *self.event_shape[-2:]))
        self._common["context"] = 2 + (self._common["context"] or 0)
        if head_size is None:
            head_size = max(1, hidden_channels // (2 * num_heads))
        self.add_gated(kernel_size)
        for block in range(num_blocks):
            for _ in range(num_layers):
                self.add_gated(layer_kernel_size)
            attention = CausalAttention(
                self.levels.channels,
                hidden_channels,
                num_heads=num_heads,
                head_size=head_size,
                last=block == num_blocks - 1,
                **self._common,
            )
            self.layers.append(attention)

    def as_map(self, features: Tensor | None, batch_size: int) -> Tensor:
        """Return the coordinates, and behind them the context's features."""
        places = self.coordinates.expand(batch_size, -1, -1, -1)
        features = super().as_map(features, batch_size)
        if features is None:
            return places
        return torch.cat([places, features.expand(-1, -1, *places.shape[2:])], 1)


def _coordinates(height: int, width: int) -> Float[Tensor, "2 height width"]:
    places = [torch.linspace(-1, 1, size) for size in (height, width)]
    return torch.stack(torch.meshgrid(*places, indexing="ij"))
