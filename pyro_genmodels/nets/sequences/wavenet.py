"""WaveNet: dilated causal convolutions over a sequence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import EventShape, Float, Int
from pyro_genmodels.nets.layers.mlp import make_dropout
from pyro_genmodels.nets.sequences.base import SequenceNet, context_layer, plus


class WaveNetLayer(nn.Module):
    r"""A gated, dilated, causal convolution with a residual and a skip output.

    .. math:: z = \tanh(W_f * x + V_f h) \odot \sigma(W_g * x + V_g h), \qquad
        x' = x + W_r z, \qquad s = W_s z
    """

    def __init__(
        self,
        channels: int,
        skip_channels: int,
        kernel_size: int,
        dilation: int,
        *,
        context: int | None,
        residual: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        # One product over the taps, oldest first: the same for a whole sequence and for a step.
        self.taps = nn.Linear(kernel_size * channels, 2 * channels)
        self.context = context_layer(context, 2 * channels)
        # Nothing would see the last layer's.
        self.residual = nn.Linear(channels, channels) if residual else None
        self.skip = nn.Linear(channels, skip_channels)
        self.dropout = make_dropout(dropout)

    @property
    def reach(self) -> int:
        """How many steps lie between the first and the last tap."""
        return (self.kernel_size - 1) * self.dilation

    def forward(
        self, x: Float[Tensor, "batch length channels"], steps: Float[Tensor, "..."] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream and the skip output."""
        length, padded = x.shape[1], F.pad(self.dropout(x), (0, 0, self.reach, 0))
        starts = range(0, self.reach + 1, self.dilation)
        taps = [padded[:, start : start + length] for start in starts]
        return self.gated(x, torch.cat(taps, -1), steps)

    def gated(self, x: Tensor, taps: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return both outputs from the taps ``(..., kernel_size * channels)``."""
        value, gate = plus(self.taps(taps), self.context, features).chunk(2, -1)
        z = value.tanh() * gate.sigmoid()
        return x if self.residual is None else x + self.residual(z), self.skip(z)


class Amplitude(nn.Linear):
    """Brings a level in as one number in [-1, 1], the symbol before the first as a flag."""

    def __init__(self, num_levels: int, features: int) -> None:
        super().__init__(2, features)
        self.num_levels = num_levels

    def forward(self, symbols: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch features"]:
        """Return the features of symbols."""
        first = symbols == self.num_levels
        amplitude = symbols.to(self.weight.dtype) * (2 / (self.num_levels - 1)) - 1
        inputs = torch.stack([amplitude.masked_fill(first, 0), first.to(amplitude)], -1)
        return super().forward(inputs)


class WaveNetNet(SequenceNet):
    r"""Blocks of causal convolutions, dilated by 1, 2, 4, ..., with gates, residuals and skips.

    With kernels of two, one block up to dilation 512 sees the 1024 symbols before each, as in the
    paper. Symbols enter by an embedding, a 1x1 convolution of their one-hot code (the paper draws
    a wider one), and before the first stands a symbol of its own. For audio at 8 bits see
    :func:`~pyro_genmodels.data.mu_law_encode`. For more bits, ``num_mixtures`` makes the output a
    discretised mixture of logistics and the input one number, as in Parallel WaveNet.

    Sampling keeps a queue in each layer, of as many steps as its kernel spans, so a step costs one
    small product a layer, and memory does not grow with the sequence.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of symbols, 256 for 8 bits.
        channels: Channels of the residual stream and of the gates.
        skip_channels: Channels of the skip connections and of the last two layers.
        num_blocks: Number of blocks, each of which begins again at dilation 1.
        layers_per_block: Layers of a block, the last dilated by ``2**(layers_per_block - 1)``.
        kernel_size: Taps of each convolution.
        num_mixtures: Components of a mixture of logistics; ``None`` for a softmax over levels.
        dropout: Share of each layer's input dropped, in training mode; not in the paper.
        num_classes: Contexts are labels (global conditioning).
        context_shape: Contexts are vectors ``(D,)`` (global), or local: sequences ``(C, L)``, for
            an image maps ``(C, H, W)``. A shorter sequence is repeated to fit, a longer averaged.

    Shape:
        ``(*batch, *event_shape)`` to logits ``(*batch, *event_shape, num_levels)``, or to a
        mixture's logits, locations and log-scales ``(*batch, *event_shape, 3 * num_mixtures)``.

    Raises:
        ValueError: If a size is impossible.

    References:
        van den Oord et al. (2016), WaveNet: A generative model for raw audio.
        https://arxiv.org/abs/1609.03499
        van den Oord et al. (2018), Parallel WaveNet (mixture output).
        https://arxiv.org/abs/1711.10433
        Le Paine et al. (2016), Fast WaveNet generation algorithm. https://arxiv.org/abs/1611.09482

    Example:
        >>> net = WaveNetNet((64,), 256, channels=8, num_blocks=1, layers_per_block=4)
        >>> net.receptive_field
        16
        >>> net(torch.zeros(2, 64)).shape
        torch.Size([2, 64, 256])
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        channels: int = 32,
        skip_channels: int = 64,
        num_blocks: int = 2,
        layers_per_block: int = 6,
        kernel_size: int = 2,
        num_mixtures: int | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check_positive(channels=channels, skip_channels=skip_channels, num_blocks=num_blocks)
        check_positive(layers_per_block=layers_per_block)
        check_positive(num_mixtures=1 if num_mixtures is None else num_mixtures)
        check(kernel_size >= 2, "kernel_size", "be at least 2", kernel_size)
        super().__init__(
            event_shape,
            num_levels,
            context_features=channels,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        dilations = [2**layer for _ in range(num_blocks) for layer in range(layers_per_block)]
        self.num_mixtures = num_mixtures
        self.embedding = (
            nn.Embedding(num_levels + 1, channels)
            if num_mixtures is None
            else Amplitude(num_levels, channels)
        )
        self.layers = nn.ModuleList(
            WaveNetLayer(
                channels,
                skip_channels,
                kernel_size,
                dilation,
                context=self.context_channels,
                residual=index + 1 < len(dilations),
                dropout=dropout,
            )
            for index, dilation in enumerate(dilations)
        )
        self.hidden = nn.Linear(skip_channels, skip_channels)
        outputs = num_levels if num_mixtures is None else 3 * num_mixtures
        self.output = nn.Linear(skip_channels, outputs)
        if num_mixtures is not None:
            self._spread_components(num_mixtures)

    @torch.no_grad()
    def _spread_components(self, count: int) -> None:
        """Start with the components side by side over [-1, 1], as wide as their distance."""
        _, loc, log_scale = self.output.bias.chunk(3)
        loc.copy_((2 * torch.arange(count) + 1) / count - 1)
        log_scale.fill_(-math.log(count))

    @property
    def receptive_field(self) -> int:
        """Number of symbols before it that a symbol sees."""
        return 1 + sum(layer.reach for layer in self._layers)

    @property
    def _layers(self) -> list[WaveNetLayer]:
        return [cast(WaveNetLayer, layer) for layer in self.layers]

    def logits(
        self, symbols: Int[Tensor, "batch length"], steps: Float[Tensor, "batch steps F"] | None
    ) -> Float[Tensor, "batch length K"]:
        """Return each step's logits given the symbols before it."""
        x, total = self.embedding(self.shifted(symbols)), None
        for layer in self._layers:
            x, skip = layer(x, steps)
            total = skip if total is None else total + skip
        return self._predicted(cast(Tensor, total))

    def start(self, batch_size: int) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Return a function that keeps each layer's queue."""
        queues = [Queue(layer, self.embedding.weight, batch_size) for layer in self._layers]

        def step(symbols: Tensor, features: Tensor | None) -> Tensor:
            x, total = self.embedding(symbols), None
            for layer, queue in zip(self._layers, queues, strict=True):
                x, skip = layer.gated(x, queue.taps(x), features)
                total = skip if total is None else total.add_(skip)
            return self._predicted(cast(Tensor, total))

        return step

    def _predicted(self, total: Tensor) -> Tensor:
        return cast(Tensor, self.output(self.hidden(total.relu()).relu()))


class Queue:
    """The last inputs of a convolution: what its taps see besides the present one.

    A ring of ``reach`` slots: before step t the input of step t - d is at (t - d) mod reach.
    """

    def __init__(self, layer: WaveNetLayer, like: Tensor, batch_size: int) -> None:
        self._dilation, self._reach, self._position = layer.dilation, layer.reach, 0
        channels = layer.taps.in_features // layer.kernel_size
        self._inputs = list(like.new_zeros(layer.reach, batch_size, channels))

    def taps(self, x: Tensor) -> Tensor:
        """Return the taps' inputs side by side, oldest first, and take the present one in."""
        starts = range(self._position, self._position + self._reach, self._dilation)
        taps = [self._inputs[start % self._reach] for start in starts]
        self._inputs[self._position] = x
        self._position = (self._position + 1) % self._reach
        return torch.cat([*taps, x], -1)
