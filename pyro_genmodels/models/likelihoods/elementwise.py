"""Likelihoods: from the output of a decoder network to a distribution over one data point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import nn

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._typing import EventShape, Float, ScaleName, Tensor
from pyro_genmodels.distributions import DiscretizedLogistic
from pyro_genmodels.models.likelihoods.base import HasLikelihood, Likelihood
from pyro_genmodels.models.likelihoods.counts import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "DiscretizedLogisticLikelihood",
    "GaussianLikelihood",
    "HasLikelihood",
    "Likelihood",
    "LikelihoodName",
    "make_likelihood",
]

MIN_LOG_SCALE = -7.0


class BernoulliLikelihood(Likelihood):
    """Each binary dimension a Bernoulli, from its logit.

    Args:
        event_shape: Sizes of one data point.
        validate_args: Whether the distributions check parameters and values.

    Example:
        >>> likelihood = BernoulliLikelihood((1, 4, 4))
        >>> likelihood(torch.zeros(2, 1, 4, 4)).log_prob(torch.ones(2, 1, 4, 4)) / 16
        tensor([-0.6931, -0.6931])
    """

    def __init__(self, event_shape: EventShape, *, validate_args: bool | None = None) -> None:
        super().__init__(event_shape, 1, num_levels=2, validate_args=validate_args)

    def _elementwise(self, decoded: Tensor) -> Any:
        return dist.Bernoulli(logits=decoded, validate_args=self.validate_args)


class DiscretizedLogisticLikelihood(Likelihood):
    """Each dimension a discretised logistic, from its location on [-1, 1] and log-scale.

    The log-scale is kept above ``min_log_scale`` smoothly: with no bound, a dimension that is
    constant in the training data drives it to minus infinity.

    Args:
        event_shape: Sizes of one data point.
        num_levels: Number of levels.
        min_log_scale: Lower bound of the log-scale.
        validate_args: Whether the distributions check parameters and values.

    Raises:
        ValueError: If ``num_levels`` is below 2.

    References:
        Kingma et al. (2016), Inverse autoregressive flow, section 5.2 (the likelihood).

    Example:
        >>> likelihood = DiscretizedLogisticLikelihood((3, 4, 4), 256)
        >>> likelihood.parameter_shape, likelihood(torch.zeros(2, 6, 4, 4)).event_shape
        (torch.Size([6, 4, 4]), torch.Size([3, 4, 4]))
    """

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        min_log_scale: float = MIN_LOG_SCALE,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(event_shape, 2, num_levels=num_levels, validate_args=validate_args)
        self.min_log_scale = min_log_scale

    def _elementwise(self, decoded: Tensor) -> Any:
        loc, raw = self._split(decoded).unbind(-len(self.event_shape) - 1)
        log_scale = bounded_below(raw, self.min_log_scale)
        levels = self.num_levels or 2
        return DiscretizedLogistic(loc, log_scale, levels, validate_args=self.validate_args)


class CategoricalLikelihood(Likelihood):
    """Each dimension a softmax over its levels, which need not be ordered.

    Args:
        event_shape: Sizes of one data point.
        num_levels: Number of levels K, and of logits a dimension.
        validate_args: Whether the distributions check parameters and values.

    Raises:
        ValueError: If ``num_levels`` is below 2.

    Example:
        >>> likelihood = CategoricalLikelihood((4,), 17)
        >>> likelihood(torch.zeros(2, 68)).mean
        tensor([[8., 8., 8., 8.],
                [8., 8., 8., 8.]])
    """

    def __init__(
        self, event_shape: EventShape, num_levels: int, *, validate_args: bool | None = None
    ) -> None:
        super().__init__(
            event_shape, num_levels, num_levels=num_levels, validate_args=validate_args
        )

    def _elementwise(self, decoded: Tensor) -> Any:
        logits = self._split(decoded).movedim(-len(self.event_shape) - 1, -1)
        return Levels(logits=logits, validate_args=self.validate_args)


class Levels(dist.Categorical):
    """A categorical over numbers: its draws are floating, as Bernoulli's, and it has a mean."""

    @classmethod
    def of_evidence(cls, logits: Tensor) -> Levels:
        """Return ``Levels(logits=logits)``, sooner where most probabilities are all but zero.

        Torch's own normalises by ``logsumexp``, whose exponentials are then denormal numbers: four
        times as slow as ``log_softmax``, in the gradient too.
        """
        new = cls.__new__(cls)
        new._param = new.logits = logits.log_softmax(-1)
        new._num_events = logits.shape[-1]
        torch.distributions.Distribution.__init__(new, logits.shape[:-1])
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels."""
        drawn: Tensor = super().sample(torch.Size(sample_shape))
        return drawn.to(self.logits.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return every level."""
        values: Tensor = super().enumerate_support(expand)
        return values.to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        """The mean level."""
        return self._moment(1)

    @property
    def variance(self) -> Tensor:
        """The variance of the level."""
        return self._moment(2) - self.mean.square()

    def _moment(self, power: int) -> Tensor:
        levels = torch.arange(self._num_events, dtype=self.logits.dtype, device=self.logits.device)
        return self.probs @ levels**power


