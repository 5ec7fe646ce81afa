"""The base of likelihoods: a decoder's output, and what becomes of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.poutine.util import is_validation_enabled
from torch import nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_event_shape, check_trailing
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import EventShape, Float, ScaleName, Tensor
from pyro_genmodels.distributions import ObservedPart


class Likelihood(Configured, nn.Module, Abstract):
    """Maps a decoder's output to a distribution whose event is one data point.

    Channel ``p * C + c`` of the output holds parameter ``p`` of data channel ``c``; of a vector,
    entry ``p * D + d`` holds parameter ``p`` of dimension ``d``.

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        num_parameters: Parameters the network gives for each data dimension.
        num_levels: Number of data levels, ``None`` for continuous data.
        validate_args: Whether the distributions check parameters and values; Pyro's global
            setting by default.

    Attributes:
        size_factors: Whether the distribution depends on a context, which then begins with the
            factor of an example's means.
        parameter_shape: Trailing shape of the decoder's output: the event's, with more channels.
        input_shape: Trailing shape of what an encoder sees of data: the event's, unless
            :meth:`encoder_input` gives it more or fewer channels.
    """

    size_factors: bool = False

    def __init__(
        self,
        event_shape: EventShape,
        num_parameters: int,
        *,
        num_levels: int | None,
        validate_args: bool | None,
    ) -> None:
        super().__init__()
        self.event_shape = check_event_shape(event_shape)
        check(num_levels is None or num_levels >= 2, "num_levels", "be at least 2", num_levels)
        self.num_parameters, self.num_levels = num_parameters, num_levels
        self.validate_args = validate_args
        channels, *rest = self.event_shape
        self.parameter_shape = torch.Size((num_parameters * channels, *rest))
        self.input_shape = self.event_shape

    def encoder_input(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return what an encoder sees of data: levels scaled to [-1, 1], others as they are.

        Args:
            x: Data ``(*batch, *event)``, standardised if the model does that. Nothing is missing.
            context: Labels or features, if the model is conditional.

        Returns:
            Values ``(*batch, *input_shape)``.
        """
        return x if self.num_levels is None else x * (2 / (self.num_levels - 1)) - 1

    def without_missing(self, scaled: Tensor, seen: Tensor) -> Tensor:
        """Return what :meth:`encoder_input` gives, with zeros for what is missing.

        If that has another shape than the data, it stays as it is.

        Args:
            scaled: That, of data whose missing elements are zero, ``(*batch, *input_shape)``.
            seen: Which elements of the data are there, ``(*batch, *event)``.
        """
        return scaled * seen if self.input_shape == self.event_shape else scaled

    def network_context(self, context: Tensor | None) -> Tensor | None:
        """Return what encoder and decoder see of a context: by default all of it.

        Args:
            context: Labels or features, if the model is conditional.
        """
        return context

    def check_values(self, argument: str, x: Tensor, *, missing: bool = False) -> None:
        """Raise ``ValueError`` unless data have values of this likelihood's kind.

        The model has checked levels and finiteness.

        Args:
            argument: What an error calls the data.
            x: Data ``(*batch, *event)``.
            missing: Whether NaN stands for an element that was not observed.
        """

    def check_context(self, context: Tensor | None) -> None:
        """Raise ``ValueError`` unless a context has values that this likelihood takes.

        Args:
            context: Labels or features, if the model is conditional.
        """

    def forward(
        self, decoded: Float[Tensor, "*batch_parameters"], context: Tensor | None = None
    ) -> Any:
        """Return the distribution over a data point.

        Args:
            decoded: Decoder output ``(*batch, *parameter_shape)``.
            context: Labels or features, if the model is conditional.

        Returns:
            A Pyro distribution with batch shape ``*batch`` and the data's event shape.

        Raises:
            ValueError: If the trailing shape is another.
        """
        check_trailing("decoded", decoded, self.parameter_shape)
        # Log-likelihoods summed over an image need float32, also under autocast.
        decoded = decoded.float() if decoded.dtype in (torch.half, torch.bfloat16) else decoded
        return self._distribution(decoded, context)

    @property
    def standardization_scale(self) -> ScaleName | None:
        """Which scales :meth:`GenerativeModel.standardize` sets for it.

        ``None`` of levels. A likelihood whose support is bounded need not say so.
        """
        return "per_dimension" if self.num_levels is None else None

    @property
    def has_marginals(self) -> bool:
        """Whether :meth:`observed_part` gives the distribution of what was observed.

        By default where the elements are independent, as they are unless :meth:`forward` or
        :meth:`_distribution` is written anew.
        """
        own, base = type(self), Likelihood
        return (own.forward, own._distribution) == (base.forward, base._distribution)

    def observed_part(self, law: Any) -> Any:
        """Return the marginal of a distribution over the elements that are not NaN.

        Args:
            law: What :meth:`forward` returns, or that in the data's units.
        """
        return ObservedPart(law)

    @property
    def standardized_columns(self) -> Sequence[int] | None:
        """Which columns of vectors :meth:`GenerativeModel.standardize` scales; ``None``: all."""
        return None

    @property
    def column_kinds(self) -> Sequence[str] | None:
        """Kind of each element, as :class:`~pyro_genmodels.data.Column` names them.

        ``None`` where all are real numbers, or levels.
        """
        return None

    def _distribution(self, decoded: Tensor, context: Tensor | None) -> Any:
        """Return the distribution over a data point, by default of independent dimensions."""
        return self._elementwise(decoded).to_event(len(self.event_shape))

    @abstractmethod
    def _elementwise(self, decoded: Tensor) -> Any:
        """Return the distribution of each data dimension, batch shape ``(*batch, *event)``."""

    def _split(self, decoded: Tensor) -> Tensor:
        """Give the parameters a dimension of their own, before the event's."""
        sizes = (self.num_parameters, self.event_shape[0])
        return decoded.unflatten(-len(self.event_shape), sizes)


