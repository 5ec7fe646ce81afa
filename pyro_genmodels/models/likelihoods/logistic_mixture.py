"""The likelihood of images by mixtures of discretised logistics that link a pixel's channels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._batching import broadcast_shapes
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._logistic_mixture import channel_laws, link_count, linked_mixture
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    observed_part,
)
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.distributions.observed import OrMissing
from pyro_genmodels.models.likelihoods.elementwise import Likelihood

_MIN_LOG_SCALE = -7.0


class LogisticMixtureLikelihood(Likelihood):
    r"""Each pixel a mixture of discretised logistics, whose components link its channels.

    A component gives channel i around :math:`\mu_i + \sum_{j<i} \tanh(\alpha_{ij}) x_j`. Given the
    channels before it, a channel has an exact
    :class:`~pyro_genmodels.distributions.DiscretizedLogisticMixture`, so a pixel's probabilities
    sum to one for every parameter. Three channels take ten numbers a component.

    Args:
        event_shape: Sizes of one image, ``(C, H, W)``.
        num_levels: Number of levels.
        num_mixtures: Number of components.
        min_log_scale: Lower bound of the log-scales.
        validate_args: Whether the distributions check values.

    Raises:
        ValueError: If a number is out of range, or events are no images.

    References:
        Salimans et al. (2017), PixelCNN++, section 2.1 and 2.2. https://arxiv.org/abs/1701.05517

    Example:
        >>> likelihood = LogisticMixtureLikelihood((3, 4, 4), 256)
        >>> likelihood.parameter_shape, likelihood(torch.zeros(2, 100, 4, 4)).event_shape
        (torch.Size([100, 4, 4]), torch.Size([3, 4, 4]))
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_levels: int,
        *,
        num_mixtures: int = 10,
        min_log_scale: float = _MIN_LOG_SCALE,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(event_shape, 1, num_levels=num_levels, validate_args=validate_args)
        check(len(self.event_shape) == 3, "event_shape", "be (C, H, W)", tuple(event_shape))
        check_positive(num_mixtures=num_mixtures)
        self.num_mixtures, self.min_log_scale = num_mixtures, min_log_scale
        channels, *size = self.event_shape
        self.parameter_shape = torch.Size((link_count(channels) * num_mixtures, *size))

    @property
    def has_marginals(self) -> bool:
        """They have, over whole pixels, which are independent."""
        return True

    def observed_part(self, law: Any) -> Any:
        """Return the marginal over the pixels that were observed, whole ones."""
        return law.observed_part()

    def check_values(self, argument: str, x: Tensor, *, missing: bool = False) -> None:
        """Raise ``ValueError`` if some channels of a pixel are missing, and others not."""
        if missing:
            _check_pixels(argument, ~x.isnan(), -3)

    def _distribution(self, decoded: Tensor, context: Tensor | None) -> Any:
        return LinkedMixture(
            decoded.movedim(-3, -1),
            self.event_shape[0],
            self.num_levels or 2,
            min_log_scale=self.min_log_scale,
            validate_args=self.validate_args,
        )

    def _elementwise(self, decoded: Tensor) -> Any:
        raise NotImplementedError("a pixel's channels depend on each other")


