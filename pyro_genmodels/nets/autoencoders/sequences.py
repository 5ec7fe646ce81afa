"""Encoder and decoder of the audio VQ-VAE: from sequences to shorter ones, and to features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers.context import ConditionalNet, add_features
from pyro_genmodels.nets.layers.residual import residual_blocks, strided_layers


class SequenceEncoder(Configured, nn.Module):
    """Strided convolutions over a sequence, then residual blocks: each stride halves the length.

    As :class:`MapEncoder`, in one dimension: convolutions of width 4 and stride 2, each with a
    ReLU; blocks of ReLU, width 3, ReLU, width 1, added to their input, and a ReLU; a last
    convolution of width 1. It takes no context: what is said is coded, not who says it.

    Args:
        out_channels: Channels of the output.
        reduction: Steps that one of the output stands for, a power of two.
        hidden_channels: Channels of all layers before the last.
        residual_channels: Channels inside a block.
        num_blocks: Number of blocks.
        in_channels: Channels of the input; a sequence of numbers is one without a dimension of
            them.

    Shape:
        ``(*batch, T)``, of several channels ``(*batch, in_channels, T)``, to
        ``(*batch, out_channels, T / reduction)``, rounded down.

    Raises:
        ValueError: If a number is not positive, or ``reduction`` no power of two.

    References:
        van den Oord et al. (2017), Neural discrete representation learning, section 4.3 (six
        strided convolutions, no blocks). https://arxiv.org/abs/1711.00937

    Example:
        >>> import torch
        >>> SequenceEncoder(8, reduction=64, hidden_channels=16)(torch.zeros(2, 640)).shape
        torch.Size([2, 8, 10])
    """

    def __init__(
        self,
        out_channels: int,
        *,
        reduction: int = 64,
        hidden_channels: int = 128,
        residual_channels: int = 32,
        num_blocks: int = 2,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        sizes = {"out_channels": out_channels, "in_channels": in_channels}
        check_positive(**sizes, hidden_channels=hidden_channels)
        self.in_channels = in_channels
        halvings = reduction.bit_length() - 1
        power = reduction >= 1 and 2**halvings == reduction
        check(power, "reduction", "be a power of two", reduction)
        self.strided = strided_layers(nn.Conv1d, [in_channels, *[hidden_channels] * halvings])
        if not halvings:  # the length stays as it is
            self.strided.extend([nn.Conv1d(in_channels, hidden_channels, 3, padding=1), nn.ReLU()])
        self.blocks = residual_blocks(hidden_channels, residual_channels, num_blocks, rank=1)
        self.last = nn.Conv1d(hidden_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "*batch T"]) -> Float[Tensor, "... C t"]:
        """Return the features of shorter sequences."""
        x = x[..., None, :] if self.in_channels == 1 else x
        return over_batch(lambda x: self.last(self.blocks(self.strided(x))), (x, 2))


class SequenceDecoder(ConditionalNet):
    """Residual blocks over a sequence, whose steps are then repeated: features for a WaveNet.

    A convolution of width 3, to whose output a context is added, the blocks of
    :class:`SequenceEncoder`, and one of width 1.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        reduction: How often a step is repeated.
        hidden_channels: Channels of the residual blocks.
        residual_channels: Channels inside a block.
        num_blocks: Number of blocks.
        num_classes: Condition on labels, such as the speaker.
        context_shape: Condition on vectors ``(D,)``, or sequences ``(C, L)``, averaged or repeated
            to the input's length.

    Shape:
        ``(*batch, in_channels, t)`` to ``(*batch, out_channels, t * reduction)``.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> import torch
        >>> SequenceDecoder(8, 32, reduction=64, hidden_channels=16)(torch.zeros(2, 8, 10)).shape
        torch.Size([2, 32, 640])
    """

    input_event_dim = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        reduction: int = 64,
        hidden_channels: int = 128,
        residual_channels: int = 32,
        num_blocks: int = 2,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels, reduction=reduction)
        check_positive(hidden_channels=hidden_channels)
        self.reduction = reduction
        self.projection = nn.Conv1d(in_channels, hidden_channels, 3, padding=1)
        self._take_context(hidden_channels, num_classes, context_shape, ranks=(1, 2))
        self.blocks = residual_blocks(hidden_channels, residual_channels, num_blocks, rank=1)
        self.last = nn.Conv1d(hidden_channels, out_channels, 1)

    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        h = add_features(self.projection(x), features)
        output: Tensor = self.last(self.blocks(h))
        return output.repeat_interleave(self.reduction, -1)
