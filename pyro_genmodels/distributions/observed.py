"""Data with elements that were not observed: NaN, which no arithmetic ever sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Independent, TorchDistribution
from torch.distributions import constraints, transform_to

from pyro_genmodels._checks import check, check_trailing
from pyro_genmodels._typing import Bool, Float, Num, Tensor
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.distributions.rescaled import Rescaled


def observed_part(
    x: Num[Tensor, "*shape"],
) -> tuple[Num[Tensor, "*shape"], Bool[Tensor, "*shape"]]:
    """Return data with zeros where an element is missing, and which elements are there.

    Args:
        x: Data, NaN where an element was not observed.

    Example:
        >>> observed_part(torch.tensor([2.0, torch.nan]))
        (tensor([2., 0.]), tensor([ True, False]))
    """
    seen = ~x.isnan()
    return torch.where(seen, x, torch.zeros_like(x)), seen


def with_mask(
    scaled: Tensor, event_shape: Sequence[int], seen: Tensor | None = None
) -> Float[Tensor, "*batch_more"]:
    """Return what a network sees of data with missing elements: the data, and which are there.

    Args:
        scaled: Data with zeros for what is missing, ``(*batch, C, ...)``.
        event_shape: Sizes of the mask of one data point.
        seen: Which elements are there, ``(*batch, *event_shape)``; all by default.

    Returns:
        Shape ``(*batch, C + event_shape[0], ...)``: of vectors more entries, of images channels.

    Example:
        >>> with_mask(torch.tensor([[2.0, 0.0]]), (2,), torch.tensor([[True, False]]))
        tensor([[2., 0., 1., 0.]])
    """
    rank = len(event_shape)
    if seen is None:
        seen = scaled.new_ones(*scaled.shape[: scaled.dim() - rank], *event_shape)
    return torch.cat([scaled, seen.to(scaled)], -rank)


class IndependentElements(Independent):
    """The ``to_event`` of independent elements that also checks the shape of what it scores.

    Pyro's own would take an image with two channels for two images with one.
    """

    def log_prob(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch"]:
        """Return the log-probability in nats.

        Raises:
            ValueError: Under validation, if the value does not fit.
        """
        if self._validate_args:
            check_trailing("value", value, self.event_shape)
        nats: Tensor = super().log_prob(value)
        return nats


class ObservedPart(TorchDistribution):
    r"""The marginal of independent elements over those that were observed.

    .. math:: \log p(x_\text{observed}) = \sum_{i \text{ observed}} \log p(x_i)

    Values are NaN where they are missing. Draws are whole: nothing is missing in them.

    Args:
        base: The distribution of all elements, independent of each other.

    Raises:
        ValueError: If the elements of ``base`` are not independent.

    Example:
        >>> import pyro.distributions as dist
        >>> whole = dist.Normal(torch.zeros(3), 1.0).to_event(1)
        >>> x = torch.tensor([0.5, torch.nan, 1.0])
        >>> alone = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> bool(ObservedPart(whole).log_prob(x) == alone.log_prob(x[[0, 2]]))
        True
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's own protocol)

    def __init__(self, base: Any, *, validate_args: bool | None = None) -> None:
        rank = len(base.event_shape)
        apart = isinstance(base, Independent) and base.reinterpreted_batch_ndims == rank
        check(apart, "base", "have independent elements", type(base).__name__)
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the whole distribution."""
        return bool(self.base.has_rsample)

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the elements, or NaN."""
        elements = OrMissing(self.base.base_dist.support)
        return constraints.independent(elements, len(self.event_shape))

    def log_prob(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch"]:
        """Return the log-density of the observed elements; zero, if there are none."""
        if self._validate_args:
            self._validate_sample(value)
        seen, elements = ~value.isnan(), self.base.base_dist
        elements = elements.log_prob(torch.where(seen, value, _inside(elements, value)))
        elements = torch.where(seen, elements, torch.zeros_like(elements))
        return elements.flatten(elements.dim() - len(self.event_shape)).sum(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw whole data."""
        return self.base.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw whole data, differentiably."""
        return self.base.rsample(torch.Size(sample_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ObservedPart:
        """Return the distribution with another batch shape."""
        whole = self.base.expand(torch.Size(batch_shape))
        return expanded(self, batch_shape, _instance, base=whole)

    @property
    def mean(self) -> Tensor:
        """The mean of whole data."""
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        """The variance of whole data."""
        return self.base.variance


def _inside(law: Any, like: Tensor) -> Tensor:
    """Return values at which the density of each element is finite, and so are its gradients.

    What is taken out by ``where`` has a gradient of zero times its own, NaN at a zero density.
    """
    if isinstance(law, Rescaled):
        return law.shift.to(like) + law.scale.to(like) * _inside(law.base, like)
    zero = like.new_zeros(())
    if law.support.is_discrete:
        return zero + getattr(law.support, "lower_bound", 0)
    try:
        return transform_to(law.support)(zero)
    except NotImplementedError:  # such as a table's, all of whose columns may be zero
        return zero


class OrMissing(constraints.Constraint):
    """Values of a constraint on each element, or NaN.

    Args:
        base_constraint: The constraint of what was observed.
    """

    takes_missing = True

    def __init__(self, base_constraint: Any) -> None:
        self.base_constraint = base_constraint
        self.is_discrete, self.event_dim = base_constraint.is_discrete, 0
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Return which elements fit, or are missing."""
        filled, seen = observed_part(value)
        return self.base_constraint.check(filled) | ~seen
