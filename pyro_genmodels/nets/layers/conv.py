"""Convolutional networks from image to image of one size, for couplings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.nets.layers.context import ConditionalNet, add_features
from pyro_genmodels.nets.layers.mlp import (
    check_dropout,
    make_activation,
    make_dropout,
    set_to_zero,
)
from pyro_genmodels.nets.layers.residual import preactivation_block


class _ImageNet(ConditionalNet, Abstract):
    """A first convolution, shifted by the context, and whatever a subclass puts behind it."""

    rest: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        first: int,
        kernel_size: int,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels, hidden=first)
        odd = kernel_size > 0 and kernel_size % 2 == 1
        check(odd, "kernel_size", "be odd and positive", kernel_size)
        self._take_context(first, num_classes, context_shape)
        self.first = nn.Conv2d(in_channels, first, kernel_size, padding="same")

    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        return self.rest(add_features(self.first(x), features))


class ConvNet(_ImageNet):
    """Plain stack of convolutions that keep the image's size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden: Channels of the hidden layers, at least one.
        kernel_size: Odd size of every kernel.
        activation: Name of the activation, one of ``nets.layers.mlp.ACTIVATIONS``.
        dropout: Probability of dropping a hidden unit in training.
        zero_init: Start with an output of zero.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or maps ``(C, H, W)``; a map of another size
            is resampled by averaging.

    Shape:
        ``(*batch, in_channels, H, W)`` to ``(*batch, out_channels, H, W)``.

    Raises:
        ValueError: If a size is not positive, or a kernel even.

    Example:
        >>> import torch
        >>> ConvNet(3, 6, hidden=(16,))(torch.zeros(2, 5, 3, 7, 9)).shape
        torch.Size([2, 5, 6, 7, 9])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: Sequence[int] = (32, 32),
        kernel_size: int = 3,
        activation: str = "relu",
        dropout: float = 0.0,
        zero_init: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        check(len(hidden) > 0 and min(hidden) > 0, "hidden", "be positive sizes", hidden)
        super().__init__(
            in_channels, out_channels, hidden[0], kernel_size, num_classes, context_shape
        )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise([*hidden, out_channels]):
            conv = nn.Conv2d(before, after, kernel_size, padding="same")
            layers += [make_activation(activation), make_dropout(dropout), conv]
        if zero_init:
            set_to_zero(layers[-1])
        self.rest = nn.Sequential(*layers)


class ResNet(_ImageNet):
    """Residual network that keeps the image's size: pre-activation blocks, 1x1 output.

    Without normalisation layers, which make a density depend on the minibatch; the blocks start
    as identities instead (Zhang et al. 2019, Fixup. https://arxiv.org/abs/1901.09321).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden_channels: Channels of the blocks.
        num_blocks: Number of blocks of two convolutions.
        kernel_size: Odd size of every kernel.
        activation: Name of the activation, one of ``nets.layers.mlp.ACTIVATIONS``.
        dropout: Probability of dropping a hidden unit in training.
        zero_init: Start with an output of zero.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or maps ``(C, H, W)``; a map of another size
            is resampled by averaging.

    Shape:
        ``(*batch, in_channels, H, W)`` to ``(*batch, out_channels, H, W)``.

    Raises:
        ValueError: If a size is not positive, or a kernel even.

    Example:
        >>> import torch
        >>> net = ResNet(1, 2, hidden_channels=8, num_classes=10)
        >>> net(torch.zeros(4, 1, 8, 8), torch.arange(4)).shape
        torch.Size([4, 2, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int = 64,
        num_blocks: int = 2,
        kernel_size: int = 3,
        activation: str = "relu",
        dropout: float = 0.0,
        zero_init: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        check(num_blocks >= 0, "num_blocks", "not be negative", num_blocks)
        check_dropout(dropout)
        super().__init__(
            in_channels, out_channels, hidden_channels, kernel_size, num_classes, context_shape
        )
        blocks = [
            preactivation_block(hidden_channels, activation, dropout, kernel_size=kernel_size)
            for _ in range(num_blocks)
        ]
        for block in blocks:  # each starts as the identity, so that depth costs nothing at first
            set_to_zero(block.branch[-1])
        last = nn.Conv2d(hidden_channels, out_channels, 1)
        if zero_init:
            set_to_zero(last)
        self.rest = nn.Sequential(*blocks, make_activation(activation), last)
