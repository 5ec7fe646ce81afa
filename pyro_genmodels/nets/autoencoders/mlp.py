"""Fully connected encoders and decoders: from one data point to features, and back."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from pyro_genmodels._checks import check_event_shape
from pyro_genmodels._configuration import Configured, takes_arguments_of
from pyro_genmodels._typing import EventShape, Float, Num, Tensor
from pyro_genmodels.nets.layers.mlp import MLP


class MLPEncoder(Configured, nn.Module):
    """Fully connected network from vectors or images to features.

    Args:
        event_shape: Sizes of one data point, ``(D,)`` or ``(C, H, W)``.
        out_features: Number of features to give.
        hidden: Widths of the hidden layers; none makes the map linear.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden unit in training.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.

    Example:
        >>> import torch
        >>> MLPEncoder((1, 8, 8), 20)(torch.zeros(5, 2, 1, 8, 8)).shape
        torch.Size([5, 2, 20])
    """

    @takes_arguments_of(MLP, without=["in_features", "zero_init"])
    def __init__(self, event_shape: EventShape, out_features: int, **options: Any) -> None:
        super().__init__()
        self.event_shape = check_event_shape(event_shape)
        self.mlp = MLP(math.prod(event_shape), out_features, **options)

    def forward(
        self, x: Float[Tensor, "*batch_event"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*output"]:
        """Return features ``(*batch, out_features)`` of data ``(*batch, *event)``."""
        return self.mlp(x.flatten(-len(self.event_shape)), context)


class MLPDecoder(Configured, nn.Module):
    """Fully connected network from features to vectors or images.

    Args:
        in_features: Number of features to take.
        event_shape: Sizes of the output, ``(D,)`` or ``(C, H, W)``.
        hidden: Widths of the hidden layers; none makes the map linear.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden unit in training.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.

    Example:
        >>> import torch
        >>> MLPDecoder(20, (1, 8, 8))(torch.zeros(5, 2, 20)).shape
        torch.Size([5, 2, 1, 8, 8])
    """

    @takes_arguments_of(MLP, without=["out_features", "zero_init"])
    def __init__(self, in_features: int, event_shape: EventShape, **options: Any) -> None:
        super().__init__()
        self.event_shape = check_event_shape(event_shape)
        self.mlp = MLP(in_features, math.prod(event_shape), **options)

    def forward(
        self, z: Float[Tensor, "*batch D"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*output"]:
        """Return ``(*batch, *event_shape)``."""
        return self.mlp(z, context).unflatten(-1, self.event_shape)
