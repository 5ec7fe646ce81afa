"""MADE: a fully connected network whose weights are masked so that it is autoregressive."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_event_shape, check_positive
from pyro_genmodels._typing import EventShape, Float, Int, Num
from pyro_genmodels.nets.autoregressive.base import (
    AutoregressiveNet,
    IncrementalEvaluation,
    raster_indices,
)
from pyro_genmodels.nets.layers.mlp import make_activation, make_dropout
from pyro_genmodels.nets.sequences.base import context_layer, plus
from pyro_genmodels.nets.sequences.masked_linear import (
    MaskedLinear,
    degree_bounds,
    ensemble,
    hidden_degrees,
)


class MADENet(AutoregressiveNet):
    r"""A fully connected autoencoder, masked: element t's logits see the elements before it only.

    Hidden unit k has a degree :math:`m(k)` and sees units of degree :math:`m(k)` at most; the
    logits of the element in place t see units of degree below t:

    .. math:: h = g(b + (W \odot M^W) x), \qquad y = c + (V \odot M^V) h + (A \odot M^A) x.

    With layers of ``D - 1`` units and more, or direct connections (A), each element sees all
    before it. Two levels enter as 0 and 1; more levels as a one-hot code.

    With ``num_masks`` above 1 (the paper's connectivity-agnostic training) the weights serve
    several sets of degrees, one of them at random at each call in training mode. In eval mode the
    model is the paper's ensemble, :math:`p(x) = \frac1M \sum_m p_m(x)`, by its conditionals, so it
    is sampled exactly too. All have one order: over several orders these conditionals would have
    no closed form, and sampling could not go element by element.

    For real-valued vectors, MADE with Gaussian outputs is a flow:
    :class:`~pyro_genmodels.transforms.MaskedAutoregressive`, or ``models.maf`` with one layer.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of an element; 2 for the paper's binary data.
        hidden: Widths of the hidden layers.
        order: Order of generation: ``"natural"`` (of images, the raster order), ``"random"``, or
            the indices of the flattened elements, first to last.
        num_masks: Number of sets of degrees. The first has them evenly spread, the others random.
        direct: Whether there are direct connections from input to output.
        one_hot: Whether more than two levels enter by a one-hot code; if not, as one number in
            [-1, 1], for many elements of many levels.
        activation: Name of the activation; ReLU in the paper.
        dropout: Share of hidden units dropped, in training mode; not in the paper.
        seed: Seed of random order and degrees, which the network's state dict keeps.
        num_classes: Contexts are labels.
        context_shape: Contexts are vectors ``(D,)``.

    Shape:
        ``(*batch, *event_shape)`` to logits ``(*batch, *event_shape, num_levels)``.

    Raises:
        ValueError: If a size is impossible, or the order is no permutation.

    References:
        Germain et al. (2015), MADE: Masked autoencoder for distribution estimation.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> net = MADENet((1, 4, 4), 2, hidden=(32,), order="random", num_masks=2)
        >>> net(torch.zeros(5, 1, 4, 4)).shape
        torch.Size([5, 1, 4, 4, 2])
    """

    ordering: Tensor

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        hidden: Sequence[int] = (512, 512),
        order: str | Sequence[int] = "natural",
        num_masks: int = 1,
        direct: bool = False,
        one_hot: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
        seed: int = 0,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
    ) -> None:
        check_positive(num_masks=num_masks, hidden=min(hidden, default=0))
        super().__init__(
            check_event_shape(event_shape),
            num_levels,
            context_features=hidden[0],
            num_classes=num_classes,
            context_shape=context_shape,
            context_ranks=(1,),
        )
        self.one_hot, self.num_masks = one_hot and num_levels > 2, num_masks
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("ordering", self._ordering(order, generator))
        size = self.event_shape.numel()
        inputs, outputs = size * (num_levels if self.one_hot else 1), size * num_levels
        self.layers = nn.ModuleList(
            MaskedLinear(a, b) for a, b in itertools.pairwise((inputs, *hidden, outputs))
        )
        for index, degrees in enumerate(hidden_degrees(size, hidden, num_masks, generator)):
            self.register_buffer(f"degrees_{index}", degrees.to(torch.get_default_device()))
        self.direct = MaskedLinear(inputs, outputs, bias=False) if direct else None
        self.first_context = context_layer(self.context_channels, hidden[0])
        # The first element sees no hidden unit.
        self.last_context = context_layer(self.context_channels, outputs)
        self.activation, self.dropout = make_activation(activation), make_dropout(dropout)

    def _ordering(self, order: str | Sequence[int], generator: torch.Generator) -> Tensor:
        size = self.event_shape.numel()
        if order == "natural":
            return raster_indices(self.event_shape)
        if order == "random":
            shuffled = torch.randperm(size, generator=generator, device="cpu")
            return shuffled.to(torch.get_default_device())
        named = isinstance(order, str) or sorted(order) != list(range(size))
        rule = f"be 'natural', 'random' or the numbers 0 .. {size - 1} in some order"
        check(not named, "order", rule, order)
        return torch.tensor(order)

    @property
    def order(self) -> Int[Tensor, " elements"]:
        """Indices of the flattened elements, in the order of generation."""
        return self.ordering

    def degrees(self, mask: int) -> list[Int[Tensor, " units"]]:
        """Return the degrees of the units of each layer, input to output, under one mask.

        A unit sees those of the layer before whose degree is no larger. Of elements, counted from
        0 in the order of generation, the input has degree t and the output t - 1.
        """
        size = self.event_shape.numel()
        elements = torch.arange(size, device=self.device)
        inputs = cast(MaskedLinear, self.layers[0]).in_features // size
        hidden = [
            cast(Tensor, getattr(self, f"degrees_{index}"))[mask]
            for index in range(len(self.layers) - 1)
        ]
        last = (elements - 1).repeat_interleave(self.num_levels)
        return [elements.repeat_interleave(inputs), *hidden, last]

    def encoded(self, levels: Float[Tensor, "batch elements"]) -> Float[Tensor, "batch inputs"]:
        """Return what enters the network of levels ``(batch, elements)``."""
        if self.one_hot:
            each = torch.arange(self.num_levels, device=levels.device)
            return (levels[..., None] == each).to(self.dtype).flatten(1)
        return levels if self.num_levels == 2 else levels * (2 / (self.num_levels - 1)) - 1

    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return the logits ``(batch, *event_shape, K)``."""
        levels = x.flatten(1)[:, self.ordering]
        if self.training and self.num_masks > 1:
            logits = self._logits(levels, features, int(torch.randint(self.num_masks, ())))
        else:
            masks = range(self.num_masks)
            logits = ensemble([self._logits(levels, features, mask) for mask in masks], levels)
        return logits[:, self.ordering.argsort()].reshape(*x.shape, self.num_levels)

    def _logits(self, levels: Tensor, features: Tensor | None, mask: int) -> Tensor:
        """Return the logits ``(batch, elements, K)`` in the order of generation."""
        degrees, inputs = self.degrees(mask), self.encoded(levels)
        first, *rest = self.layers
        y = plus(first(inputs, *degrees[:2]), self.first_context, features)
        for layer, pair in zip(rest, itertools.pairwise(degrees[1:]), strict=True):
            y = layer(self.dropout(self.activation(y)), *pair)
        if self.direct is not None:
            y = y + self.direct(inputs, degrees[0], degrees[-1])
        y = plus(y, self.last_context, features)
        return cast(Tensor, y.unflatten(1, (-1, self.num_levels)))

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation that computes each hidden unit when all that it sees is known."""
        return MADEEvaluation(self, batch_size, features)


class MADEEvaluation(IncrementalEvaluation):
    """Evaluates a :class:`MADENet` element by element, at the cost of one pass in all.

    With several masks it carries the log-probability of the past under each.
    """

    def __init__(self, net: MADENet, batch_size: int, features: Tensor | None) -> None:
        self._passes = [
            MaskedEvaluation(net, mask, batch_size, features) for mask in range(net.num_masks)
        ]
        self._encoded, self._size, self._position = net.encoded, net.num_levels, 0
        self._past = torch.zeros(net.num_masks, batch_size, dtype=net.dtype, device=net.device)
        self._each: Tensor = self._past[..., None]

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the next element's logits."""
        own = slice(self._position * self._size, (self._position + 1) * self._size)
        logits = [one.outputs(self._position, own) for one in self._passes]
        if len(logits) == 1:
            return logits[0]
        self._each = torch.stack(logits).log_softmax(-1)
        return (self._past.log_softmax(0)[..., None] + self._each).logsumexp(0)

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the next element's value."""
        encoded = self._encoded(level[:, None].to(self._past.dtype))
        for one in self._passes:
            one.append(self._position, encoded)
        if len(self._passes) > 1:
            index = level.long().expand(self._past.shape)[..., None]
            self._past = self._past + self._each.gather(-1, index)[..., 0]
        self._position += 1


class MaskedEvaluation:
    """Masked layers under one set of degrees, computed degree by degree.

    The units are sorted by degree, so that those which an element completes are a slice.

    Args:
        net: The network.
        mask: Index of the degrees.
        batch_size: Number of examples.
        features: Features of the context.
    """

    def __init__(self, net: MADENet, mask: int, batch_size: int, features: Tensor | None) -> None:
        self._activation, size = net.activation, net.event_shape.numel()
        layers, degrees = [cast(MaskedLinear, layer) for layer in net.layers], net.degrees(mask)
        orders = [layer.argsort(stable=True) for layer in degrees]
        self._bounds = [degree_bounds(layer, size) for layer in degrees[:-1]]
        like = layers[0].weight
        self._units = [like.new_zeros(batch_size, len(layer)) for layer in degrees[:-1]]
        self._weights = [
            layer.masked_weight(*pair)[after][:, before].t()
            for layer, pair, (before, after) in zip(
                layers, itertools.pairwise(degrees), itertools.pairwise(orders), strict=True
            )
        ]
        self._biases = [
            layer.bias[after].expand(batch_size, -1)
            for layer, after in zip(layers, orders[1:], strict=True)
        ]
        self._direct = None
        if net.direct is not None:
            self._direct = net.direct.masked_weight(degrees[0], degrees[-1]).t()
        if features is not None and net.first_context is not None:
            self._biases[0] = self._biases[0] + net.first_context(features)[:, orders[1]]
            self._biases[-1] = self._biases[-1] + net.last_context(features)

    def outputs(self, degree: int, own: slice) -> Tensor:
        """Return outputs that see the units below a degree."""
        known = self._bounds[-1][degree]
        weight = self._weights[-1][:known, own]
        y = torch.addmm(self._biases[-1][:, own], self._units[-1][:, :known], weight)
        if self._direct is None:
            return y
        seen = self._bounds[0][degree]
        return y.addmm_(self._units[0][:, :seen], self._direct[:seen, own])

    def append(self, degree: int, inputs: Tensor) -> None:
        """Take the inputs of a degree, and compute the hidden units that waited for them."""
        bounds = [layer[degree : degree + 2] for layer in self._bounds]
        self._units[0][:, slice(*bounds[0])] = inputs
        for index in range(1, len(self._units)):
            seen, own = bounds[index - 1][1], slice(*bounds[index])
            weight, x = self._weights[index - 1][:seen, own], self._units[index - 1][:, :seen]
            y = torch.addmm(self._biases[index - 1][:, own], x, weight)
            self._units[index][:, own] = self._activation(y)