class GaussianLikelihood(Likelihood):
    """Each continuous dimension a Gaussian: the network gives the mean, and the scale or not.

    Args:
        event_shape: Sizes of one data point.
        scale: ``"predicted"`` by the network for each dimension of each point, bounded below by
            ``exp(min_log_scale)``; one learned number ``"shared"`` by all dimensions (pPCA), one
            ``"per_dimension"`` (factor analysis); or a fixed number, of a model that was
            standardised in units of the data's common deviation.
        min_log_scale: Lower bound of a predicted log-scale: a density is unbounded without.
        validate_args: Whether the distributions check parameters and values.

    Raises:
        ValueError: If ``scale`` is neither a known word nor positive.

    Example:
        >>> GaussianLikelihood((4,), scale=0.5)(torch.zeros(2, 4)).stddev
        tensor([[0.5000, 0.5000, 0.5000, 0.5000],
                [0.5000, 0.5000, 0.5000, 0.5000]])
    """

    def __init__(
        self,
        event_shape: EventShape,
        *,
        scale: str | float = "predicted",
        min_log_scale: float = MIN_LOG_SCALE,
        validate_args: bool | None = None,
    ) -> None:
        num_parameters = 2 if scale == "predicted" else 1
        super().__init__(event_shape, num_parameters, num_levels=None, validate_args=validate_args)
        self.scale, self.min_log_scale = scale, min_log_scale
        if isinstance(scale, str):
            check_choice("scale", scale, ("predicted", "shared", "per_dimension"))
            if scale != "predicted":
                shape = () if scale == "shared" else self.event_shape
                self.log_scale = nn.Parameter(torch.zeros(shape))
        else:
            check_positive(scale=scale)
            self.register_buffer("log_scale", torch.tensor(float(scale)).log())

    @property
    def standardization_scale(self) -> ScaleName | None:
        """One that is shared where the noise is the same in all directions."""
        own = self.scale in ("predicted", "per_dimension")
        return "per_dimension" if own else "shared"

    def _elementwise(self, decoded: Tensor) -> Any:
        if self.scale == "predicted":
            loc, raw = self._split(decoded).unbind(-len(self.event_shape) - 1)
            log_scale = bounded_below(raw, self.min_log_scale)
        else:
            loc, log_scale = decoded, self.log_scale
        return dist.Normal(loc, log_scale.exp(), validate_args=self.validate_args)


def bounded_below(raw: Float[Tensor, "*shape"], bound: float) -> Float[Tensor, "*shape"]:
    """Keep values above a bound, smoothly."""
    return F.softplus(raw - bound) + bound


LikelihoodName = Literal[
    "auto",
    "bernoulli",
    "categorical",
    "discretized_logistic",
    "gaussian",
    "negative_binomial",
    "poisson",
    "zero_inflated_negative_binomial",
]
_UNBOUNDED: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "negative_binomial": NegativeBinomialLikelihood,
    "poisson": PoissonLikelihood,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomialLikelihood,
}


def make_likelihood(
    likelihood: str | Likelihood,
    event_shape: EventShape,
    num_levels: int | None,
    context_shape: Sequence[int] | None = None,
) -> Likelihood:
    """Return the likelihood of that name, or the given one once it is seen to fit the data.

    ``"auto"`` is Gaussian for continuous data, Bernoulli for two levels, and for more the
    discretised logistic.

    Args:
        likelihood: Its name, or one.
        event_shape: Sizes of one data point.
        num_levels: Number of data levels, ``None`` for continuous data and counts.
        context_shape: Sizes of the context, of a model that hands it to the likelihood.

    Raises:
        ValueError: If the name is unknown, or the likelihood is of another kind of data, or needs a
            context that the model has not.
    """
    if isinstance(likelihood, str):
        likelihood = _named_likelihood(likelihood, event_shape, num_levels)
    shape, levels = tuple(likelihood.event_shape), likelihood.num_levels
    check(shape == tuple(event_shape), "likelihood", f"have events {tuple(event_shape)}", shape)
    kind = "continuous data" if num_levels is None else f"data of {num_levels} levels"
    found = f"{type(likelihood).__name__} (num_levels={levels})"
    check(levels == num_levels, "likelihood", f"be one of {kind}", found)
    features = context_shape is not None and len(context_shape) == 1
    rule = "be without size_factors unless the model has a context_shape of (1,), or (n,)"
    check(features or not likelihood.size_factors, "likelihood", rule, type(likelihood).__name__)
    return likelihood


def _named_likelihood(name: str, event_shape: EventShape, num_levels: int | None) -> Likelihood:
    if name == "auto":
        name = {None: "gaussian", 2: "bernoulli"}.get(num_levels, "discretized_logistic")
    check_choice("likelihood", name, get_args(LikelihoodName))
    if name == "bernoulli":
        return BernoulliLikelihood(event_shape)
    if name in _UNBOUNDED:
        return _UNBOUNDED[name](event_shape)  # type: ignore[call-arg]
    # Continuous data have no levels; make_likelihood says so.
    family = CategoricalLikelihood if name == "categorical" else DiscretizedLogisticLikelihood
    check(num_levels is not None, "likelihood", "be one of continuous data", repr(name))
    return family(event_shape, num_levels or 2)
