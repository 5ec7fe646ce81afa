"""The base of couplings, and the networks that they are given by default."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._batching import event_of
from pyro_genmodels._checks import as_shape, check, check_event_shape
from pyro_genmodels.nets import ConvNet
from pyro_genmodels.nets.layers import vector_net
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform
from pyro_genmodels.transforms.couplings.masks import Checkerboard, HalfMask, Mask


class Coupling(FlowTransform, Abstract):
    """A mask, a network that sees the part that passes, and an elementwise map of the other part.

    A subclass writes the elementwise map, from data to noise and back, given its parameters.

    Args:
        mask: Which part passes unchanged.
        net: Network that returns ``num_parameters`` values for each feature that changes, those of
            one kind together: it takes as many features as the first and returns
            ``num_parameters`` times as many as the second number of ``mask.sizes(event_shape)``.
            Its ``num_classes`` and ``context_shape`` say what context it takes, if any.
        num_parameters: Parameters of the elementwise map.
    """

    def __init__(self, mask: Mask, net: nn.Module, *, num_parameters: int) -> None:
        super().__init__(mask.event_dim)
        self.mask = mask
        self.net = net
        self.num_parameters = num_parameters
        self.num_classes = getattr(net, "num_classes", None)
        self.context_shape = getattr(net, "context_shape", None)
        self._known_shape: torch.Size | None = None

    @abstractmethod
    def _to_noise(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the noise of the changing elements and the log-slopes; ``None`` for zeros."""

    @abstractmethod
    def _to_data(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the data of the changing elements and the log-slopes; ``None`` for zeros."""

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant."""
        return self._couple(x, context, self._to_data)

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant."""
        return self._couple(y, context, self._to_noise)

    def _couple(
        self,
        x: Tensor,
        context: Tensor | None,
        change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
    ) -> tuple[Tensor, Tensor]:
        self._check_shape(event_of(x, self.mask.event_dim))
        seen, changed = self.mask.divide(x)
        changed, log_slope = change(changed, self._elementwise(seen, x, context))
        y = self.mask.merge(seen, changed)
        if log_slope is None:
            return y, self._volume_kept(x)
        return y, log_slope.sum(list(range(-self.mask.changed_dim, 0)))

    def _check_shape(self, shape: torch.Size) -> None:
        if shape != self._known_shape:
            self.mask.check(shape)
            self._known_shape = shape

    def _elementwise(self, seen: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        """Return ``(*batch, num_parameters, *changed)``."""
        output: Tensor = self.net(seen) if context is None else self.net(seen, context)
        shape = x.shape[x.dim() - self.mask.event_dim :]
        features = self.mask.sizes(shape)[1]
        expected = self.num_parameters * features
        found = output.shape[-self.mask.event_dim]
        check(
            found == expected, "net", f"return {expected} features for events {tuple(shape)}", found
        )
        # Under autocast the network answers in half precision; the map itself stays in x's.
        answers = self.mask.answers(output.to(x.dtype))
        split = (self.num_parameters, features)
        return answers.unflatten(-self.mask.changed_dim, split)

    def _split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Return each of the parameters in the shape of the changing elements."""
        return parameters.unbind(-1 - self.mask.changed_dim)


def default_mask(input_dim: int | Sequence[int], mask: Mask | None = None) -> Mask:
    """Return the mask, or halves for vectors and a checkerboard for images."""
    if mask is not None:
        return mask
    return HalfMask() if len(as_shape(input_dim)) == 1 else Checkerboard()


GIVEN = ("mask", "input_dim", "num_parameters")
"""Arguments of :func:`coupling_net` that a coupling settles."""


def coupling_net(
    mask: Mask,
    input_dim: int | Sequence[int],
    num_parameters: int,
    *,
    hidden: Sequence[int] | None = None,
    kernel_size: int | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    zero_init: bool = True,
    num_classes: int | None = None,
    context_shape: Sequence[int] | None = None,
) -> nn.Module:
    """Return a network for a coupling of such events.

    Args:
        mask: Mask of the coupling.
        input_dim: Length of vectors, or sizes of an event.
        num_parameters: Values that the coupling needs for each feature that changes.
        hidden: Widths of the network's hidden layers, of images their channels; two of 64 units or
            32 channels if not given.
        kernel_size: Odd size of the kernels, for images; 3 if not given.
        activation: Name of the network's activation.
        dropout: Probability of dropping a hidden unit in training.
        zero_init: Start with an output of zero, so that the coupling is the identity.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)``, or for images on maps ``(C, H, W)``.

    Raises:
        ValueError: If the mask leaves a part of the events empty, or vectors are to have a kernel.
    """
    shape = check_event_shape(as_shape(input_dim))
    mask.check(shape)
    seen, changed = mask.sizes(shape)
    answers = num_parameters * changed
    options: dict[str, Any] = {"activation": activation, "dropout": dropout}
    options |= {"zero_init": zero_init, "num_classes": num_classes, "context_shape": context_shape}
    if len(shape) == 1:
        check(kernel_size is None, "kernel_size", "be left out for vectors", kernel_size)
        return vector_net(seen, answers, hidden=(64, 64) if hidden is None else hidden, **options)
    options |= {"kernel_size": 3 if kernel_size is None else kernel_size}
    return ConvNet(seen, answers, hidden=(32, 32) if hidden is None else hidden, **options)
