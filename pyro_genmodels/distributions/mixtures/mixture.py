"""Mixtures of any distributions, whose draws are of one component each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Categorical, TorchDistribution
from torch.distributions import Distribution, constraints

from pyro_genmodels._batching import broadcast_shapes
from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Int, Num, Tensor
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.distributions.mixtures.components import Components, as_components


class Mixture(TorchDistribution):
    r"""A mixture of any distributions, the component summed out.

    .. math:: p(x) = \sum_{k=1}^K w_k\, p(x \mid k), \qquad w = \mathrm{softmax}(\text{logits})

    A component of weight zero (logit minus infinity) has no say, in values and in gradients. A draw
    is of one component, so drawing from a mixture of expensive models takes one draw and not K.

    Args:
        logits: Unnormalised log-weights ``(*batch, K)``.
        components: A distribution with batch shape ``(*batch, K)``, or :class:`Components` with
            batch shape ``(*batch)``. The batch shapes broadcast.
        validate_args: As for every Pyro distribution.

    Raises:
        ValueError: If there is not one logit for each component.

    Example:
        >>> import pyro.distributions as dist
        >>> parts = dist.Normal(torch.tensor([-1.0, 4.0]), 1.0)
        >>> mixture = Mixture(torch.tensor([0.3, 0.7]).log(), parts)
        >>> between = mixture.posterior(torch.tensor(1.5))
        >>> mixture.sample((5,)).shape, mixture.mean, between.probs
        (torch.Size([5]), tensor(2.5000), tensor([0.3000, 0.7000]))
    """

    # Not `real_vector`: a logit may be minus infinity.
    arg_constraints = {"logits": constraints.independent(constraints.real, 1)}  # noqa: RUF012
    has_rsample = False

    def __init__(
        self,
        logits: Float[Tensor, "*batch K"],
        components: Distribution | Components,
        *,
        validate_args: bool | None = None,
    ) -> None:
        components = as_components(components)
        expected, found = components.num_components, tuple(logits.shape)
        check(found[-1:] == (expected,), "logits", f"have a last dimension of {expected}", found)
        self.logits = logits - logits.logsumexp(-1, keepdim=True)
        self.components = components
        batch = broadcast_shapes(logits.shape[:-1], components.batch_shape)
        super().__init__(batch, components.event_shape, validate_args=validate_args)

    @property
    def num_components(self) -> int:
        """Number of components K."""
        return self.components.num_components

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the components."""
        return self.components.support

    def joint_log_probs(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch K"]:
        r"""Return :math:`\log w_k + \log p(x \mid k)`.

        Args:
            value: Data ``(*batch, *event)``.
        """
        return self.joint(self.components.log_probs(value))

    def joint(self, scores: Float[Tensor, "*some K"]) -> Float[Tensor, "*batch K"]:
        r"""Return :math:`\log w_k + \log p(x \mid k)`, given the latter.

        Args:
            scores: Log-probability of data under each component.
        """
        possible = self.logits > -torch.inf
        # Taken out by `where` on both sides, so that no gradient has zero times infinity.
        scores = torch.where(possible, scores, torch.zeros_like(scores))
        return scores + self.logits

    def log_prob(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch"]:
        """Return the log-probability of data, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        scores = summed_out(self.joint_log_probs(value))
        return scores.expand(broadcast_shapes(scores.shape, self.batch_shape))

    def posterior(self, value: Num[Tensor, "*batch_event"]) -> Categorical:
        """Return the distribution of the component, given data.

        Data that no component can give have a uniform one.

        Args:
            value: Data ``(*batch, *event)``.
        """
        if self._validate_args:
            self._validate_sample(value)
        return posterior_of(self.joint_log_probs(value))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Num[Tensor, "..."]:
        """Draw ``(*sample_shape, *batch, *event)`` values, each of one component."""
        shape = self._extended_shape(torch.Size(sample_shape))
        batch = shape[: len(shape) - len(self.event_shape)]
        weights = Categorical(logits=self.logits, validate_args=False)
        return self.components.sample(weights.expand(batch).sample())

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Mixture:
        """Return the mixture with another batch shape."""
        logits = self.logits.expand(*batch_shape, self.num_components)
        return expanded(self, batch_shape, _instance, logits=logits)

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """The mean, where the components have one in closed form."""
        return self._averaged(self.components.mean)

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """The variance of each element, where the components have one in closed form."""
        means = self.components.mean
        rank = len(self.event_shape)
        spread = (means - self._averaged(means).unsqueeze(-1 - rank)).square()
        return self._averaged(self.components.variance + spread)

    def _averaged(self, values: Tensor) -> Tensor:
        rank = len(self.event_shape)
        weights = self.logits.exp().reshape(*self.logits.shape, *[1] * rank)
        mean = (weights * values).sum(-1 - rank)
        return mean.expand((*self.batch_shape, *self.event_shape))


class ComponentOf(TorchDistribution):
    """The distribution of data given a label, as part of the components of all labels.

    It scores data under all labels at once, and takes the one that it was given: what is known of
    the others is not computed again.

    Args:
        components: Distributions of data given each label, batch shape ``(*batch)``.
        labels: Labels; their shape broadcasts with the batch shape of the components.
        scored: Data, and the log-probabilities ``(*batch, K)`` that :meth:`Components.log_probs`
            gave of them, if they were scored before.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's own protocol)
    has_rsample = False

    def __init__(
        self,
        components: Components,
        labels: Int[Tensor, "*batch"],
        scored: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.components, self.labels, self.scored = components, labels, scored
        batch = broadcast_shapes(labels.shape, components.batch_shape)
        super().__init__(batch, components.event_shape, validate_args=False)

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the components."""
        return self.components.support

    def log_prob(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch"]:
        """Return the log-probability of data given the label."""
        known = self.scored is not None and self.scored[0] is value
        scores = self.scored[1] if self.scored and known else self.components.log_probs(value)
        batch = broadcast_shapes(scores.shape[:-1], self.batch_shape)
        labels = self.labels.expand(batch).unsqueeze(-1)
        return scores.expand(*batch, -1).gather(-1, labels).squeeze(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Num[Tensor, "..."]:
        """Draw data, one for each label."""
        labels = self.labels.expand(*sample_shape, *self.batch_shape)
        return self.components.sample(labels)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ComponentOf:
        """Return the distribution with another batch shape."""
        labels = self.labels.expand(torch.Size(batch_shape))
        return expanded(self, batch_shape, _instance, labels=labels)


def posterior_of(joint: Float[Tensor, "*batch K"]) -> Categorical:
    """Return the distribution of labels whose joint log-probabilities with data are given.

    Where all are minus infinity it is uniform, so that values and gradients are finite.
    """
    impossible = (joint == -torch.inf).all(-1, keepdim=True)
    logits = torch.where(impossible, torch.zeros_like(joint), joint)
    return Categorical(logits=logits, validate_args=False)


def without_nan(logits: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch K"]:
    """Return logits with zeros for those of a label's distribution that has NaN among them.

    ``TraceEnum_ELBO`` leaves out labels whose probability is not positive, and NaN is not: the loss
    of a model that diverged would be finite. With equal probabilities it meets the model's NaN.
    """
    return torch.where(logits.isnan().any(-1, keepdim=True), torch.zeros_like(logits), logits)


def summed_out(scores: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Return the log-probability of data, given their joint ones with labels.

    Its gradient is zero where all are minus infinity, not NaN.
    """
    impossible = (scores == -torch.inf).all(-1)
    safe = torch.where(impossible.unsqueeze(-1), torch.zeros_like(scores), scores)
    total: Tensor = safe.logsumexp(-1)
    return torch.where(impossible, torch.full_like(total, -torch.inf), total)
