"""Glow: steps of normalisation, a 1x1 convolution and a coupling, over several scales."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

from pyro_genmodels._checks import (
    as_shape,
    check,
    check_choice,
    check_event_shape,
    check_positive,
    integers_checked,
)
from pyro_genmodels.nets.layers import expect_no_data
from pyro_genmodels.transforms.base.amplification import check_amplification
from pyro_genmodels.transforms.base.conditional import ConditionalFlow
from pyro_genmodels.transforms.flows.glow_parts import (
    CouplingName,
    GlowParts,
    make_coupling,
    make_net,
    number_of_scales,
)
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
        coupling: ``"affine"`` (with a sigmoid scale, as published), ``"additive"`` or
            ``"spline"`` (Durkan et al. 2019).
        max_amplification: Bound on how many times larger the affine couplings and the learned
            priors, all together, can make a difference of noise on its way to data, whatever
            their networks say: its fourth root bounds the priors, and the rest the couplings,
            each alike; none more than 1000 times. The learned constants of normalisations and
            1x1 convolutions come on top; :meth:`largest_value` computes the bound with them. At
            the default, draws are finite in float32 whatever finite outputs the networks have, as
            long as those constants stay moderate. ``None``, as published: nothing bounds the
            priors, a coupling may scale by 1000, and rare draws far from the data can overflow.
        lu: Learn the 1x1 convolutions by their LU factors.
        learned_prior: Learn the priors of what is factored out and of what is left.
        dropout: Dropout probability in the coupling networks; not in the paper.
        log_scale_factor: How much faster the log-scales of normalisations and last convolutions
            learn.
        num_bins: Bins of spline couplings.
        bound: Range of spline couplings.
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
        coupling: CouplingName = "affine",
        max_amplification: float | None = 1e12,
        lu: bool = True,
        learned_prior: bool = True,
        dropout: float = 0.0,
        log_scale_factor: float = 3.0,
        num_bins: int = 8,
        bound: float = 4.0,
        checkpoint: bool = False,
        initialized: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        condition: Literal["all", "prior"] = "all",
    ) -> None:
        shape = check_event_shape(as_shape(event_shape))
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(shape, **context)
        check_choice("coupling", coupling, get_args(CouplingName))
        check_choice("condition", condition, ("all", "prior"))
        conditional = self.context_event_dim is not None
        rule = "be True if only the prior is conditional"
        fits = learned_prior or not (conditional and condition == "prior")
        check(fits, "learned_prior", rule, learned_prior)
        width = (512 if len(shape) == 3 else 128) if width is None else width
        check_positive(num_steps=num_steps, width=width)
        num_scales = number_of_scales(num_scales, shape)
        check_amplification(max_amplification)
        of_prior, of_step = _shares(max_amplification, num_steps * num_scales)
        net_context = context if condition == "all" else {}
        factor: dict[str, Any] = {"log_scale_factor": log_scale_factor}
        net = partial(make_net, width=width, dropout=dropout, factor=factor, **net_context)
        make = partial(make_coupling, kind=coupling, net=net, num_bins=num_bins, bound=bound)
        make = partial(make, max_amplification=of_step)
        build = GlowParts(make, num_steps, lu, learned_prior, context, factor, checkpoint, of_prior)
        part = build.scale(shape, num_scales) if len(shape) == 3 else build.vectors(shape)
        self._compose([part])
        if initialized:
            expect_no_data(self)


def _shares(total: float | None, num_steps: int) -> tuple[float | None, float | None]:
    """Return the bounds of a prior and of a step that make up the bound of all together."""
    if total is None:
        return None, None
    return min(total**0.25, 1000.0), min(total ** (0.75 / num_steps), 1000.0)


class ConditionalGlow(ConditionalFlow):
    """Glow that waits for its context: labels, vectors or maps.

    Args:
        event_shape: ``D`` or ``(D,)`` for vectors, ``(C, H, W)`` for images.
        options: ``num_classes`` or ``context_shape``, and others as for :class:`Glow`.

    Raises:
        ValueError: As :class:`Glow`; also if neither kind of context is given.

    Example:
        >>> import torch
        >>> flow = ConditionalGlow((1, 4, 4), num_classes=10, num_steps=1, width=8)
        >>> flow.condition(torch.arange(10)).forward_shape((1, 4, 4))
        torch.Size([10, 1, 4, 4])
    """

    def __init__(self, event_shape: int | Sequence[int], **options: Any) -> None:
        super().__init__(Glow(event_shape, **options))


@integers_checked
def glow(input_dim: int | Sequence[int], **options: Any) -> Glow:
    """Return a :class:`Glow` for vectors of ``input_dim`` or events of that shape.

    Example:
        >>> glow(4, num_steps=2, width=8).event_shape
        torch.Size([4])
    """
    return Glow(input_dim, **options)


@integers_checked
def conditional_glow(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalGlow:
    """Return a :class:`ConditionalGlow` for context vectors of ``context_dim`` or maps.

    Example:
        >>> import torch
        >>> flow = conditional_glow(4, 2, num_steps=2, width=8)
        >>> flow.condition(torch.zeros(5, 2)).forward_shape((4,))
        torch.Size([5, 4])
    """
    return ConditionalGlow(input_dim, context_shape=as_shape(context_dim), **options)
