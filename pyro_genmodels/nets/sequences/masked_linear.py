"""Linear layers masked by the degrees of their units, and their evaluation degree by degree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._typing import Float, Int


class MaskedLinear(nn.Linear):
    """A linear layer that sees, for each output, only inputs of no larger degree."""

    def masked_weight(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Return the weight with zeros where the degrees forbid."""
        return self.weight * (outputs[:, None] >= inputs)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch in"], inputs: Tensor, outputs: Tensor
    ) -> Float[Tensor, "batch out"]:
        """Return the layer's output, given the degrees on both sides."""
        return F.linear(x, self.masked_weight(inputs, outputs), self.bias)


def hidden_degrees(
    size: int, hidden: Sequence[int], num_masks: int, generator: torch.Generator
) -> list[Int[Tensor, "masks units"]]:
    """Return the degrees of each hidden layer, first those evenly spread, then random ones.

    Random ones are at least the least of the layer before, so that none sees nothing.
    """
    most = max(size - 1, 1)
    # On the CPU, as the generator is: on the meta device the least would not be known.
    layers = [[torch.arange(width, device="cpu") * most // width] for width in hidden]
    for _ in range(num_masks - 1):
        least = 0
        for layer, width in zip(layers, hidden, strict=True):
            layer.append(torch.randint(least, most, (width,), generator=generator, device="cpu"))
            least = int(layer[-1].min())
    return [torch.stack(layer) for layer in layers]


def ensemble(
    logits: Sequence[Float[Tensor, "batch elements K"]], levels: Float[Tensor, "batch elements"]
) -> Float[Tensor, "batch elements K"]:
    r"""Return the logits of the mixture of autoregressive laws, all in one order, equally likely.

    .. math:: p(x_t \mid x_{<t}) = \sum_m w_m p_m(x_t \mid x_{<t}), \qquad
        w_m \propto \prod_{s<t} p_m(x_s \mid x_{<s})
    """
    if len(logits) == 1:
        return logits[0]
    each = torch.stack([part.log_softmax(-1) for part in logits])
    index = levels.long().expand(each.shape[:-1])[..., None]
    past = each.gather(-1, index)[..., 0].cumsum(-1)
    # Shifted, not the element's own taken off again, which rounding would leave a trace of.
    weights = F.pad(past[..., :-1], (1, 0)).log_softmax(0)
    return (weights[..., None] + each).logsumexp(0)


class MaskedEvaluation:
    """Masked layers under one set of degrees, computed degree by degree.

    The units are sorted by degree, so that those which an element completes are a slice.

    Args:
        layers: The layers.
        degrees: Degrees of the units, from the input to the output.
        batch_size: Number of examples.
        activation: What stands between the layers.
        direct: Connections from input to output.
        shifts: What a context adds to the first layer and to the last.
    """

    def __init__(
        self,
        layers: Sequence[MaskedLinear],
        degrees: Sequence[Tensor],
        batch_size: int,
        *,
        activation: nn.Module,
        direct: MaskedLinear | None,
        shifts: tuple[Tensor, Tensor] | None,
    ) -> None:
        self._activation, size = activation, int(degrees[0].max()) + 1
        orders = [layer.argsort(stable=True) for layer in degrees]
        self._bounds = [_bounds(layer, size) for layer in degrees[:-1]]
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
        if direct is not None:
            self._direct = direct.masked_weight(degrees[0], degrees[-1]).t()
        if shifts is not None:
            self._biases[0] = self._biases[0] + shifts[0][:, orders[1]]
            self._biases[-1] = self._biases[-1] + shifts[1]

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


def _bounds(degrees: Tensor, size: int) -> list[int]:
    """Return, for each degree, how many units have a smaller one; at last the number of units."""
    counts: list[int] = torch.bincount(degrees, minlength=size).tolist()
    return [0, *itertools.accumulate(counts)]