class HasLikelihood:
    """The part of a model that is its likelihood's business; first among the bases.

    Attributes:
        likelihood: From a decoder's output to a distribution over data.
    """

    likelihood: Likelihood
    missing: bool
    takes_pairs: bool
    context_event_dim: int | None
    context_parts: Callable[[Tensor | None], tuple[Tensor | None, Tensor | None]]

    @property
    def standardization_scale(self) -> ScaleName | None:
        """That of the likelihood."""
        return self.likelihood.standardization_scale

    @property
    def standardized_columns(self) -> Sequence[int] | None:
        """Those that the likelihood names."""
        return self.likelihood.standardized_columns

    @property
    def column_kinds(self) -> Sequence[str] | None:
        """Those of the likelihood."""
        return self.likelihood.column_kinds

    @property
    def input_shape(self) -> torch.Size:
        """That of the likelihood."""
        return self.likelihood.input_shape

    def encoder_input(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return what the likelihood shows an encoder of data.

        Args:
            x: Data ``(*batch, *event)``, standardised if the model does that.
            context: Labels or features, if the model is conditional.
        """
        return self.likelihood.encoder_input(x, self._likelihood_context(context))

    def without_missing(self, scaled: Tensor, seen: Tensor) -> Tensor:
        """Return what the likelihood shows an encoder, with zeros for what is missing.

        Args:
            scaled: That, of data whose missing elements are zero.
            seen: Which elements of the data are there.
        """
        return self.likelihood.without_missing(scaled, seen)

    def check_values(self, argument: str, x: Tensor) -> None:
        """Raise ``ValueError`` unless data have values that the likelihood takes.

        Args:
            argument: What an error calls them.
            x: Data ``(*batch, *event)``.
        """
        super().check_values(argument, x)  # type: ignore[misc]
        self.likelihood.check_values(argument, x, missing=self.missing)

    def _check_context_values(self, context: Tensor | None) -> None:
        super()._check_context_values(context)  # type: ignore[misc]
        if is_validation_enabled():
            self.likelihood.check_context(self._likelihood_context(context))

    def _likelihood_context(self, context: Tensor | None) -> Tensor | None:
        """Return what the likelihood takes of a context: features without the label beside them."""
        return self.context_parts(context)[1] if self.takes_pairs else context

    def _network_context(self, context: Tensor | None) -> Tensor | None:
        """Return what encoder and decoder see of a context: a label beside features as it is."""
        features = self._likelihood_context(context)
        seen = self.likelihood.network_context(features)
        if seen is features:
            return context
        rank = self.context_event_dim if self.takes_pairs else None
        if rank is None or context is None or seen is None:
            return seen
        return torch.cat([context.narrow(-rank, 0, 1), seen], -rank)
