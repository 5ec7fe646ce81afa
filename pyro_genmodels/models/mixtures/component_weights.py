"""Probabilities of a mixture's components: learned, given, or a network's of features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from pyro_genmodels._checks import check, check_choice, check_trailing
from pyro_genmodels._typing import Float, Int, Tensor
from pyro_genmodels.nets.autoencoders import MLPEncoder
from pyro_genmodels.nets.layers import DerivedBuffers, set_values

WeightsArgument: TypeAlias = str | Sequence[float] | Sequence[Sequence[float]] | nn.Module

_NAMES = ("learned", "uniform", "dirichlet")
_LEAST = 1e-30  # probability whose logarithm a parameter can have
_TOLERANCE = 1e-6  # of the sum of probabilities, which float32 gives to about 1e-7


class ComponentWeights(DerivedBuffers):
    """The log-weights of a mixture's components.

    Args:
        weights: As for :class:`MixtureModel`.
        num_groups: Number of labels that have components of their own each.
        num_components: Number of components of each.
        context_shape: Sizes of features that the weights depend on.
        concentration: Of a Dirichlet prior.
        hidden: Widths of the hidden layers of the network of features.

    Attributes:
        table: Unnormalised log-weights ``(num_groups, num_components)``; ``None`` with a network.
    """

    table: Tensor | None

    def __init__(
        self,
        weights: WeightsArgument,
        num_groups: int,
        num_components: int,
        *,
        context_shape: Sequence[int] | None,
        concentration: float,
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        self.num_groups, self.num_components = num_groups, num_components
        self.rank = 0 if context_shape is None else len(context_shape)
        self.network: nn.Module | None = None
        if isinstance(weights, nn.Module):
            check(
                self.rank > 0, "weights", "be no network without features", type(weights).__name__
            )
            self.network = weights
        elif isinstance(weights, str):
            check_choice("weights", weights, _NAMES)
            of_features = self.rank > 0
            rule = "be no Dirichlet's where they depend on features"
            check(weights != "dirichlet" or not of_features, "weights", rule, repr(weights))
            if weights == "learned" and context_shape is not None:
                size = num_groups * num_components
                self.network = MLPEncoder(context_shape, size, hidden=hidden)
        rule = "be at least 1, below which the mode has weights of zero"
        check(concentration >= 1, "concentration", rule, concentration)
        self.concentration = concentration if weights == "dirichlet" else None
        if self.network is not None:
            self.table = None
        elif weights in ("learned", "dirichlet"):
            self.table = nn.Parameter(torch.zeros(num_groups, num_components))
        else:
            make = partial(_given_logits, weights, num_groups, num_components)
            self.register_derived("table", make)

    @property
    def is_learned(self) -> bool:
        """Whether there is anything to learn."""
        return self.table is None or self.table.requires_grad

    def forward(
        self, group: Int[Tensor, "*batch"] | None = None, features: Tensor | None = None
    ) -> Float[Tensor, "*batch K"]:
        """Return the unnormalised log-weights of the components.

        Args:
            group: Label whose components they are, where there are several.
            features: What they depend on besides.
        """
        if self.network is None:
            assert self.table is not None  # one of both is there
            return self.table[0] if group is None else F.embedding(group, self.table)
        assert features is not None  # a network is given features
        logits: Tensor = self.network(features)
        check_trailing("weights(features)", logits, (self.num_groups * self.num_components,))
        table = logits.unflatten(-1, (self.num_groups, self.num_components))
        if group is None:
            return table[..., 0, :]
        batch = torch.broadcast_shapes(group.shape, table.shape[:-2])
        index = group.expand(batch).reshape(*batch, 1, 1).expand(*batch, 1, self.num_components)
        return table.expand(*batch, *table.shape[-2:]).gather(-2, index).squeeze(-2)

    @torch.no_grad()
    def probabilities(self) -> Float[Tensor, " K"]:
        """Return the weights of a table of one group, float64."""
        assert self.table is not None  # asked for of tables alone
        return self.table[0].double().softmax(-1)

    @torch.no_grad()
    def set_probabilities(self, probabilities: Float[Tensor, " K"]) -> None:
        """Set the weights of a table of one group; zero ones to next to nothing."""
        assert isinstance(self.table, nn.Parameter)
        set_values(self.table, probabilities.clamp_min(_LEAST).log()[None].to(self.table))

    def log_prior(self) -> Tensor:
        """Return the Dirichlet prior's log-density at the weights, in nats."""
        assert self.table is not None  # of Dirichlet weights
        assert self.concentration is not None
        alpha, size = self.concentration, self.num_components
        constant = math.lgamma(size * alpha) - size * math.lgamma(alpha)
        each = (alpha - 1) * self.table.log_softmax(-1).sum(-1) + constant
        return each.sum()


def _given_logits(weights: Any, num_groups: int, num_components: int) -> Tensor:
    if isinstance(weights, str):
        return torch.zeros(num_groups, num_components)
    # Looked at, so on the CPU, whatever the default device is.
    rows = torch.as_tensor(weights, dtype=torch.float64, device="cpu")
    rows = rows[None] if rows.dim() == 1 and num_groups == 1 else rows
    shape = (num_components,) if num_groups == 1 else (num_groups, num_components)
    fits = tuple(rows.shape) == (num_groups, num_components) and bool((rows >= 0).all())
    fits = fits and bool(((rows.sum(-1) - 1).abs() < _TOLERANCE).all())
    rule = f"be one of {', '.join(_NAMES)}, or probabilities {shape} that sum to one"
    check(fits, "weights", rule, weights)
    return rows.log().to(torch.get_default_device(), torch.get_default_dtype())
