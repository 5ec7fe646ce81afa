"""What a model and its guide are called with: data and contexts that fit, in the model's dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.poutine.util import is_validation_enabled

from pyro_genmodels._batching import expands_to
from pyro_genmodels._checks import check, check_finite, check_levels, check_trailing
from pyro_genmodels._modules import first_tensor
from pyro_genmodels._typing import GivenContext, Tensor
from pyro_genmodels.models.base.plates import check_not_empty
from pyro_genmodels.models.base.standardization import Standardization
from pyro_genmodels.nets.layers import (
    FullPrecisionWeights,
    check_context,
    check_finite_context,
    context_event_shape,
    join_context,
    split_context,
)


class CheckedArguments(FullPrecisionWeights):
    """The part of a model that checks and casts data and contexts.

    Attributes:
        event_shape: Sizes of one data point.
        num_levels: Levels of discrete data.
        num_classes: Number of labels, if the context is one or has one.
        context_shape: Sizes of a context's features, a vector or a map.
        standardization: Shift and scale of the data, if they were set.
        null_context: Whether a conditional model also runs without its context.
    """

    event_shape: torch.Size
    num_levels: int | None
    num_classes: int | None
    context_shape: torch.Size | None
    standardization: Standardization
    null_context: bool = False

    @property
    def missing(self) -> bool:
        """Whether NaN stands for an element of the data that was not observed: see its units."""
        return self.standardization.missing

    @missing.setter
    def missing(self, missing: bool) -> None:
        self.standardization.missing = missing

    @property
    def context_event_dim(self) -> int | None:
        """Event dimensions of the context (label 0, vector 1, map 3), ``None`` without one.

        Those of the features, where the context is a label together with features.
        """
        if self.context_shape is not None:
            return len(self.context_shape)
        return None if self.num_classes is None else 0

    @property
    def takes_pairs(self) -> bool:
        """Whether the context is a label together with features."""
        return self.num_classes is not None and self.context_shape is not None

    def joined_context(self, context: GivenContext) -> Tensor | None:
        """Return a context as one tensor: what ``nets.join_context`` makes of a pair.

        Args:
            context: A pair ``(labels, features)``, or a context that is one tensor or ``None``.

        Raises:
            ValueError: If the model takes no pairs, or one of the two does not fit.
        """
        if context is None or isinstance(context, Tensor):
            return context
        found = f"{len(context)} tensors"
        rule = "be a pair only in a model with both num_classes and context_shape"
        check(self.takes_pairs, "context", rule, found)
        rule = "be a pair: labels, features"
        check(len(context) == 2, "context", rule, found)
        labels, features = context
        # Both are named as what they are, before one tensor holds them.
        check_context(labels, num_classes=self.num_classes)
        check_context(features, context_shape=self.context_shape)
        return join_context(labels, features, self.context_event_dim)

    def context_of(self, item: Sequence[Any]) -> Tensor | None:
        """Return the context among the parts of a data item, or of a batch; ``None`` for none.

        Args:
            item: ``(x,)``, ``(x, label)``, ``(x, features)`` or ``(x, label, features)``. A model
                takes what it is conditional on.

        Raises:
            ValueError: If the item lacks it, or label or features do not fit.
        """
        if self.context_event_dim is None:
            return None
        rule = "have items (x, context) for a conditional model"
        if self.takes_pairs:
            rule = "have items (x, label, features) for a model conditional on both"
        check(len(item) >= 2, "data", rule, f"{len(item)} parts")
        if self.takes_pairs and len(item) > 2:
            return self.joined_context([torch.as_tensor(part) for part in item[1:3]])
        last = self.num_classes is None and len(item) > 2
        return torch.as_tensor(item[2 if last else 1])

    def context_parts(self, context: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return the labels and the features of a context, ``None`` for what it has not."""
        if context is None or not self.takes_pairs:
            labelled = self.num_classes is not None
            return (context, None) if labelled else (None, context)
        return split_context(context, self.context_event_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the parameters, in which the model computes."""
        return first_tensor(self).dtype

    def _checked_alone(
        self, x: Tensor, context: GivenContext
    ) -> tuple[Tensor | None, Tensor | None, tuple[int, ...]]:
        """Check as :meth:`_checked`, and that the context has no dimensions beyond the data's.

        In a program it may: an enumerated label has its values along one more, to the left.
        """
        # Cast by the program itself, which subtracts the data's shift before.
        cast = _as_given if self.standardization.is_set else Tensor.to
        checked, seen, batch = self._checked(x, context, cast)
        if seen is not None:
            self.check_context_batch(seen, batch)
        return checked, seen, batch

    def check_context_batch(self, context: Tensor, batch: tuple[int, ...]) -> None:
        """Raise ``ValueError`` unless a context's batch shape expands to the data's."""
        given = tuple(context.shape[: context.dim() - (self.context_event_dim or 0)])
        fits = expands_to(given, batch)
        check(fits, "context", f"have a batch shape that expands to {batch}", given)

    def _checked(
        self,
        x: Tensor | None,
        context: GivenContext,
        cast: Callable[[Tensor, torch.dtype], Tensor] = Tensor.to,
    ) -> tuple[Tensor | None, Tensor | None, tuple[int, ...]]:
        """Check and cast the arguments; the third value is the batch shape they share."""
        context = self.joined_context(context)
        batch: tuple[int, ...] = ()
        event_dim = self.context_event_dim
        fits = (context is None) == (event_dim is None) or (context is None and self.null_context)
        check(fits, "context", self._context_rule(), context)
        if context is not None and event_dim is not None:
            self._check_context_shape(context)
            self._check_context_values(context)
            batch = tuple(context.shape[: context.dim() - event_dim])
        if x is not None:
            x = cast(self._checked_data(x), self.dtype)
            batch = tuple(x.shape[: x.dim() - len(self.event_shape)])
        return x, context, batch

    def _checked_data(self, x: Tensor) -> Tensor:
        check_trailing("x", x, self.event_shape)
        check_not_empty(x.shape[: x.dim() - len(self.event_shape)])
        if is_validation_enabled():
            self.check_values("x", x)
        return x

    def check_values(self, argument: str, x: Tensor) -> None:
        """Raise ``ValueError`` unless data have values that the model takes.

        Args:
            argument: What an error calls them.
            x: Data ``(*batch, *event)``.
        """
        if self.num_levels is None:
            check_finite(argument, x, missing=self.missing)
        else:
            check_levels(argument, x, self.num_levels, missing=self.missing)
        if self.missing:
            self.check_missing(argument, x)

    def check_missing(self, argument: str, x: Tensor) -> None:
        """Raise ``ValueError`` if elements of the data are missing that the model must see.

        Args:
            argument: What the error calls the data.
            x: The data, NaN where an element is missing.
        """

    def _given(self, context: GivenContext) -> Tensor | None:
        """Join a context, and check its values, where the rest of the arguments needs no check."""
        joined = self.joined_context(context)
        self._check_context_values(joined)
        return joined

    def _check_context_values(self, context: Tensor | None) -> None:
        """Check that features are finite."""
        if is_validation_enabled():
            check_finite_context(context)

    def _check_context_shape(self, context: Tensor) -> None:
        shape = tuple(context_event_shape(self.num_classes, self.context_shape))
        if not self.takes_pairs:
            check_trailing("context", context, shape)
        else:
            rule = f"be a pair (labels, features), or both as one with trailing shape {shape}"
            found = tuple(context.shape)
            check(found[-len(shape) :] == shape, "context", rule, f"a tensor of shape {found}")

    def _context_rule(self) -> str:
        if self.context_event_dim is None:
            return "be None in an unconditional model"
        return "be given to a conditional model"


def _as_given(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x
