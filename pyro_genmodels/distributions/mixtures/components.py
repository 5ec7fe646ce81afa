"""The distributions of data given a label: what mixtures mix, and hidden Markov models emit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.distributions import Distribution, constraints

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Int, Num, Tensor


class Components(ABC):
    """The distributions of x given each of K labels.

    Unlike a distribution with a batch dimension of size K, its draws are of one label each, so that
    drawing from a mixture of K expensive distributions takes one draw and not K.

    Args:
        num_components: Number of labels K.
        batch_shape: Batch shape, without the labels.
        event_shape: Sizes of one data point.
        support: Values that every component gives a probability.
    """

    def __init__(
        self,
        num_components: int,
        batch_shape: torch.Size,
        event_shape: torch.Size,
        support: constraints.Constraint,
    ) -> None:
        self.num_components = num_components
        self.batch_shape, self.event_shape = torch.Size(batch_shape), torch.Size(event_shape)
        self.support = support

    @abstractmethod
    def log_probs(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch K"]:
        """Return the log-probability of data under each component, in nats.

        Args:
            value: Data ``(*batch, *event)``, whose batch shape broadcasts with that of the
                components.
        """

    @abstractmethod
    def sample(self, labels: Int[Tensor, "*batch"]) -> Num[Tensor, "*batch_event"]:
        """Draw one data point for each label.

        Args:
            labels: Labels ``(*sample_shape, *batch)``, whose shape ends with the batch shape of the
                components or one that it broadcasts to.
        """

    @property
    def mean(self) -> Float[Tensor, "*batch_K_event"]:
        """The mean of each component, ``(*batch, K, *event)``."""
        raise NotImplementedError(f"{type(self).__name__} has no means in closed form")

    @property
    def variance(self) -> Float[Tensor, "*batch_K_event"]:
        """The variance of each component's elements, ``(*batch, K, *event)``."""
        raise NotImplementedError(f"{type(self).__name__} has no variances in closed form")


class BatchedComponents(Components):
    """Components that are the last batch dimension of a distribution.

    Args:
        distribution: Distribution with batch shape ``(*batch, K)``.

    Raises:
        ValueError: If it has no batch dimension.

    Example:
        >>> import pyro.distributions as dist
        >>> parts = BatchedComponents(dist.Normal(torch.tensor([0.0, 5.0]), 1.0))
        >>> parts.log_probs(torch.zeros(3)).shape, parts.sample(torch.tensor([0, 1])).shape
        (torch.Size([3, 2]), torch.Size([2]))
    """

    def __init__(self, distribution: Distribution) -> None:
        shape = distribution.batch_shape
        check(len(shape) > 0, "distribution", "have a batch dimension of components", tuple(shape))
        law: Any = distribution
        super().__init__(shape[-1], shape[:-1], law.event_shape, _of_any(law.support))
        self.distribution = law

    @property
    def mean(self) -> Float[Tensor, "*batch_K_event"]:
        """The mean of each component."""
        mean: Tensor = self.distribution.mean
        return mean

    @property
    def variance(self) -> Float[Tensor, "*batch_K_event"]:
        """The variance of each component's elements."""
        variance: Tensor = self.distribution.variance
        return variance

    def log_probs(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch K"]:
        """Return the log-probability under each component."""
        nats: Tensor = self.distribution.log_prob(value.unsqueeze(-1 - len(self.event_shape)))
        return nats

    def sample(self, labels: Int[Tensor, "*batch"]) -> Num[Tensor, "*batch_event"]:
        """Draw one data point for each label; of a distribution this cheap, all are drawn."""
        rank, split = len(self.event_shape), labels.dim() - len(self.batch_shape)
        each = self.distribution.expand((*labels.shape[split:], self.num_components))
        drawn: Tensor = each.sample(labels.shape[:split])
        index = labels.reshape(*labels.shape, 1, *[1] * rank)
        index = index.expand(*labels.shape, 1, *self.event_shape)
        return drawn.gather(-1 - rank, index).squeeze(-1 - rank)


def as_components(distributions: Distribution | Components) -> Components:
    """Return components, of a distribution those of its last batch dimension."""
    if isinstance(distributions, Components):
        return distributions
    return BatchedComponents(distributions)


def _of_any(support: Any) -> constraints.Constraint:
    """Return what the components' support asks of data, which lack their batch dimension."""
    part = support
    while isinstance(part, constraints.independent):
        part = part.base_constraint
    differs = any(isinstance(v, torch.Tensor) and v.dim() > 0 for v in vars(part).values())
    return _EachComponent(support) if differs else support


class _EachComponent(constraints.Constraint):
    """Values that every component takes, by a constraint with one bound for each of them."""

    def __init__(self, base_constraint: Any) -> None:
        self.base_constraint = base_constraint
        self.is_discrete, self.event_dim = base_constraint.is_discrete, base_constraint.event_dim
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Return which data points fit all components."""
        fits: Tensor = self.base_constraint.check(value.unsqueeze(-1 - self.event_dim))
        return fits.all(-1)
