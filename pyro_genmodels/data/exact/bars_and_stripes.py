"""Bars and stripes: the smallest images with structure."""

from __future__ import annotations

import math

import torch

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution

_LARGEST = 60  # patterns are numbered in int64


class BarsAndStripes(ExactDistribution):
    r"""Binary images of either vertical bars or horizontal stripes.

    Of the :math:`2^{n+1} - 2` different images, by default each is equally likely. With
    ``coin=True`` a coin decides between bars and stripes and one coin a line decides its colour,
    so that the two images of one colour, which are both, have double weight.

    Args:
        size: Height and width n, at most 60.
        coin: Whether images come from coin flips instead of uniformly.
        validate_args: Whether values are checked.

    Raises:
        ValueError: If the size is out of range.

    References:
        MacKay (2003), Information Theory, Inference and Learning Algorithms, ch. 43.

    Example:
        >>> images = BarsAndStripes(4)
        >>> round(images.entropy().item() / math.log(2), 5)
        4.90689
        >>> images.log_prob(torch.eye(4).unsqueeze(0))
        tensor(-inf)
    """

    def __init__(
        self, size: int = 4, *, coin: bool = False, validate_args: bool | None = None
    ) -> None:
        check(1 <= size <= _LARGEST, "size", f"lie between 1 and {_LARGEST}", size)
        super().__init__((1, size, size), num_levels=2, validate_args=validate_args)
        self.size, self.coin = size, coin
        self._bits = torch.arange(size)

    def draw(self, count: int) -> Num[Tensor, "{count} 1 n n"]:
        """Draw an orientation and the colours of its lines."""
        colours = 2**self.size
        if self.coin:
            upright = torch.rand(count, device=self.device) < 0.5
            lines = torch.randint(colours, (count,), device=self.device)
        else:
            # Numbers from 2^n on are stripes; the two of one colour count among the bars.
            number = torch.randint(2 * colours - 2, (count,), device=self.device)
            upright = number < colours
            lines = torch.where(upright, number, number - colours + 1)
        line = (lines[:, None] >> self._bits) & 1
        bars = line[:, None, None, :].expand(-1, *self.event_shape)
        return torch.where(upright[:, None, None, None], bars, bars.transpose(2, 3))

    def log_density(self, value: Num[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
        """Return the log-probability; minus infinity if an image is neither."""
        bars = (value == value[:, :, :1]).flatten(1).all(1)
        stripes = (value == value[..., :1]).flatten(1).all(1)
        if self.coin:
            chance = 0.5 * (bars.double() + stripes.double()) * 2.0**-self.size
        else:
            chance = (bars | stripes).double() / (2 ** (self.size + 1) - 2)
        return chance.log()

    def entropy_nats(self) -> float:
        """Return the entropy by counting images of equal probability."""
        n = self.size
        if not self.coin:
            return math.log(2 ** (n + 1) - 2)
        one_colour, others = 2.0 ** (1 - n), 1 - 2.0 ** (1 - n)
        return math.log(2) * (one_colour * n + others * (n + 1))
