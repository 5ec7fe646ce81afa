"""Glow: steps of normalisation, a 1x1 convolution and a coupling, over several scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pyro_genmodels._checks import as_shape, check, check_choice, check_positive, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.nets.layers import expect_no_data
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.flows.glow_coupling import CouplingName, GlowCoupling
from pyro_genmodels.transforms.flows.glow_parts import GlowParts, number_of_scales
from pyro_genmodels.transforms.flows.whole_flow import WholeFlow


class Glow(WholeFlow):
    r"""Steps of activation normalisation, an invertible 1x1 convolution and a coupling.

    From data to noise, an image is at each scale squeezed, passes ``num_steps`` steps, and half of
    its channels is factored out with a prior learned from the other half, which goes on to the
    next scale; what is left at the last has a learned prior as well. Noise has the size of the
    data. A vector passes steps only.

    Every coupling and prior starts at zero; the normalisations take their first values from the
    first data in training (see :class:`ActNorm`).

    Args:
        event_shape: ``D`` or ``(D,)`` for vectors, ``(C, H, W)`` for images with sides that are
            divisible by 2 to the number of scales. The couplings of a vector of one element have
            learned constants.
        num_scales: Number of scales :math:`L` of an image; 3 or as many as the sides allow, if
            not given. 1 for vectors.
        num_steps: Steps :math:`K` at each scale.
        width: Hidden channels of the coupling networks.
        coupling: ``"affine"``, ``"additive"`` or ``"spline"``, or a :class:`GlowCoupling` that says
            more: how far and how fast the learned scales go, and what splines there are.
        lu: Learn the 1x1 convolutions by their LU factors.
        learned_prior: Learn the priors of what is factored out and of what is left.
        dropout: Dropout probability in the coupling networks; not in the paper.
        checkpoint: In training, keep only what passes between the steps, and evaluate each anew
            in the backward pass: memory for about a third more time.
        initialized: Take no first values from data: for a flow that training calls from noise,
            such as the guide of a posterior.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or, images only, on maps ``(C, H, W)``.
        condition: What the context enters: ``"all"`` couplings and the last prior, or, as
            published for labels, the ``"prior"`` alone.

    Raises:
        ValueError: If sizes are not positive, sides are not divisible as the scales need, both
            kinds of context are given, or the prior is to be conditional without being learned.

    References:
        Kingma and Dhariwal (2018), Glow: Generative flow with invertible 1x1 convolutions.
        https://arxiv.org/abs/1807.03039, and its code, for what the paper leaves out.

    Example:
        >>> import torch
        >>> flow = Glow((3, 8, 8), num_scales=2, num_steps=2, width=16)
        >>> x = flow.inv(torch.rand(5, 3, 8, 8))
        >>> flow(x).shape
        torch.Size([5, 3, 8, 8])
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        *,
        num_scales: int | None = None,
        num_steps: int = 32,
        width: int | None = None,
        coupling: CouplingName | GlowCoupling = "affine",
        lu: bool = True,
        learned_prior: bool = True,
        dropout: float = 0.0,
        checkpoint: bool = False,
        initialized: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        condition: Literal["all", "prior"] = "all",
    ) -> None:
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(event_shape, **context)
        shape = self.event_shape
        coupling = GlowCoupling.of(coupling)
        check_choice("condition", condition, ("all", "prior"))
        conditional = self.context_event_dim is not None
        rule = "be True if only the prior is conditional"
        fits = learned_prior or not (conditional and condition == "prior")
        check(fits, "learned_prior", rule, learned_prior)
        width = (512 if len(shape) == 3 else 128) if width is None else width
        check_positive(num_steps=num_steps, width=width)
        parts = GlowParts(
            coupling,
            num_scales=number_of_scales(num_scales, shape),
            num_steps=num_steps,
            width=width,
            dropout=dropout,
            lu=lu,
            learned_prior=learned_prior,
            checkpoint=checkpoint,
            context=context,
            net_context=context if condition == "all" else {},
        )
        self._compose([parts.whole(shape)])
        if initialized:
            expect_no_data(self)


class ConditionalGlow(ConditionalFlow):
    """Glow that waits for its context: labels, vectors or maps.

    Args:
        options: As for :class:`Glow`, ``num_classes`` or ``context_shape`` among them.

    Raises:
        ValueError: As :class:`Glow`; also if neither kind of context is given.

    Example:
        >>> import torch
        >>> flow = ConditionalGlow((1, 4, 4), num_classes=10, num_steps=1, width=8)
        >>> flow.condition(torch.arange(10)).forward_shape((1, 4, 4))
        torch.Size([10, 1, 4, 4])
    """

    @takes_arguments_of(Glow)
    def __init__(self, event_shape: int | Sequence[int], **options: Any) -> None:
        super().__init__(Glow(event_shape, **options))


@integers_checked
@takes_arguments_of(Glow, without=["event_shape"])
def glow(input_dim: int | Sequence[int], **options: Any) -> Glow:
    """Return a :class:`Glow` for vectors of ``input_dim`` or events of that shape.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        options: Others.

    Example:
        >>> glow(4, num_steps=2, width=8).event_shape
        torch.Size([4])
    """
    return Glow(input_dim, **options)


@integers_checked
@takes_arguments_of(Glow, without=["event_shape", *CONTEXT])
def conditional_glow(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalGlow:
    """Return a :class:`ConditionalGlow` for context vectors of ``context_dim`` or maps.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        context_dim: Length of the context vectors, or sizes of a map.
        options: Others.

    Example:
        >>> import torch
        >>> flow = conditional_glow(4, 2, num_steps=2, width=8)
        >>> flow.condition(torch.zeros(5, 2)).forward_shape((4,))
        torch.Size([5, 4])
    """
    return ConditionalGlow(input_dim, context_shape=as_shape(context_dim), **options)
