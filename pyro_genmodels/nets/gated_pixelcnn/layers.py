"""Gated layers of a vertical and a horizontal stack: together they see the whole past."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers.masked_conv import MaskedRowConv2d, VerticalConv2d
from pyro_genmodels.nets.layers.mlp import make_dropout
from pyro_genmodels.nets.layers.pointwise import pointwise_conv


def gated(x: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch half ..."]:
    """Return ``tanh(a) * sigmoid(b)`` of the two halves of the channels.

    Example:
        >>> import torch
        >>> gated(torch.tensor([[100.0, 0.0]]))
        tensor([[0.5000]])
    """
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    r"""One layer of both stacks.

    .. math:: a = W_v * v + U c, \quad v' = g(a), \qquad y = g(W_h * h + L a + V c)

    with :math:`g` the gate; :math:`h' = h + R y`, and :math:`S y` is the skip connection. The
    vertical features need no groups: what is above is there with all its colours.

    Args:
        in_channels: Channels of both inputs.
        channels: Features of each stack.
        kernel_size: Odd size of the kernel that the two stacks share out.
        skip_channels: Features that go to the network's output.
        num_groups: Number of colours.
        kind: "A" for the first layer, which is shifted and has no residual connection.
        last: Leave out what only a further layer would read.
        dropout: Share of the horizontal gated features dropped, in training mode.
        context: Number of a context's features.
        residual_channels: Features of a rectified layer within the residual connection, which then
            has two; ``None`` for a linear one.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        *,
        skip_channels: int,
        num_groups: int,
        kind: str = "B",
        last: bool = False,
        dropout: float = 0.0,
        context: int | None = None,
        residual_channels: int | None = None,
    ) -> None:
        super().__init__()
        first, gates, groups = kind == "A", 2 * channels, num_groups
        self.channels, self.kind = channels, kind
        self.vertical = VerticalConv2d(in_channels, gates, kernel_size, shift=first)
        self.horizontal = MaskedRowConv2d(
            in_channels, channels, kernel_size // 2 + 1, kind=kind, num_groups=groups, parts=2
        )
        self.link = nn.Conv2d(gates, gates, 1, bias=False)
        self.horizontal.reset_parameters(gain=1.0 if first else 2.0)
        self.context = None if context is None else nn.Conv2d(context, 2 * gates, 1, bias=False)
        self.dropout = make_dropout(dropout)
        # The biases of the first layer serve for the sums over all layers.
        self.skip = MaskedRowConv2d(channels, skip_channels, num_groups=groups, bias=first)
        self.residual = self.wide = None
        if not last:
            inner = channels if residual_channels is None else residual_channels
            if residual_channels is not None:
                self.wide = MaskedRowConv2d(channels, inner, num_groups=groups)
                self.wide.reset_parameters(gain=2.0)
            self.residual = MaskedRowConv2d(inner, channels, num_groups=groups, bias=first)
            self.residual.reset_parameters(gain=2.0 if self.wide is None else 2**0.5)
        self.skip.reset_parameters(gain=2.0)

    def forward(
        self, v: Tensor, h: Tensor, features: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the vertical and the horizontal features, and the skip connection's."""
        above, beside = self.vertical(v), self.horizontal(h)
        if self.context is not None:
            to_above, to_beside = self.context(features).chunk(2, 1)
            above, beside = above + to_above, beside + to_beside
        y = self.dropout(gated(beside + pointwise_conv(above, self.link.weight)))
        skip = cast(Tensor, self.skip(y))
        if self.residual is None:
            return v, h, skip
        branch = self.residual(y if self.wide is None else self.wide(y).relu())
        return gated(above), branch if self.kind == "A" else h + branch, skip
