"""Causal self-attention between layers of a horizontal stack."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import check_positive
from pyro_genmodels._typing import Float
from pyro_genmodels.nets.gated_pixelcnn.layers import gated
from pyro_genmodels.nets.layers.masked_conv import MaskedRowConv2d
from pyro_genmodels.nets.layers.mlp import make_dropout


class CausalAttention(nn.Module):
    r"""Lets every pixel look at all pixels before it, and mixes what it finds in by a gate.

    .. math:: y = g(W h + A a + U c), \quad h' = h + R y

    where :math:`a` is the softmax-weighted mean of the values of the pixels strictly before, and of
    a start token whose key and value are zero: the first pixel has nothing else. Keys and values
    come from finished pixels, hence from their levels as well; the queries of a colour from its
    own and the earlier colours' features.

    Args:
        in_channels: Features of the levels.
        channels: Features of the stack.
        num_heads: Number of attention heads.
        head_size: Size of each head's keys and values.
        skip_channels: Features that go to the network's output.
        num_groups: Number of colours.
        context: Number of a context's features.
        last: Leave out what only a further layer would read.
        dropout: Share of the gated features dropped, in training mode.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_heads: int,
        head_size: int,
        skip_channels: int,
        num_groups: int,
        context: int,
        last: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(num_heads=num_heads, head_size=head_size)
        groups, size = num_groups, num_heads * head_size
        self.channels, self.num_groups = channels, groups
        self.num_heads, self.head_size = num_heads, head_size
        self.query = MaskedRowConv2d(channels, groups * size, num_groups=groups, bias=False)
        self.memory = nn.Conv2d(in_channels + channels + context, 2 * size, 1)
        self.own = MaskedRowConv2d(channels, channels, num_groups=groups, parts=2, bias=False)
        self.attended = MaskedRowConv2d(
            groups * size, channels, num_groups=groups, parts=2, bias=False
        )
        self.context = nn.Conv2d(context, groups * size + 2 * channels, 1)
        self.dropout = make_dropout(dropout)
        self.skip = MaskedRowConv2d(channels, skip_channels, num_groups=groups, bias=False)
        self.residual = None
        if not last:
            self.residual = MaskedRowConv2d(channels, channels, num_groups=groups, bias=False)

    def forward(self, x: Tensor, h: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the horizontal features, and the skip connection's."""
        to_query, to_gates = self.context(features).split(
            [self.context.out_channels - 2 * self.channels, 2 * self.channels], 1
        )
        keys, values = self.memory(torch.cat([x, h, features], 1)).chunk(2, 1)
        found = self._attend(self.query(h) + to_query, keys, values)
        y = self.dropout(gated(self.own(h) + self.attended(found) + to_gates))
        skip = cast(Tensor, self.skip(y))
        return h if self.residual is None else h + self.residual(y), skip

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        heads, groups = self.num_heads, self.num_groups
        q = queries.unflatten(1, (groups * heads, -1)).flatten(3).mT
        k, v = (
            shifted(t.unflatten(1, (heads, -1)).flatten(3).mT).repeat(1, groups, 1, 1)
            for t in (keys, values)
        )
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return found.mT.reshape(queries.shape)


def shifted(x: Float[Tensor, "*batch places size"]) -> Float[Tensor, "*batch places size"]:
    """Put zero, the start token, first, and drop the last place.

    The causal mask of a pixel, which ends with the pixel's own place, then ends before the pixel.
    """
    return F.pad(x, (0, 0, 1, -1))
