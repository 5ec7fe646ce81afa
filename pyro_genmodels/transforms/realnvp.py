"""RealNVP: affine couplings, for images at several scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_event_shape, check_positive
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets.context import context_event_dim
from pyro_genmodels.nets.conv import ResNet
from pyro_genmodels.nets.dense import MLP
from pyro_genmodels.transforms._base import FlowTransform
from pyro_genmodels.transforms.chain import Chain, OnSqueezed
from pyro_genmodels.transforms.conditional import ConditionalFlow
from pyro_genmodels.transforms.coupling import AffineCoupling
from pyro_genmodels.transforms.logit import Logit
from pyro_genmodels.transforms.masks import (
    AlternatingMask,
    ChannelMask,
    Checkerboard,
    HalfMask,
    Mask,
)

# Of channels and width, the network of one coupling.
NetFactory = Callable[[int, int], nn.Module]


class RealNVP(FlowTransform):
    r"""Affine couplings whose masks take turns; images pass several scales.

    A vector passes couplings whose masks alternate between even and odd places and between the
    two halves. An image passes, from data to noise and at each scale but the last, couplings with
    checkerboard masks and, after squeezing 2x2 squares into channels, couplings with channel
    masks; then half of the pixels (a checkerboard) is left as it is and the other half goes on to
    the next scale, with twice the width. The last scale has one more checkerboard coupling and no
    channel masks. Noise has the size of the data, each pixel in its place.

    Every coupling starts as the identity. Where the paper normalises by batch statistics, which
    make a density depend on its minibatch, the networks here are residual without normalisation.

    Args:
        event_shape: ``D`` or ``(D,)`` for vectors, ``(C, H, W)`` for images of any size.
        num_couplings: Number of couplings of a vector, 16 if not given; for an image, their number
            in each group, 3 if not given.
        num_scales: Number of scales of an image. Two if not given, one if a side is odd or the
            image is 2x2.
        width: Hidden width of the networks (of images: channels at the first scale); 128 for
            vectors and 24 for images if not given.
        num_blocks: Hidden layers of a vector's networks, residual blocks of an image's. 2 and 1
            if not given.
        activation: Name of the networks' activation.
        dropout: Dropout probability in the networks. With dropout the map in training mode is
            random, and is a bijection only within one evaluation.
        logit_margin: If given, data lie in the unit interval, and pass a :class:`Logit` of this
            margin (0.05 in the paper's code) to the real line.
        num_classes: Condition on labels.
        context_shape: Condition on vectors ``(D,)`` or maps ``(C, H, W)``.
        cache_size: 0 or 1; see :meth:`FlowTransform.with_cache`.

    Raises:
        ValueError: If sizes are not positive, sides are not divisible as the scales need, or both
            kinds of context are given.

    References:
        Dinh et al. (2017), Density estimation using Real NVP. https://arxiv.org/abs/1605.08803

    Example:
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
        logit_margin: float | None = None,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        cache_size: int = 0,
    ) -> None:
        shape = check_event_shape([event_shape] if isinstance(event_shape, int) else event_shape)
        super().__init__(len(shape), event_shape=shape, cache_size=cache_size)
        is_image = len(shape) == 3
        num_couplings = _default("num_couplings", num_couplings, 3 if is_image else 16)
        width = _default("width", width, 24 if is_image else 128)
        num_blocks = _default("num_blocks", num_blocks, 1 if is_image else 2)
        num_scales = _check_scales(num_scales, shape)
        context_event_dim(num_classes, context_shape)  # checks them
        self.num_classes = num_classes
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        options: dict[str, Any] = {"activation": activation, "dropout": dropout, "zero_init": True}
        options |= {"num_classes": num_classes, "context_shape": context_shape}
        if is_image:
            net = partial(_image_net, num_blocks=num_blocks, **options)
            parts = _image_couplings(net, shape[0], width, num_couplings, num_scales)
        else:
            net = partial(_vector_net, num_blocks=num_blocks, **options)
            parts = _vector_couplings(net, shape[0], width, num_couplings)
        if logit_margin is not None:
            parts.append(Logit(len(shape), margin=logit_margin))
        self.flow = Chain(parts)
        self.codomain = self.flow.codomain

    def forward_and_log_det(
        self, x: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return the data of the noise ``x`` and the log-determinant."""
        return self.flow.forward_and_log_det(x, context)

    def inverse_and_log_det(
        self, y: Float[Tensor, "*event"], context: Num[Tensor, "*context"] | None = None
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*batch"]]:
        """Return the noise of the data ``y`` and the log-determinant."""
        return self.flow.inverse_and_log_det(y, context)


def _default(argument: str, value: int | None, default: int) -> int:
    check_positive(**{argument: default if value is None else value})
    return default if value is None else value


def _check_scales(num_scales: int | None, shape: torch.Size) -> int:
    if len(shape) == 1:
        check(num_scales in (None, 1), "num_scales", "be 1 for vectors", num_scales)
        return 1
    height, width = shape[1:]
    if num_scales is None:
        # A single pixel left to the second scale would have no neighbour to be shifted by.
        return 1 if height % 2 or width % 2 or height * width == 4 else 2
    check_positive(num_scales=num_scales)
    factor = 2 ** (num_scales - 1)
    rule = f"be divisible by {factor} for {num_scales} scales"
    check(height % factor == 0, "height", rule, height)
    check(width % factor == 0, "width", rule, width)
    pixels = height * width // factor**2
    rule = "leave the last scale two pixels or more"
    check(pixels > 1 or num_scales == 1, "num_scales", rule, f"{num_scales} for {height}x{width}")
    return num_scales


def _vector_net(size: int, width: int, *, num_blocks: int, **options: Any) -> nn.Module:
    return MLP(size, 2 * size, hidden=[width] * num_blocks, **options)


def _image_net(channels: int, width: int, *, num_blocks: int, **options: Any) -> nn.Module:
    return ResNet(channels, 2 * channels, hidden_channels=width, num_blocks=num_blocks, **options)


def _vector_couplings(
    net: NetFactory, size: int, width: int, num_couplings: int
) -> list[FlowTransform]:
    masks: list[Mask] = [AlternatingMask(), AlternatingMask(inverted=True)]
    if size > 2:  # of two elements, the halves are the even and the odd places again
        masks += [HalfMask(), HalfMask(inverted=True)]
    return [AffineCoupling(masks[i % len(masks)], net(size, width)) for i in range(num_couplings)]


def _image_couplings(
    net: NetFactory, channels: int, width: int, num_couplings: int, num_scales: int
) -> list[FlowTransform]:
    """Return the couplings from noise to data, the later scales nested in one transform."""
    if num_scales == 1:
        return _group(Checkerboard, net, channels, width, num_couplings + 1)
    later = _image_couplings(net, 2 * channels, 2 * width, num_couplings, num_scales - 1)
    squeezed = _group(ChannelMask, net, 4 * channels, 2 * width, num_couplings)
    return [
        OnSqueezed(Chain(later), factor_out=True),
        OnSqueezed(Chain(squeezed)),
        *_group(Checkerboard, net, channels, width, num_couplings),
    ]


def _group(
    mask: type[Mask], net: NetFactory, channels: int, width: int, count: int
) -> list[FlowTransform]:
    return [AffineCoupling(mask(inverted=i % 2 == 1), net(channels, width)) for i in range(count)]


class ConditionalRealNVP(ConditionalFlow):
    """RealNVP that waits for its context: labels, vectors or maps.

    ``condition(context)`` gives a plain transform that shares the parameters; the context's batch
    shape broadcasts into the distribution's.

    Args:
        event_shape: ``D`` or ``(D,)`` for vectors, ``(C, H, W)`` for images.
        num_couplings, num_scales, width, num_blocks, activation, dropout, logit_margin: As in
            :class:`RealNVP`.
        num_classes: Contexts are labels ``0 .. num_classes - 1``.
        context_shape: Contexts are vectors ``(D,)`` or maps ``(C, H, W)``.
        cache_size: 0 or 1; see :meth:`FlowTransform.with_cache`.

    Raises:
        ValueError: As :class:`RealNVP`; also if neither kind of context is given.

    Example:
        >>> import pyro.distributions as dist
        >>> flow = ConditionalRealNVP(2, num_classes=10)
        >>> noise = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> dist.TransformedDistribution(noise, [flow.condition(torch.arange(10))]).batch_shape
        torch.Size([10])
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
        logit_margin: float | None = None,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        cache_size: int = 0,
    ) -> None:
        flow = RealNVP(
            event_shape,
            num_couplings=num_couplings,
            num_scales=num_scales,
            width=width,
            num_blocks=num_blocks,
            activation=activation,
            dropout=dropout,
            logit_margin=logit_margin,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        super().__init__(flow, cache_size=cache_size)


def real_nvp(input_dim: int | Sequence[int], **options: Any) -> RealNVP:
    """Return a :class:`RealNVP` for vectors of ``input_dim`` or events of that shape.

    Example:
        >>> from pyro.distributions.transforms import iterated
        >>> len(iterated(2, real_nvp, 3).parts)
        2
    """
    return RealNVP(input_dim, **options)


def conditional_real_nvp(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalRealNVP:
    """Return a :class:`ConditionalRealNVP` for context vectors of ``context_dim`` or maps.

    Example:
        >>> conditional_real_nvp(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    shape = [context_dim] if isinstance(context_dim, int) else context_dim
    return ConditionalRealNVP(input_dim, context_shape=shape, **options)
