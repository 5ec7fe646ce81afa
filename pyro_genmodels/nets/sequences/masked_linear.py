"""Linear layers masked by the degrees of their units."""

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


def degree_bounds(degrees: Tensor, size: int) -> list[int]:
    """Return, for each degree, how many units have a smaller one; at last the number of units."""
    counts: list[int] = torch.bincount(degrees, minlength=size).tolist()
    return [0, *itertools.accumulate(counts)]
