"""The distributions of a class-conditional model as components of a mixture or a Markov chain."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.distributions import constraints

from pyro_genmodels._modules import first_tensor
from pyro_genmodels._typing import Float, Int, Num, Tensor
from pyro_genmodels.distributions import Components
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.nets.layers import join_context


class ModelComponents(Components):
    """The data of a class-conditional model, given each of its labels.

    Args:
        conditional: The model.
        context: Features ``(*batch, *context_shape)``, if it takes them next to a label.
        chunk_size: Labels whose distributions are evaluated at once; all by default.
    """

    is_all: ClassVar[bool] = True
    """Whether the components are all of the model's labels."""

    def __init__(
        self,
        conditional: GenerativeModel,
        context: Tensor | None = None,
        *,
        chunk_size: int | None = None,
    ) -> None:
        self.conditional, self.context, self.chunk_size = conditional, context, chunk_size
        rank = len(conditional.context_shape or ())
        batch = torch.Size() if context is None else context.shape[: context.dim() - rank]
        # The support costs a distribution, and is asked for where arguments are validated.
        super().__init__(
            conditional.num_classes or 1, batch, conditional.event_shape, constraints.dependent
        )

    @property
    def support(self) -> Any:
        """That of the model's data given the first label."""
        device = first_tensor(self.conditional).device
        return self.given(torch.zeros(self.batch_shape, dtype=torch.long, device=device)).support

    @support.setter
    def support(self, support: Any) -> None:
        pass

    def label_of(self, component: Tensor) -> Tensor:
        """Return the model's label of a component, its number."""
        return component

    def context_of(self, component: Tensor) -> Tensor:
        """Return the model's context of a component, for each data point."""
        labels = self.label_of(component)
        if self.context is None:
            return labels
        return join_context(labels, self.context, self.conditional.context_event_dim)

    def given(self, component: Tensor) -> Any:
        """Return the distribution of data, of dequantised ones the density, given components."""
        model: Any = self.conditional
        context = self.context_of(component)
        return model.density(context) if model.is_dequantized else model.distribution(context)

    def log_probs(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch K"]:
        """Return the log-probability under each component."""
        value, context, batch = self.broadcast(value)
        if self.is_all and not self.conditional.is_dequantized:
            options = {"chunk_size": self.chunk_size}
            return self.conditional.class_log_probs(value, context, **options)
        numbers = torch.arange(self.num_components, device=value.device)
        labels = self.label_of(numbers.reshape(-1, *[1] * len(batch)))
        labels = labels.expand(self.num_components, *batch)
        return self.conditional.label_log_probs(value, labels, context, chunk_size=self.chunk_size)

    def broadcast(self, value: Tensor) -> tuple[Tensor, Tensor | None, torch.Size]:
        """Return data and features over the batch shape that they broadcast to."""
        given = value.shape[: value.dim() - len(self.event_shape)]
        batch = torch.broadcast_shapes(given, self.batch_shape)
        value, context = value.expand(*batch, *self.event_shape), self.context
        if context is not None:
            rank = len(self.conditional.context_shape or ())
            context = context.expand(*batch, *context.shape[context.dim() - rank :])
        return value, context, batch

    def sample(self, labels: Int[Tensor, "*batch"]) -> Num[Tensor, "*batch_event"]:
        """Draw one data point for each component."""
        drawn: Tensor = self.given(labels).sample()
        return drawn


class ComponentsOfClass(ModelComponents):
    """Those components whose labels are one class's share, which differs between data points.

    Args:
        conditional: The model.
        group: Class of each data point, ``(*batch,)``.
        num_components: Number of labels of each class.
        context: As for :class:`ModelComponents`.
        chunk_size: As for :class:`ModelComponents`.
    """

    is_all = False

    def __init__(
        self,
        conditional: GenerativeModel,
        group: Int[Tensor, "*batch"],
        num_components: int,
        context: Tensor | None = None,
        *,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(conditional, context, chunk_size=chunk_size)
        self.group, self.num_components = group, num_components
        self.batch_shape = torch.broadcast_shapes(self.batch_shape, group.shape)

    def label_of(self, component: Tensor) -> Tensor:
        """Return the model's label of one of the class's components."""
        return self.group * self.num_components + component
