"""Independent elements, each with its own table of probabilities: a product of categoricals."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import pyro
import torch
from torch import nn

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._typing import EventShape, Float, GivenContext, Num, Tensor
from pyro_genmodels.distributions import IndependentElements, ObservedPart
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.likelihoods.elementwise import Levels
from pyro_genmodels.nets.layers import check_context

_AT_ONCE = 2**22  # looked-up log-probabilities that are held together


# Three tenths of an example of each level: best over folds of the digits, of 1.05 to 2.
_CONCENTRATION = 1.3


class CategoricalModel(GenerativeModel):
    r"""Elements are independent given the label, each with its own table of probabilities.

    .. math:: P(x \mid y) = \prod_d \pi_{y d x_d}

    With two levels it is a product of Bernoullis. It is exact, and so is the marginal of what was
    observed of data with missing elements. At the start all levels are equally probable; of several
    labels the tables differ a little at random, which a mixture needs.

    Args:
        event_shape: Sizes of one data point.
        num_levels: Data are the integers ``0 .. num_levels - 1``.
        num_classes: The context is a label below this number.
        missing: Whether data may have missing elements, NaN.

    Raises:
        ValueError: If a size or ``num_levels`` is impossible.

    Example:
        >>> model = CategoricalModel((4,), 3, num_classes=2)
        >>> x, labels = torch.zeros(5, 4), torch.tensor([0, 1, 0, 1, 0])
        >>> model.distribution(labels).log_prob(x).shape, model.class_log_probs(x).shape
        (torch.Size([5]), torch.Size([5, 2]))
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 3e-2, "batch_size": 256, "max_epochs": 60, "ema_decay": 0.99}
    )

    imputes: ClassVar[bool] = True

    num_levels: int

    def __init__(
        self,
        event_shape: EventShape,
        num_levels: int,
        *,
        num_classes: int | None = None,
        missing: bool = False,
    ) -> None:
        super().__init__(event_shape, num_levels=num_levels, num_classes=num_classes)
        self.missing = missing
        classes = num_classes or 1
        shape = classes, self.event_shape.numel(), num_levels
        self.logits = nn.Parameter(torch.zeros(shape) if classes == 1 else 0.3 * torch.randn(shape))

    def distribution(self, context: GivenContext = None) -> Any:
        """Return the distribution over data: independent elements.

        Args:
            context: Labels ``(*batch,)``, if the model is conditional.

        Raises:
            ValueError: If the context does not fit.
        """
        return self._law(self._checked_exact(context))

    def _law(self, context: Tensor | None) -> Any:
        self.remember_parameters()
        check_context(context, num_classes=self.num_classes)
        logits = self.logits[0] if context is None else self.logits[context.long()]
        elements = Levels(logits=logits.unflatten(-2, self.event_shape))
        law = IndependentElements(elements, len(self.event_shape))
        return ObservedPart(law) if self.missing else law

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Observe or draw site ``"x"``."""
        return pyro.sample("x", self._law(context), obs=x)

    @integers_checked
    def class_log_probs(
        self,
        x: Num[Tensor, "*batch_event"],
        context: Tensor | None = None,
        *,
        chunk_size: int | None = None,
    ) -> Float[Tensor, "*batch K"]:
        r"""Return :math:`\log P(x \mid y)` of every label y.

        Args:
            x: Data ``(*batch, *event)``.
            context: ``None``: the model takes labels alone.
            chunk_size: Labels that are evaluated at once; by default as many as fit into some
                megabytes.

        Raises:
            ValueError: If the model has no labels, or ``x`` does not fit.
        """
        if self.num_classes is None or context is not None:
            return super().class_log_probs(x, context, chunk_size=chunk_size)
        self._checked_exact(x.new_zeros((), dtype=torch.long))
        rows = self._checked_data(x).flatten(-len(self.event_shape))
        self.remember_parameters()
        flat = rows.reshape(-1, rows.shape[-1])
        fits = max(1, _AT_ONCE // max(1, flat.numel()))
        size = fits if chunk_size is None else min(fits, chunk_size)
        # One level after another is fastest with few of them, and looking up with many.
        scores = _by_products if self.num_levels <= self.num_classes else _by_look_up
        parts = [scores(flat, part) for part in self.logits.log_softmax(-1).split(size)]
        return torch.cat(parts, -1).reshape(*rows.shape[:-1], -1)

    def _completed(
        self, x: Tensor, context: Tensor | None, batch: tuple[int, ...]
    ) -> Float[Tensor, "*batch_event"]:
        drawn: Tensor = self._law(context).expand(torch.Size(batch)).sample()
        return drawn

    def probabilities(self) -> Float[Tensor, "K D L"]:
        """Return the tables in float64: of K labels (or 1), D elements and L levels.

        Example:
            >>> CategoricalModel((2,), 2).probabilities()
            tensor([[[0.5000, 0.5000],
                     [0.5000, 0.5000]]], dtype=torch.float64)
        """
        return self.logits.detach().double().softmax(-1)

    @torch.no_grad()
    def set_probabilities(self, probabilities: Tensor) -> None:
        """Set the tables.

        Args:
            probabilities: Tables ``(K, D, L)``, of which each sums to one; some may be zero.

        Raises:
            ValueError: If the shape does not fit, or these are no probabilities.

        Example:
            >>> model = CategoricalModel((1,), 2)
            >>> model.set_probabilities(torch.tensor([[[0.25, 0.75]]]))
            >>> model.distribution().log_prob(torch.ones(1)).exp()
            tensor(0.7500, grad_fn=<ExpBackward0>)
        """
        given = torch.as_tensor(probabilities, dtype=torch.float64, device=self.logits.device)
        shape = tuple(self.logits.shape)
        check(tuple(given.shape) == shape, "probabilities", f"have shape {shape}", given.shape)
        rule = "be at least 0, and sum to one over levels"
        apart = (given.sum(-1) - 1).abs()
        check(bool((given >= 0).all()), "probabilities", rule, f"{given.min():g}")
        fits = bool((apart < 1e-4).all())
        check(fits, "probabilities", rule, f"sums up to {apart.max():g} from one")
        self.logits.copy_(given.log())
        self.standardization.take_as_fitted()

    def em_family(self, x: Num[Tensor, "n *event"], **options: Any) -> Any:
        """Return the data and parameters that expectation-maximisation goes through.

        Args:
            x: Data ``(n, *event)``, NaN where an element is missing, if the model has ``missing``.
            **options: Of :class:`pyro_genmodels.models.em.CategoricalFamily`: ``weights`` of the
                rows, and the ``concentration`` of their tables' Dirichlet prior.

        Raises:
            ValueError: If ``x`` does not fit.
        """
        from pyro_genmodels.models.em.categorical_family import CategoricalFamily

        # Not 1: a level that a component has not seen would have probability zero.
        concentration = options.pop("priors", _CONCENTRATION)
        options = {"concentration": concentration or 1.0, **options}
        return CategoricalFamily(
            self._checked_data(x).flatten(1).double(),
            self.num_levels,
            self.logits.shape[0],
            read=self.probabilities,
            write=self.set_probabilities,
            **options,
        )


def _by_look_up(x: Num[Tensor, "N D"], log_probs: Float[Tensor, "K D L"]) -> Float[Tensor, "N K"]:
    """Look up each element's log-probability; a last one, zero, is that of a missing element."""
    classes, size, levels = log_probs.shape
    table = torch.cat([log_probs.reshape(classes, -1), log_probs.new_zeros(classes, 1)], -1)
    offsets = levels * torch.arange(size, device=x.device)
    missing = torch.full_like(offsets, size * levels)
    index = torch.where(x.isnan(), missing, x.nan_to_num().long() + offsets)
    return table.mT[index].sum(-2)


def _by_products(x: Num[Tensor, "N D"], log_probs: Float[Tensor, "K D L"]) -> Float[Tensor, "N K"]:
    """Sum, over levels, which elements have a level times its log-probability.

    An impossible level, of log-probability minus infinity, would be NaN times zero.
    """
    least = torch.finfo(log_probs.dtype).min / (4 * log_probs.shape[1])
    finite = log_probs.clamp_min(least)
    nats = sum((x == level).to(finite) @ part.mT for level, part in enumerate(finite.unbind(-1)))
    assert isinstance(nats, Tensor)
    return torch.where(nats <= least / 2, -torch.inf, nats)
