"""Neural spline flows: spline couplings of vectors, and of images over several scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.distributions import constraints

from pyro_genmodels._checks import as_shape, check, check_choice, check_positive, integers_checked
from pyro_genmodels._configuration import ArgumentGroup, takes_arguments_of
from pyro_genmodels.transforms.base.chain import Chain
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.base.flow_transform import FlowTransform
from pyro_genmodels.transforms.couplings.masks import Mask
from pyro_genmodels.transforms.couplings.spline import SplineCoupling
from pyro_genmodels.transforms.flows.coupling_layout import couplings, residual_net
from pyro_genmodels.transforms.flows.whole_flow import WholeFlow
from pyro_genmodels.transforms.layers.invertible_linear import InvertibleLinear


@dataclass(frozen=True)
class Splines(ArgumentGroup):
    """The splines of a :class:`NeuralSplineFlow`: where they map values, and in how many bins.

    Args:
        domain: ``"real"`` or ``"unit"``: where noise and data lie, on the real line or in the unit
            interval.
        num_bins: Bins of each spline.
        bound: :math:`B`, on the real line: outside of :math:`[-B, B]` a spline is the identity.

    Raises:
        ValueError: If ``domain`` is neither of the two, or ``bound`` is not positive.

    Example:
        >>> import torch
        >>> flow = NeuralSplineFlow(2, splines=Splines("unit", num_bins=16), num_couplings=2)
        >>> flow(torch.rand(5, 2)).shape
        torch.Size([5, 2])
    """

    domain: Literal["real", "unit"] = "real"
    num_bins: int = 8
    bound: float = 4.0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_choice("domain", self.domain, ("real", "unit"))
        check_positive(bound=self.bound)

    def coupling(self, mask: Mask, net: nn.Module) -> SplineCoupling:
        """Return a coupling by such splines."""
        bound, center = (0.5, 0.5) if self.domain == "unit" else (self.bound, 0.0)
        return SplineCoupling(mask, net, num_bins=self.num_bins, bound=bound, center=center)


class NeuralSplineFlow(WholeFlow):
    r"""Spline couplings whose masks take turns as in :class:`RealNVP`; images pass several scales.

    On the real line every spline is the identity outside of :math:`[-B, B]`. On the unit cube
    splines map the unit interval onto itself: with uniform noise on the cube (as
    ``FlowModel(base="uniform")`` has it) the density has bounded support, both ends of each
    interval included, and dequantised data need no logit and lose no mass outside of their range.

    Every coupling starts as the identity.

    Args:
        event_shape: ``D`` or ``(D,)`` for vectors, ``(C, H, W)`` for images of two pixels or more.
            A vector of one element is mapped by splines of learned constants.
        splines: ``"real"`` or ``"unit"``, where noise and data lie, or :class:`Splines` that say
            more: how many bins they have, and how far they reach on the real line.
        num_couplings: Number of couplings of a vector, 8 if not given; for an image, their number
            in each group, 3 if not given.
        num_scales: Number of scales of an image. Two if not given, one if a side is odd or the
            image is 2x2.
        linear: Put an invertible linear map before each coupling of vectors, on the real line.
        width: Hidden width of the networks (of images: channels at the first scale); 64 for
            vectors and 24 for images if not given.
        num_blocks: Hidden layers of a vector's networks, residual blocks of an image's. 2 and 1
            if not given.
        activation: Name of the networks' activation.
        dropout: Dropout probability in the networks. With dropout the map in training mode is
            random, and is a bijection only within one evaluation.
        checkpoint: In training, keep only what passes between the couplings, and evaluate each
            anew in the backward pass: memory for about a third more time.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or maps ``(C, H, W)``.

    Raises:
        ValueError: If sizes are not positive, sides are not divisible as the scales need, a scale
            has nothing to couple, or linear maps are wanted of images or on the unit cube.

    References:
        Durkan et al. (2019), Neural Spline Flows. https://arxiv.org/abs/1906.04032. The published
        image flow is ``Glow(coupling="spline")``.

    Example:
        >>> import torch
        >>> flow = NeuralSplineFlow((1, 8, 8), splines="unit", width=8)
        >>> flow.inv(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        *,
        splines: Literal["real", "unit"] | Splines = "real",
        num_couplings: int | None = None,
        num_scales: int | None = None,
        linear: bool = False,
        width: int | None = None,
        num_blocks: int | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        checkpoint: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(event_shape, **context)
        shape = self.event_shape
        splines = Splines.of(splines)
        is_image = len(shape) == 3
        num_couplings = (3 if is_image else 8) if num_couplings is None else num_couplings
        width = (24 if is_image else 64) if width is None else width
        num_blocks = (1 if is_image else 2) if num_blocks is None else num_blocks
        rule = "be False for images and on the unit cube"
        fits = not linear or (not is_image and splines.domain == "real")
        check(fits, "linear", rule, linear)
        options = {"activation": activation, "dropout": dropout, **context}
        net = partial(residual_net, num_blocks=num_blocks, **options)
        parts = couplings(
            partial(_coupling, splines=splines, net=net, linear=linear),
            shape,
            width,
            num_couplings=num_couplings,
            num_scales=num_scales,
            checkpoint=checkpoint,
        )
        self._compose(parts, checkpoint=checkpoint)
        if splines.domain == "unit":
            cube = constraints.independent(constraints.unit_interval, len(shape))
            self.domain = self.codomain = cube


def _coupling(
    mask: Mask,
    shape: Sequence[int],
    width: int,
    *,
    splines: Splines,
    net: Callable[..., nn.Module],
    linear: bool,
) -> FlowTransform:
    num_parameters = SplineCoupling.parameters_of(splines.num_bins)
    coupling = splines.coupling(mask, net(mask, shape, num_parameters, width))
    return Chain([coupling, InvertibleLinear(shape[0], event_dim=1)]) if linear else coupling


class ConditionalNeuralSplineFlow(ConditionalFlow):
    """Neural spline flow that waits for its context: labels, vectors or maps.

    Args:
        options: As for :class:`NeuralSplineFlow`, ``num_classes`` or ``context_shape`` among them.

    Raises:
        ValueError: As :class:`NeuralSplineFlow`; also if neither kind of context is given.

    Example:
        >>> import torch
        >>> flow = ConditionalNeuralSplineFlow(4, num_classes=10, num_couplings=2)
        >>> flow.condition(torch.arange(10)).forward_shape((4,))
        torch.Size([10, 4])
    """

    @takes_arguments_of(NeuralSplineFlow)
    def __init__(self, event_shape: int | Sequence[int], **options: Any) -> None:
        super().__init__(NeuralSplineFlow(event_shape, **options))


@integers_checked
@takes_arguments_of(NeuralSplineFlow, without=["event_shape"])
def neural_spline_flow(input_dim: int | Sequence[int], **options: Any) -> NeuralSplineFlow:
    """Return a :class:`NeuralSplineFlow` for vectors of ``input_dim`` or events of that shape.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        options: Others.

    Example:
        >>> neural_spline_flow(4, num_couplings=2).event_shape
        torch.Size([4])
    """
    return NeuralSplineFlow(input_dim, **options)


@integers_checked
@takes_arguments_of(NeuralSplineFlow, without=["event_shape", *CONTEXT])
def conditional_neural_spline_flow(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalNeuralSplineFlow:
    """Return a :class:`ConditionalNeuralSplineFlow` for context vectors or maps.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        context_dim: Length of the context vectors, or sizes of a map.
        options: Others.

    Example:
        >>> import torch
        >>> flow = conditional_neural_spline_flow(4, 2, num_couplings=2)
        >>> flow.condition(torch.zeros(5, 2)).forward_shape((4,))
        torch.Size([5, 4])
    """
    return ConditionalNeuralSplineFlow(input_dim, context_shape=as_shape(context_dim), **options)
