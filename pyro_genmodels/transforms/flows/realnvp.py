"""RealNVP: affine couplings of vectors, and of images over several scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from pyro_genmodels._checks import as_shape, check, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.nets import RealNVPNet
from pyro_genmodels.transforms.base.chain import Chain
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.base.flow_transform import FlowTransform
from pyro_genmodels.transforms.couplings.coupling import AffineCoupling
from pyro_genmodels.transforms.couplings.masks import Mask
from pyro_genmodels.transforms.flows.coupling_layout import couplings, residual_net
from pyro_genmodels.transforms.flows.whole_flow import WholeFlow
from pyro_genmodels.transforms.layers.batch_norm import BatchNorm


class RealNVP(WholeFlow):
    r"""Affine couplings whose masks take turns; images pass several scales.

    A vector passes couplings whose masks alternate between even and odd places and between the
    two halves. An image passes, from data to noise and at each scale but the last, couplings with
    checkerboard masks and, after squeezing 2x2 squares into channels, couplings with channel
    masks; then half of the pixels (a checkerboard) is left as it is and the other half goes on to
    the next scale, with twice the width. The last scale has one more checkerboard coupling and no
    channel masks. Noise has the size of the data, each pixel in its place.

    Every coupling starts as the identity. The paper normalises by batch statistics, in the
    networks and after each coupling, which makes a density in training depend on its minibatch;
    ``batch_norm=True`` is that architecture. By default the networks are residual without
    normalisation.

    Args:
        event_shape: ``D`` or ``(D,)`` for vectors, ``(C, H, W)`` for images of two pixels or more.
            A vector of one element is shifted and scaled by learned constants.
        num_couplings: Number of couplings of a vector, 16 if not given; for an image, their number
            in each group, 3 if not given.
        num_scales: Number of scales of an image. Two if not given, one if a side is odd or the
            image is 2x2.
        width: Hidden width of the networks (of images: channels at the first scale); 128 for
            vectors and 24 for images if not given.
        num_blocks: Hidden layers of a vector's networks, residual blocks of an image's. 2 and 1
            if not given.
        activation: Name of the networks' activation; the published networks have ReLU.
        dropout: Dropout probability in the networks. With dropout the map in training mode is
            random, and is a bijection only within one evaluation.
        batch_norm: Batch-normalise after each coupling, and for images use the published networks
            with batch and weight normalisation (see :class:`~pyro_genmodels.nets.RealNVPNet`).
        logit_margin: If given, data lie in the unit interval, and pass a :class:`Logit` of this
            margin (0.05 in the paper's code) to the real line.
        checkpoint: In training, keep only what passes between the couplings, and evaluate each
            anew in the backward pass: memory for about a third more time.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or maps ``(C, H, W)``.

    Raises:
        ValueError: If sizes are not positive, sides are not divisible as the scales need, a scale
            has nothing to couple, or the published networks are to have dropout or another
            activation.

    References:
        Dinh et al. (2017), Density estimation using Real NVP. https://arxiv.org/abs/1605.08803

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> noise = dist.Normal(torch.zeros(1, 8, 8), 1.0).to_event(3)
        >>> digits = dist.TransformedDistribution(noise, [RealNVP((1, 8, 8), width=8)])
        >>> digits.log_prob(digits.sample((5,))).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        *,
        num_couplings: int | None = None,
        num_scales: int | None = None,
        width: int | None = None,
        num_blocks: int | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        logit_margin: float | None = None,
        checkpoint: bool = False,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(event_shape, **context)
        shape = self.event_shape
        is_image = len(shape) == 3
        # A vector's networks are cheap and its couplings weak, an image's the other way round.
        num_couplings = num_couplings if num_couplings is not None else 3 if is_image else 16
        width = width if width is not None else 24 if is_image else 128
        num_blocks = num_blocks if num_blocks is not None else 1 if is_image else 2
        options: dict[str, Any] = {"num_blocks": num_blocks, **context}
        if is_image and batch_norm:
            plain = activation == "relu" and dropout == 0
            check(plain, "batch_norm", "come with ReLU and without dropout", (activation, dropout))
            net = partial(_published_net, **options)
        else:
            net = partial(residual_net, activation=activation, dropout=dropout, **options)
        parts = couplings(
            partial(_coupling, net=net, batch_norm=batch_norm),
            shape,
            width,
            num_couplings=num_couplings,
            num_scales=num_scales,
            checkpoint=checkpoint,
        )
        self._compose(parts, checkpoint=checkpoint, logit_margin=logit_margin)


def _published_net(
    mask: Mask, shape: Sequence[int], num_parameters: int, width: int, **options: Any
) -> nn.Module:
    seen, changed = mask.sizes(shape)
    return RealNVPNet(seen, num_parameters * changed, hidden_channels=width, **options)


def _coupling(
    mask: Mask, shape: Sequence[int], width: int, *, net: Callable[..., nn.Module], batch_norm: bool
) -> FlowTransform:
    coupling = AffineCoupling(mask, net(mask, shape, 2, width))
    if not batch_norm:
        return coupling
    return Chain([BatchNorm(shape[0], event_dim=len(shape)), coupling])


class ConditionalRealNVP(ConditionalFlow):
    """RealNVP that waits for its context: labels, vectors or maps.

    ``condition(context)`` gives a plain transform that shares the parameters; the context's batch
    shape broadcasts into the distribution's.

    Args:
        options: As for :class:`RealNVP`, ``num_classes`` or ``context_shape`` among them.

    Raises:
        ValueError: As :class:`RealNVP`; also if neither kind of context is given.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> flow = ConditionalRealNVP(2, num_classes=10)
        >>> noise = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> dist.TransformedDistribution(noise, [flow.condition(torch.arange(10))]).batch_shape
        torch.Size([10])
    """

    @takes_arguments_of(RealNVP)
    def __init__(self, event_shape: int | Sequence[int], **options: Any) -> None:
        super().__init__(RealNVP(event_shape, **options))


@integers_checked
@takes_arguments_of(RealNVP, without=["event_shape"])
def real_nvp(input_dim: int | Sequence[int], **options: Any) -> RealNVP:
    """Return a :class:`RealNVP` for vectors of ``input_dim`` or events of that shape.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        options: Others.

    Example:
        >>> from pyro.distributions.transforms import iterated
        >>> len(iterated(2, real_nvp, 3).parts)
        2
    """
    return RealNVP(input_dim, **options)


@integers_checked
@takes_arguments_of(RealNVP, without=["event_shape", *CONTEXT])
def conditional_real_nvp(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalRealNVP:
    """Return a :class:`ConditionalRealNVP` for context vectors of ``context_dim`` or maps.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        context_dim: Length of the context vectors, or sizes of a map.
        options: Others.

    Example:
        >>> import torch
        >>> conditional_real_nvp(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    return ConditionalRealNVP(input_dim, context_shape=as_shape(context_dim), **options)
