"""Fully connected networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._configuration import Configured, takes_arguments_of
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets.layers.context import (
    ContextEmbedding,
    check_context,
    context_event_dim,
    join_context,
    split_context,
)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def make_activation(name: str) -> nn.Module:
    """Return the activation of that name.

    Raises:
        ValueError: If there is none.
    """
    check_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def make_dropout(rate: float) -> nn.Dropout:
    """Return a layer that sets that share of its features to zero in training.

    Raises:
        ValueError: If the share is not in [0, 1).
    """
    check_dropout(rate)
    return nn.Dropout(rate)


def check_dropout(rate: float) -> None:
    """Raise ``ValueError`` unless a share of features may be dropped, also where no layer does."""
    check(0 <= rate < 1, "dropout", "be in [0, 1)", rate)


def set_to_zero(layer: nn.Module) -> None:
    """Set every parameter of ``layer`` to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Constant(nn.Module):
    """Learned numbers, whatever the input: a linear layer without inputs. They start at zero.

    Args:
        out_features: How many.
    """

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*output"]:
        """Return ``(*batch, out_features)``."""
        return self.bias.expand(*x.shape[:-1], -1)


class MLP(Configured, nn.Module):
    """Multi-layer perceptron; a context enters as a shift of the first layer.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        hidden: Widths of the hidden layers.
        activation: Name of the activation, one of :data:`ACTIVATIONS`.
        dropout: Probability of dropping a hidden unit in training.
        zero_init: Start with an output of zero.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps (a map is flattened).

    Raises:
        ValueError: If a width is not positive, or the context is impossible.

    Example:
        >>> mlp = MLP(3, 2, hidden=(16, 16), num_classes=10)
        >>> mlp(torch.zeros(7, 5, 3), torch.zeros(5, dtype=torch.long)).shape
        torch.Size([7, 5, 2])
    """

    has_input: ClassVar[bool] = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: Sequence[int] = (400,),
        activation: str = "relu",
        dropout: float = 0.0,
        zero_init: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check(in_features > 0 or not self.has_input, "in_features", "be positive", in_features)
        check_positive(hidden=min([*hidden, 1]), out_features=out_features)
        self.context_event_dim = context_event_dim(num_classes, context_shape)
        self.num_classes = num_classes
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        is_constant = not self.has_input and self.context_event_dim is None
        widths = [in_features, *(() if is_constant else hidden), out_features]
        flat = None if context_shape is None else (math.prod(context_shape),)
        self.context = ContextEmbedding(widths[1], num_classes=num_classes, context_shape=flat)
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) if a else Constant(b) for a, b in pairs)
        self.activation = make_activation(activation)
        if isinstance(self.activation, nn.ReLU):
            self.activation.inplace = True  # what it is given is nobody else's
        self.dropout = make_dropout(dropout)
        if zero_init:
            set_to_zero(self.layers[-1])

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*output"]:
        """Return ``(*batch, out_features)``; the batch shapes of input and context broadcast."""
        if self.context_event_dim == 3 and context is not None:
            context = self._flattened(context)
        first, *rest = self.layers  # a slice would build a module each time
        h: Tensor = first(x)
        # A module call that does nothing costs as much as a small layer.
        if context is not None or self.context_event_dim is not None:
            h = h + self.context(context)
        drops = self.training and self.dropout.p > 0
        for layer in rest:
            h = self.activation(h)
            h = layer(self.dropout(h) if drops else h)
        return h

    def _flattened(self, context: Tensor) -> Tensor:
        """Return a map as a vector, beside a label if the context has one."""
        if self.num_classes is None:
            return context.flatten(-3)
        # Here, since a vector does not show that the first channel held several labels.
        check_context(context, num_classes=self.num_classes, context_shape=self.context_shape)
        labels, features = split_context(context, 3)
        return join_context(labels, features.flatten(-3), 1)


class NoInputMLP(MLP):
    """A network that sees the context only; without one its output is learned constants.

    Where a coupling has nothing to see, in a vector of one element. Its input has no elements and
    gives the batch shape.

    Args:
        out_features: Width of the output.
        hidden: Widths of the hidden layers; there are none without a context.
        activation: Name of the activation, one of :data:`ACTIVATIONS`.
        dropout: Probability of dropping a hidden unit in training.
        zero_init: Start with an output of zero.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps (a map is flattened).

    Raises:
        ValueError: If a width is not positive, or the context is impossible.

    Example:
        >>> NoInputMLP(2)(torch.zeros(7, 0)).shape
        torch.Size([7, 2])
    """

    has_input = False

    @takes_arguments_of(MLP, without=["in_features"])
    def __init__(self, out_features: int, **options: Any) -> None:
        super().__init__(0, out_features, **options)


def vector_net(in_features: int, out_features: int, **options: Any) -> MLP:
    """Return a network of vectors, or of the context only where there is nothing to see.

    Args:
        in_features: Width of the input; 0 for none.
        out_features: Width of the output.
        options: As for :class:`MLP`.
    """
    if in_features:
        return MLP(in_features, out_features, **options)
    return NoInputMLP(out_features, **options)
