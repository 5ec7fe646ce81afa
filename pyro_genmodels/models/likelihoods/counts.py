"""Likelihoods of counts: Poisson, negative binomial, and that with additional zeros."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_choice, check_counts
from pyro_genmodels._typing import EventShape, Float, ScaleName, Tensor
from pyro_genmodels.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from pyro_genmodels.models.likelihoods.base import Likelihood

Dispersion = Literal["per_dimension", "predicted"]

# Beyond these logarithms a mean, or an inverse dispersion, says nothing that data could show.
LOG_MEAN = (-15.0, 25.0)
LOG_THETA = (-10.0, 15.0)


class CountLikelihood(Likelihood, Abstract):
    r"""Base of likelihoods of counts, whose means the decoder gives by their logarithms.

    Data are whole numbers from zero, of any dtype and without levels; an encoder sees
    :math:`\log(1 + x)`. They are never standardised.

    With size factors, the mean of an example is what the decoder says times the example's own size
    factor s, such as a cell's share of reads: :math:`p(x \mid z, s)`. The first feature of the
    model's context is s, so the model needs a ``context_shape`` of ``(1,)``, or more with further
    features. Networks see :math:`\log s` and the data divided by s.

    Args:
        event_shape: Sizes of one data point.
        num_parameters: Parameters the network gives for each data dimension, the mean's first.
        size_factors: Whether contexts begin with a size factor.
        validate_args: Whether the distributions check parameters and values.
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_parameters: int,
        *,
        size_factors: bool,
        validate_args: bool | None,
    ) -> None:
        super().__init__(event_shape, num_parameters, num_levels=None, validate_args=validate_args)
        self.size_factors = size_factors

    @property
    def standardization_scale(self) -> ScaleName | None:
        """None: a count has a scale of its own."""
        return None

    @property
    def standardized_columns(self) -> Sequence[int]:
        """None of them."""
        return []

    @property
    def column_kinds(self) -> Sequence[str]:
        """All are counts."""
        return ["count"] * self.event_shape.numel()

    def check_values(self, argument: str, x: Tensor, *, missing: bool = False) -> None:
        """Raise ``ValueError`` unless data are whole numbers from zero."""
        check_counts(argument, x, missing=missing)

    def check_context(self, context: Tensor | None) -> None:
        """Raise ``ValueError`` unless size factors are positive."""
        if self.size_factors and context is not None:
            least = context[..., 0].min() if context.numel() else torch.ones(())
            check(bool(least > 0), "context", "begin with a positive size factor", least.item())

    def encoder_input(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the logarithm of one plus the counts, these divided by their size factors."""
        return torch.log1p(x / self._factor(context, x))

    def network_context(self, context: Tensor | None) -> Tensor | None:
        """Return the context with the logarithm of its size factor."""
        if not self.size_factors or context is None:
            return context
        return torch.cat([context[..., :1].log(), context[..., 1:]], -1)

    def _factor(self, context: Tensor | None, like: Tensor) -> Tensor | float:
        """Return the size factors, with a dimension of one for each of the event's."""
        if not self.size_factors:
            return 1.0
        check(context is not None, "context", "begin with a size factor", None)
        assert context is not None  # narrows the type for the checker
        shape = context.shape[:-1] + (1,) * len(self.event_shape)
        return context[..., 0].reshape(shape).to(like.dtype)

    def _distribution(self, decoded: Tensor, context: Tensor | None) -> Any:
        parameters = self._split(decoded).unbind(-len(self.event_shape) - 1)
        mean = exp_within(parameters[0], LOG_MEAN) * self._factor(context, decoded)
        return self._counts(mean, *parameters[1:]).to_event(len(self.event_shape))

    def _elementwise(self, decoded: Tensor) -> Any:
        return self._distribution(decoded, None).base_dist

    @property
    def has_marginals(self) -> bool:
        """Whether counts are independent, as they are unless a subclass writes them anew."""
        own, base = type(self), CountLikelihood
        return (own.forward, own._distribution) == (base.forward, base._distribution)

    @abstractmethod
    def _counts(self, mean: Tensor, *parameters: Tensor) -> Any:
        """Return the distribution of each count, given its mean and the other parameters."""


class PoissonLikelihood(CountLikelihood):
    """Each dimension a Poisson count, from the logarithm of its mean.

    Args:
        event_shape: Sizes of one data point.
        size_factors: Whether contexts begin with a size factor, which multiplies the means.
        validate_args: Whether the distributions check parameters and values.

    Example:
        >>> likelihood = PoissonLikelihood((3,), size_factors=True)
        >>> likelihood(torch.zeros(2, 3), torch.tensor([[0.5], [4.0]])).mean
        tensor([[0.5000, 0.5000, 0.5000],
                [4.0000, 4.0000, 4.0000]])
    """

    def __init__(
        self,
        event_shape: EventShape,
        *,
        size_factors: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(event_shape, 1, size_factors=size_factors, validate_args=validate_args)

    def _counts(self, mean: Tensor, *parameters: Tensor) -> Any:
        return dist.Poisson(mean, validate_args=self.validate_args)


class NegativeBinomialLikelihood(CountLikelihood):
    r"""Each dimension a negative binomial count, of variance :math:`\mu + \mu^2 / \theta`.

    Args:
        event_shape: Sizes of one data point.
        dispersion: The inverse dispersion :math:`\theta` is one learned number
            ``"per_dimension"``, or ``"predicted"`` by the network for each point.
        size_factors: Whether contexts begin with a size factor, which multiplies the means.
        validate_args: Whether the distributions check parameters and values.

    Raises:
        ValueError: If ``dispersion`` is not one of the two words.

    References:
        Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Example:
        >>> law = NegativeBinomialLikelihood((3,))(torch.zeros(2, 3))
        >>> law.mean[0], law.variance[0].detach()
        (tensor([1., 1., 1.]), tensor([2.0000, 2.0000, 2.0000]))
    """

    def __init__(
        self,
        event_shape: EventShape,
        *,
        dispersion: Dispersion = "per_dimension",
        size_factors: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        check_choice("dispersion", dispersion, ("per_dimension", "predicted"))
        number = self._further_parameters + (2 if dispersion == "predicted" else 1)
        options: dict[str, Any] = {"size_factors": size_factors, "validate_args": validate_args}
        super().__init__(event_shape, number, **options)
        self.dispersion = dispersion
        if dispersion == "per_dimension":
            self.log_theta = nn.Parameter(torch.zeros(self.event_shape))

    _further_parameters = 0

    def _counts(self, mean: Tensor, *parameters: Tensor) -> Any:
        theta = exp_within(self._log_theta(parameters), LOG_THETA)
        return NegativeBinomial(mean, theta, validate_args=self.validate_args)

    def _log_theta(self, parameters: Sequence[Tensor]) -> Tensor:
        return parameters[0] if self.dispersion == "predicted" else self.log_theta


class ZeroInflatedNegativeBinomialLikelihood(NegativeBinomialLikelihood):
    r"""Each dimension a negative binomial count, or zero with a predicted probability.

    Args:
        event_shape: Sizes of one data point.
        dispersion: The inverse dispersion :math:`\theta` is one learned number
            ``"per_dimension"``, or ``"predicted"`` by the network for each point.
        size_factors: Whether contexts begin with a size factor, which multiplies the means.
        validate_args: Whether the distributions check parameters and values.

    Raises:
        ValueError: If ``dispersion`` is not one of the two words.

    References:
        Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Example:
        >>> law = ZeroInflatedNegativeBinomialLikelihood((3,))(torch.zeros(2, 6))
        >>> law.mean[0], law.log_prob(torch.zeros(3)).exp().detach()
        (tensor([0.5000, 0.5000, 0.5000]), tensor([0.4219, 0.4219]))
    """

    _further_parameters = 1

    def _counts(self, mean: Tensor, *parameters: Tensor) -> Any:
        theta = exp_within(self._log_theta(parameters), LOG_THETA)
        options: dict[str, Any] = {"validate_args": self.validate_args}
        return ZeroInflatedNegativeBinomial(mean, theta, parameters[-1], **options)


def exp_within(
    raw: Float[Tensor, "*shape"], bounds: tuple[float, float]
) -> Float[Tensor, "*shape"]:
    """Return the exponential of values that are kept between two bounds, smoothly."""
    low, high = bounds
    above = F.softplus(raw - low) + low
    return (high - F.softplus(high - above)).exp()