class LinkedMixture(TorchDistribution):
    """Images whose pixels are independent mixtures of linked discretised logistics.

    Args:
        raw: Numbers of each pixel, ``(*batch, H, W, link_count(C) * K)``.
        num_channels: Channels C of the image.
        num_levels: Number of levels.
        min_log_scale: Lower bound of the log-scales.
        validate_args: Whether values are checked.

    Attributes:
        missing: Whether values have NaN for pixels that were not observed.
    """

    missing = False
    arg_constraints: ClassVar[dict[str, Any]] = {
        "raw": constraints.independent(constraints.real, 3),
    }

    def __init__(
        self,
        raw: Float[Tensor, "*batch H W numbers"],
        num_channels: int,
        num_levels: int,
        *,
        min_log_scale: float,
        validate_args: bool | None = None,
    ) -> None:
        self.raw, self.num_channels, self.num_levels = raw, num_channels, num_levels
        self.min_log_scale = min_log_scale
        event_shape = torch.Size((num_channels, *raw.shape[-3:-1]))
        super().__init__(raw.shape[:-3], event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=3)
    def support(self) -> Any:
        """Integers from 0 to ``num_levels - 1``, or NaN if some are :attr:`missing`."""
        levels = constraints.integer_interval(0, self.num_levels - 1)
        return constraints.independent(OrMissing(levels) if self.missing else levels, 3)

    def observed_part(self) -> LinkedMixture:
        """Return the marginal over the pixels that are not NaN."""
        law = copy.copy(self)
        law.missing = True
        return law

    def expand(self, batch_shape: Any, _instance: Any = None) -> LinkedMixture:
        """Return the same distribution with the numbers broadcast to ``batch_shape``."""
        raw = self.raw.expand(*batch_shape, *self.raw.shape[-3:])
        return expanded(self, batch_shape, _instance, raw=raw)

    def _law(self, parameters: Tensor) -> DiscretizedLogisticMixture:
        logits, loc, log_scale = parameters.chunk(3, -1)
        levels = self.num_levels
        return DiscretizedLogisticMixture(logits, loc, log_scale, levels, validate_args=False)

    def log_prob(self, value: Num[Tensor, "*value C H W"]) -> Float[Tensor, "*shape"]:
        """Return the log-mass of each image, in nats.

        Raises:
            ValueError: If some channels of a pixel are missing, and others not.
        """
        if self._validate_args:
            self._validate_sample(value)
        pixel = value.movedim(-3, -1).to(self.raw.dtype)
        seen = ~pixel.isnan() if self.missing else None
        if seen is not None:
            # Not under validation alone: the score would be that of other channels' values.
            _check_pixels("x", seen, -1)
            pixel = observed_part(pixel)[0]
        batch = broadcast_shapes(pixel.shape[:-1], self.raw.shape[:-1])
        pixel, raw = pixel.expand(*batch, -1), self.raw.expand(*batch, -1)
        parameters = linked_mixture(raw, pixel, self.num_levels, min_log_scale=self.min_log_scale)
        nats = self._law(parameters).log_prob(pixel)
        if seen is not None:
            nats = torch.where(seen, nats, torch.zeros_like(nats))
        return nats.sum((-3, -2, -1))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape C H W"]:
        """Draw images, a pixel's channels in their order."""
        raw = self.raw.expand(torch.Size(sample_shape) + self.raw.shape)
        return self._chained(raw, lambda law: law.sample())

    def _chained(self, raw: Tensor, value_of: Any) -> Tensor:
        """Give each channel a value by its law, given the values of the channels before."""
        bound = self.min_log_scale
        laws = channel_laws(raw, self.num_channels, self.num_levels, min_log_scale=bound)
        values = [value_of(self._law(next(laws)))]
        for _ in range(self.num_channels - 1):
            values.append(value_of(self._law(laws.send(values[-1]))))
        return torch.stack(values, -3)

    @property
    def mean(self) -> Float[Tensor, "*batch C H W"]:
        """Mean level of each element; a channel's given the means of those before it."""
        return self._chained(self.raw, _mean)


def _mean(law: DiscretizedLogisticMixture) -> Tensor:
    # Level after level: all at once would take as many times the memory as there are levels.
    of_components = DiscretizedLogistic(law.loc, law.log_scale, law.num_levels).mean
    return (law.logits.softmax(-1) * of_components).sum(-1)


def _check_pixels(argument: str, seen: Tensor, dim: int) -> None:
    partly = seen.any(dim) & ~seen.all(dim)
    rule = "miss whole pixels under mixtures that link their channels"
    check(not bool(partly.any()), argument, rule, f"{int(partly.sum())} with a part missing")
