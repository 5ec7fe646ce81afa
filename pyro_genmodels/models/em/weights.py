"""Weights of a mixture's components, fitted by expectation-maximisation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._typing import Float, Int, Tensor
from pyro_genmodels.models.em.base import LatentStructure
from pyro_genmodels.models.em.gaussian.rows import checked_weights


class MixtureWeights(LatentStructure):
    r"""Independent labels, with the probabilities :math:`\pi` of a mixture's components.

    The prior is Dirichlet with equal concentrations a,
    :math:`\log p(\pi) = (a - 1) \sum_k \log \pi_k` up to a constant; 1 is maximum likelihood.

    Args:
        num_components: Number of components K.
        weights: Weight of each row, 1 by default; a weight of 2 is the row twice.
        labels: Labels of rows whose component is known, and -1 for the others.
        concentration: Concentration a of the Dirichlet prior, at least 1.
        learned: Whether the weights are fitted. Otherwise they stay what the model has, or equal.
        read: Returns the model's probabilities ``(K,)``.
        write: Sets the model's probabilities.

    Raises:
        ValueError: If a size, a label or the concentration is out of range.

    Example:
        >>> structure = MixtureWeights(2)
        >>> log_likelihood, shares = structure.expect(torch.tensor([[0.5, 0.5], [0.0, 1.0]]).log())
        >>> structure.maximise()
        >>> structure.probabilities
        tensor([0.2500, 0.7500])
    """

    @integers_checked
    def __init__(
        self,
        num_components: int,
        *,
        weights: Float[Tensor, " N"] | None = None,
        labels: Int[Tensor, " N"] | None = None,
        concentration: float = 1.0,
        learned: bool = True,
        read: Callable[[], Float[Tensor, " K"]] | None = None,
        write: Callable[[Float[Tensor, " K"]], None] | None = None,
    ) -> None:
        check_positive(num_components=num_components)
        rule = "be at least 1, where the prior has a maximum"
        check(concentration >= 1, "concentration", rule, concentration)
        if labels is not None and labels.numel():
            low, high = int(labels.min()), int(labels.max())
            rule = f"be from -1 (unknown) to {num_components - 1}"
            check(low >= -1 and high < num_components, "labels", rule, f"{low} to {high}")
        self.num_components, self.concentration, self.learned = (
            num_components,
            concentration,
            learned,
        )
        self._weights, self._labels = weights, labels
        self._read, self._write = read, write
        self.start(torch.Generator())
        self._counts = torch.zeros_like(self.probabilities)

    def start(self, generator: torch.Generator) -> None:
        """Set the probabilities to equal ones; those that are not learned to the model's."""
        equal = torch.full((self.num_components,), 1.0 / self.num_components, dtype=torch.float64)
        self.probabilities = equal
        if not self.learned and self._read is not None:
            self.read()

    def read(self) -> None:
        """Set the probabilities to those of the model."""
        if self._read is None:
            check(False, "read", "be given to start from a model", None)
            return
        given = self._read().double()
        shape = (self.num_components,)
        check(tuple(given.shape) == shape, "weights", f"have shape {shape}", tuple(given.shape))
        self.probabilities = given / given.sum()

    def align(self, log_probs: Float[Tensor, "N K"]) -> Float[Tensor, "N K"] | None:
        """Return responsibilities by which each component takes the label of most of its rows."""
        if self._labels is None or not bool((self._labels >= 0).any()):
            return None
        labels = self._labels.to(log_probs.device)
        shares = log_probs.softmax(1)
        known = labels >= 0
        own = torch.nn.functional.one_hot(labels[known], self.num_components).to(shares)
        agreement = own.mT @ shares[known]
        order = torch.zeros(self.num_components, dtype=torch.long)
        for _ in range(self.num_components):  # the clearest pair of label and component first
            label, component = divmod(int(agreement.argmax()), self.num_components)
            order[label] = component
            agreement[label], agreement[:, component] = -1.0, -1.0
        aligned = shares[:, order.to(shares.device)]
        aligned[known] = own
        return aligned if self._weights is None else aligned * self._weights.to(aligned)[:, None]

    def expect(self, log_probs: Float[Tensor, "N K"]) -> tuple[float, Float[Tensor, "N K"]]:
        """Return the log-likelihood in nats, and responsibilities times the rows' weights.

        Known labels have all of their row's responsibility.
        """
        logits = self.probabilities.to(log_probs).log()
        joint = log_probs.mT + logits[:, None]  # components first: their rows are contiguous
        if self._labels is not None:
            joint = self._observed(joint, self._labels.to(joint.device))
        highest = joint.amax(0)
        # Under no component is such a row possible; it has equal shares.
        possible = highest > -torch.inf
        shares = joint.sub_(highest.where(possible, 0.0)).exp_()
        total = shares.sum(0)
        nats = highest + total.log()
        shares = shares.div_(total)
        if not bool(possible.all()):
            shares = shares.where(possible, 1.0 / self.num_components)
        if self._weights is not None:
            weights = checked_weights(self._weights, log_probs)
            # A row of weight zero may be impossible.
            nats = (nats * weights).where(weights > 0, 0.0)
            shares = shares.mul_(weights)
        self._counts = shares.sum(1)
        return float(nats.sum()), shares.mT

    def _observed(self, joint: Tensor, labels: Tensor) -> Tensor:
        components = torch.arange(self.num_components, device=joint.device)
        possible = (labels < 0) | (labels == components[:, None])
        return joint.where(possible, -torch.inf)

    def maximise(self) -> None:
        """Set the probabilities to the mean responsibilities and pseudo-counts."""
        if self.learned:
            counts = self._counts + (self.concentration - 1)
            self.probabilities = counts / counts.sum()

    def revive(self, labels: Int[Tensor, " n"]) -> None:
        """Give components without rows the weight that half an equal share is."""
        if self.learned:
            self.probabilities = self.probabilities.index_fill(
                0, labels.to(self.probabilities.device), 0.5 / self.num_components
            )
            self.probabilities = self.probabilities / self.probabilities.sum()

    def log_prior(self) -> float:
        """Return the log-density of the Dirichlet prior, up to a constant."""
        if self.concentration == 1 or not self.learned:
            return 0.0
        return (self.concentration - 1) * float(self.probabilities.log().sum())

    @property
    def num_parameters(self) -> int:
        """K - 1, or 0 if they are not learned."""
        return self.num_components - 1 if self.learned else 0

    def state(self) -> dict[str, Tensor]:
        """Return the probabilities."""
        return {"probabilities": self.probabilities}

    def load(self, state: dict[str, Tensor]) -> None:
        """Set the probabilities to those that :meth:`state` returned."""
        self.probabilities = state["probabilities"]

    def write(self) -> None:
        """Copy the probabilities into the model, if there is one."""
        if self._write is not None:
            self._write(self.probabilities)
