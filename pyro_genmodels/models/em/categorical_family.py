"""Categorical and Bernoulli components fitted by expectation-maximisation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pyro_genmodels._checks import check, check_levels, check_positive, integers_checked
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.models.em.base import ComponentFamily
from pyro_genmodels.models.em.gaussian.rows import checked_weights
from pyro_genmodels.models.em.starts import kmeans_plus_plus

_BLOCK = 2**20  # elements of the rows that are counted at once


class CategoricalFamily(ComponentFamily):
    r"""Components whose elements are independent, each with a table of probabilities of its levels.

    With two levels they are Bernoulli. The prior of each table is Dirichlet with equal
    concentrations a, :math:`\log p = (a - 1) \sum_l \log p_l` up to a constant, so that each level
    gets a - 1 pseudo-counts; 1 is maximum likelihood, where a level that a component never has gets
    probability 0. Missing elements change neither scores nor counts.

    Args:
        x: Training rows ``(N, D)`` of levels from 0; NaN is a missing element.
        num_levels: Number of levels L.
        num_components: Number of components K.
        weights: Weight of each row, 1 by default; a weight of 2 is the row twice.
        concentration: Concentration a of the Dirichlet priors, at least 1.
        read: Returns the model's probabilities ``(K, D, L)``.
        write: Sets the model's probabilities.

    Raises:
        ValueError: If ``x`` holds something else than levels, or a number is out of range.

    Example:
        >>> x = torch.tensor([[0, 1], [1, 1], [1, 1], [1, 0]])
        >>> family = CategoricalFamily(x, 2, 1)
        >>> family.maximise(torch.ones(4, 1))
        >>> family.probabilities
        tensor([[[0.2500, 0.7500],
                 [0.2500, 0.7500]]], dtype=torch.float64)
    """

    @integers_checked
    def __init__(
        self,
        x: Num[Tensor, "N D"],
        num_levels: int,
        num_components: int,
        *,
        weights: Float[Tensor, " N"] | None = None,
        concentration: float = 1.0,
        read: Callable[[], Float[Tensor, "K D L"]] | None = None,
        write: Callable[[Float[Tensor, "K D L"]], None] | None = None,
    ) -> None:
        check_positive(num_levels=num_levels, num_components=num_components)
        check_levels("x", x, num_levels, missing=True)
        rule = "be at least 1, where the priors have a maximum"
        check(concentration >= 1, "concentration", rule, concentration)
        self._weights = checked_weights(weights, x)
        self.num_rows, self.num_components = len(x), num_components
        self.num_levels, self.concentration = num_levels, concentration
        missing = x.mT.isnan()
        # A missing element has a level of its own, of probability one and without a count.
        self._levels = x.mT.masked_fill(missing, num_levels).long().contiguous()
        self._read, self._write = read, write
        ones = self._weights.new_ones(1, self.num_rows)
        counts = self._counts(ones * self._weights) + 1.0
        self._marginal = counts / counts.sum(-1, keepdim=True)
        self.probabilities = self._marginal.repeat(num_components, 1, 1)

    def start(self, generator: torch.Generator) -> None:
        """Set tables halfway between all rows' and those of rows far from each other."""

        def distances(rows: Tensor) -> Tensor:
            chosen = self._levels[:, rows]
            other = [(self._levels != levels[:, None]).sum(0) for levels in chosen.mT]
            return torch.stack(other).to(self._weights)

        chosen = kmeans_plus_plus(distances, self._weights, self.num_components, generator)
        own = torch.nn.functional.one_hot(self._levels[:, chosen].mT, self.num_levels + 1)
        seen = own[..., : self.num_levels].to(self._marginal)
        own_or_marginal = seen.where(seen.sum(-1, keepdim=True) > 0, self._marginal)
        self.probabilities = 0.5 * (own_or_marginal + self._marginal)

    def log_probs(self) -> Float[Tensor, "N K"]:
        """Return the log-probability of each row's observed elements under each component."""
        tables = self.probabilities.log().permute(1, 2, 0)
        tables = torch.cat([tables, torch.zeros_like(tables[:, :1])], 1)
        scores = tables.new_zeros(self.num_rows, self.num_components)
        for table, levels in zip(tables, self._levels, strict=True):
            scores += table[levels]
        return scores

    def maximise(self, responsibilities: Float[Tensor, "N K"]) -> None:
        """Set the tables to shares of the expected counts and pseudo-counts."""
        counts = self._counts(responsibilities.mT.to(self._weights))
        counts += self.concentration - 1
        total = counts.sum(-1, keepdim=True)
        # A component that has no rows, or none in which this element was observed, keeps its table.
        new = counts / total.clamp_min(1e-300)
        self.probabilities = new.where(total > 1e-12, self.probabilities)

    def _counts(self, responsibilities: Tensor) -> Tensor:
        """Return expected counts ``(K, D, L)``."""
        number, size = self.num_levels + 1, max(1, _BLOCK // self.num_rows)
        counts = []
        for levels in self._levels.split(size):  # elements whose rows are counted at once
            first = number * torch.arange(len(levels), device=levels.device)
            index = (levels + first[:, None]).flatten()
            found = [
                torch.bincount(index, shares.repeat(len(levels)), minlength=number * len(levels))
                for shares in responsibilities
            ]
            counts.append(torch.stack(found).unflatten(1, (len(levels), number)))
        return torch.cat(counts, 1)[..., : self.num_levels].contiguous()

    def log_prior(self) -> float:
        """Return the log-density of the Dirichlet priors, up to a constant."""
        if self.concentration == 1:
            return 0.0
        return (self.concentration - 1) * float(self.probabilities.log().sum())

    @property
    def num_parameters(self) -> int:
        """K D (L - 1)."""
        return self.num_components * len(self._levels) * (self.num_levels - 1)

    def read(self) -> None:
        """Set the tables to those of the model."""
        check(self._read is not None, "read", "be given to start from a model", None)
        if self._read is not None:
            given, shape = self._read().to(self._weights), tuple(self.probabilities.shape)
            fits = tuple(given.shape) == shape
            check(fits, "probabilities", f"have shape {shape}", tuple(given.shape))
            self.probabilities = given / given.sum(-1, keepdim=True)

    def write(self) -> None:
        """Copy the tables into the model, if there is one."""
        if self._write is not None:
            self._write(self.probabilities)

    def state(self) -> dict[str, Tensor]:
        """Return the tables."""
        return {"probabilities": self.probabilities}

    def load(self, state: dict[str, Tensor]) -> None:
        """Set the tables to those that :meth:`state` returned."""
        self.probabilities = state["probabilities"]
