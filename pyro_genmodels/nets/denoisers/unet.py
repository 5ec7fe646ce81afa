"""U-Nets of maps and of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.nets.denoisers.conditioning import ConditionedDenoiser
from pyro_genmodels.nets.denoisers.layers import (
    ResidualBlock,
    Upsampling,
    convolution,
    group_norm,
)
from pyro_genmodels.nets.layers.checkpointing import checkpointed
from pyro_genmodels.nets.layers.mlp import set_to_zero
from pyro_genmodels.nets.layers.residual import padded


class UNet(ConditionedDenoiser):
    r"""U-Net of DDPM: residual blocks at several sizes, down and up, with skip connections.

    Each multiplier is one size, half that of the one before. On the way down a size has
    ``num_blocks`` residual blocks, on the way up one more, each of which also gets the features of
    its counterpart. Between them are two blocks with attention. One multiplier alone is the form
    of VDM, which keeps the full size throughout. Maps of any size are padded inside by their last
    row and column until all halvings are even, and the output is cropped.

    Group normalisation sees one example at a time. The output starts at zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        channels: Channels at the full size.
        multipliers: Channels at each size, in multiples of ``channels``.
        num_blocks: Residual blocks per size on the way down.
        attention: Factors of downsampling, such as 1, 2, 4, at which each block is followed by
            self-attention; by default the smallest size's, if there is more than one size.
        middle_attention: Whether there is self-attention at the smallest size between the two ways.
            Its time, like that of all attention, grows with the square of the number of positions.
        num_heads: Heads of each self-attention.
        scale_shift: Let level and context scale and shift the features, instead of shifting alone.
        dropout: Probability of dropping a unit before each block's second convolution.
        checkpointing: Keep no activations inside the blocks; the backward pass computes them again.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)``, which enter with the noise level as labels do,
            or maps ``(C, H, W)``, which are added to the first features; a map of another size is
            resampled by averaging.
        null_context: Learn an embedding that takes the context's place where there is none, for
            classifier-free guidance.

    Shape:
        ``(*batch, in_channels, H, W)`` to ``(*batch, out_channels, H, W)``, any ``H`` and ``W``.

    Raises:
        ValueError: If a size is not positive, a factor of ``attention`` does not occur,
            ``num_heads`` does not divide the channels there, or the context is impossible.

    References:
        Ho et al. (2020), Denoising diffusion probabilistic models. https://arxiv.org/abs/2006.11239
        (``channels=128, multipliers=(1, 2, 2, 2), attention=(2,), dropout=0.1``)
        Nichol, Dhariwal (2021), Improved denoising diffusion probabilistic models.
        https://arxiv.org/abs/2102.09672 (three blocks, ``attention=(2, 4), num_heads=4,
        scale_shift=True``)
        Kingma et al. (2021), Variational diffusion models. https://arxiv.org/abs/2107.00630
        (``channels=128, multipliers=(1,), num_blocks=32``)

    Example:
        >>> import torch
        >>> net = UNet(3, 3, channels=8, num_classes=10)
        >>> net(torch.zeros(4, 3, 9, 7), torch.rand(4), torch.arange(4)).shape
        torch.Size([4, 3, 9, 7])
    """

    rank: ClassVar[int] = 2
    """Number of dimensions besides the channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2),
        num_blocks: int = 2,
        attention: Sequence[int] | None = None,
        middle_attention: bool = True,
        num_heads: int = 1,
        scale_shift: bool = False,
        dropout: float = 0.0,
        checkpointing: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        null_context: bool = False,
    ) -> None:
        check_positive(in_channels=in_channels, out_channels=out_channels, channels=channels)
        check_positive(num_blocks=num_blocks, num_heads=num_heads)
        some = len(multipliers) > 0 and min(multipliers) > 0
        check(some, "multipliers", "be positive sizes", multipliers)
        factors = [2**index for index in range(len(multipliers))]
        attention = factors[1:][-1:] if attention is None else attention
        occur = set(attention) <= set(factors)
        rule = f"be factors of downsampling that occur, among {', '.join(map(str, factors))}"
        check(occur, "attention", rule, attention)
        features, free = 4 * channels, [-1] * self.rank
        super().__init__(
            [in_channels, *free],
            [out_channels, *free],
            sinusoids=max(channels, 32),
            features=features,
            channels=channels,
            num_classes=num_classes,
            context_shape=context_shape,
            null_context=null_context,
            ranks=(1, 1 + self.rank),
        )
        self.checkpointing = checkpointing
        widths = [channels * multiplier for multiplier in multipliers]
        heads = [num_heads if factor in attention else 0 for factor in factors]

        def block(inputs: int, outputs: int, num_heads: int) -> ResidualBlock:
            return ResidualBlock(
                self.rank,
                inputs,
                outputs,
                features,
                dropout=dropout,
                scale_shift=scale_shift,
                num_heads=num_heads,
            )

        self.stem = convolution(self.rank, in_channels, channels)
        self.down = nn.ModuleList()
        skips, width = [channels], channels
        for index, out in enumerate(widths):
            if index:
                self.down.append(convolution(self.rank, width, width, stride=2))
                skips.append(width)
            for _ in range(num_blocks):
                self.down.append(block(width, out, heads[index]))
                skips.append(out)
                width = out
        self.middle = nn.ModuleList(
            [block(width, width, num_heads if middle_attention else 0), block(width, width, 0)]
        )
        self.up = nn.ModuleList()
        for index, out in reversed([*enumerate(widths)]):
            for _ in range(num_blocks + 1):
                self.up.append(block(width + skips.pop(), out, heads[index]))
                width = out
            if index:
                self.up.append(Upsampling(self.rank, width))
        self.norm = group_norm(width, self.rank)
        self.last = convolution(self.rank, width, out_channels)
        set_to_zero(self.last)
        self.factor = factors[-1]

    def _evaluate(self, z: Tensor, embedding: Tensor, maps: Tensor | None) -> Tensor:
        sizes = z.shape[2:]
        h = self.stem(padded(z, self.factor, rank=self.rank))
        if maps is not None:
            h = h + padded(maps, self.factor, rank=self.rank)
        if self.rank == 2:
            # Channels last in memory: an evaluation takes the processor up to a tenth less time, a
            # gradient no more. Not by `memory_format`, which vmap does not know.
            h = h.movedim(1, -1).contiguous().movedim(-1, 1)
        skips = [h]
        for layer in self.down:
            h = self._applied(layer, h, embedding)
            skips.append(h)
        for layer in self.middle:
            h = self._applied(layer, h, embedding)
        for layer in self.up:
            blocks = isinstance(layer, ResidualBlock)
            h = self._applied(layer, h, embedding, skips.pop()) if blocks else layer(h)
        output = self.last(F.silu(self.norm(h)))
        for dim, size in enumerate(sizes, start=2):
            output = output.narrow(dim, 0, size)
        return cast(Tensor, output)

    def _applied(
        self, layer: nn.Module, h: Tensor, embedding: Tensor, skip: Tensor | None = None
    ) -> Tensor:
        if not isinstance(layer, ResidualBlock):
            return cast(Tensor, layer(h))
        if self.checkpointing:
            return checkpointed(layer, h, embedding, skip)
        return cast(Tensor, layer(h, embedding, skip))


class SequenceUNet(UNet):
    """As :class:`UNet`, over sequences with channels, such as audio or embedded codes.

    Sequences of any length are padded inside by their last element and cropped. Self-attention
    over long sequences is slow at small factors of downsampling: see ``attention`` and
    ``middle_attention``.

    Args:
        context_shape: Condition on vectors ``(D,)``, which enter with the noise level as labels do,
            or sequences ``(C, L)``, which are added to the first features; one of another length
            is resampled by averaging.

    Shape:
        ``(*batch, in_channels, L)`` to ``(*batch, out_channels, L)``, any ``L``.

    Example:
        >>> import torch
        >>> net = SequenceUNet(1, 2, channels=8, context_shape=(3, 25))
        >>> net(torch.zeros(4, 1, 100), torch.rand(4), torch.zeros(3, 25)).shape
        torch.Size([4, 2, 100])
    """

    rank = 1
