"""The order of couplings that RealNVP introduced: masks that take turns, over several scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.nets import ResNet
from pyro_genmodels.nets.layers import vector_net
from pyro_genmodels.transforms.base.chain import Chain
from pyro_genmodels.transforms.base.flow_transform import FlowTransform
from pyro_genmodels.transforms.couplings.masks import (
    AlternatingMask,
    ChannelMask,
    Checkerboard,
    HalfMask,
    Mask,
)
from pyro_genmodels.transforms.flows.multiscale import FactorOut, OnSqueezed

# Of a mask, the shape of the events that it divides, and a width.
MakeCoupling = Callable[[Mask, Sequence[int], int], FlowTransform]


def check_scales(num_scales: int | None, shape: torch.Size) -> int:
    """Return the number of scales, the most that suit if none is given but no more than two.

    Raises:
        ValueError: If vectors are to have several, or an image's sides cannot be divided so.
    """
    if len(shape) == 1:
        check(num_scales in (None, 1), "num_scales", "be 1 for vectors", num_scales)
        return 1
    height, width = shape[1:]
    rule = "have two pixels or more to couple"
    check(height * width > 1, "event_shape", rule, tuple(shape))
    if num_scales is None:
        # A single pixel left to the second scale would have no neighbour to be shifted by.
        return 1 if height % 2 or width % 2 or height * width == 4 else 2
    check_sides_divisible(shape, num_scales, 2 ** (num_scales - 1))
    pixels = height * width // 4 ** (num_scales - 1)
    rule = "leave the last scale two pixels or more"
    check(pixels > 1 or num_scales == 1, "num_scales", rule, f"{num_scales} for {height}x{width}")
    return num_scales


def check_sides_divisible(shape: torch.Size, num_scales: int, factor: int) -> None:
    """Raise ``ValueError`` unless an image's sides are divisible as so many scales need."""
    check_positive(num_scales=num_scales)
    rule = f"be divisible by {factor} for {num_scales} scales"
    check(shape[1] % factor == 0, "height", rule, shape[1])
    check(shape[2] % factor == 0, "width", rule, shape[2])


def couplings(
    make: MakeCoupling,
    shape: torch.Size,
    width: int,
    *,
    num_couplings: int,
    num_scales: int | None,
    checkpoint: bool = False,
) -> list[FlowTransform]:
    """Return the couplings of vectors or images, from noise to data.

    Raises:
        ValueError: As :func:`check_scales`, or if a size is not positive.
    """
    check_positive(num_couplings=num_couplings, width=width)
    num_scales = check_scales(num_scales, shape)
    if len(shape) == 1:
        return _vector_couplings(make, shape[0], width, num_couplings)
    return _image_couplings(make, shape, width, num_couplings, num_scales, checkpoint)


def residual_net(
    mask: Mask,
    shape: Sequence[int],
    num_parameters: int,
    width: int,
    *,
    num_blocks: int,
    **options: Any,
) -> nn.Module:
    """Return a coupling's network, zero at the start: residual of images, an MLP of vectors.

    Args:
        mask: Mask of the coupling.
        shape: Sizes of an event.
        num_parameters: Values that the coupling needs for each feature that changes.
        width: Channels of the blocks, or units of the hidden layers.
        num_blocks: Number of these.
        options: As for both networks: ``activation``, ``dropout`` and the context.
    """
    check_positive(num_blocks=num_blocks)
    seen, changed = mask.sizes(shape)
    answers = num_parameters * changed
    options["zero_init"] = True
    if len(shape) == 1:
        return vector_net(seen, answers, hidden=[width] * num_blocks, **options)
    return ResNet(seen, answers, hidden_channels=width, num_blocks=num_blocks, **options)


def _vector_couplings(
    make: MakeCoupling, size: int, width: int, num_couplings: int
) -> list[FlowTransform]:
    """Return couplings whose masks alternate between even and odd places and the two halves.

    A vector of one element is changed by each of them, by learned constants.
    """
    masks: list[Mask] = [AlternatingMask(), AlternatingMask(inverted=True)]
    if size > 2:  # of two elements, the halves are the even and the odd places again
        masks += [HalfMask(), HalfMask(inverted=True)]
    return [make(masks[i % len(masks)], (size,), width) for i in range(num_couplings)]


def _image_couplings(
    make: MakeCoupling,
    shape: Sequence[int],
    width: int,
    num_couplings: int,
    num_scales: int,
    checkpoint: bool,
) -> list[FlowTransform]:
    """Return the couplings from noise to data, the later scales nested in one transform."""
    channels, height, breadth = shape
    if num_scales == 1:
        return _group(Checkerboard, make, shape, width, num_couplings + 1)
    half = height // 2, breadth // 2
    rest = 2 * channels, *half
    later = _image_couplings(make, rest, 2 * width, num_couplings, num_scales - 1, checkpoint)
    squeezed = _group(ChannelMask, make, (4 * channels, *half), 2 * width, num_couplings)
    return [
        OnSqueezed(FactorOut(Chain(later, checkpoint=checkpoint)), alternating=True),
        OnSqueezed(Chain(squeezed, checkpoint=checkpoint)),
        *_group(Checkerboard, make, shape, width, num_couplings),
    ]


def _group(
    mask: type[Mask], make: MakeCoupling, shape: Sequence[int], width: int, count: int
) -> list[FlowTransform]:
    return [make(mask(inverted=i % 2 == 1), shape, width) for i in range(count)]
