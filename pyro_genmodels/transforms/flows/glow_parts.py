"""What a Glow is made of: its steps, their couplings, and the priors of what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from pyro_genmodels._checks import check
from pyro_genmodels.nets import GlowNet
from pyro_genmodels.nets.layers import vector_net
from pyro_genmodels.transforms.base.chain import Chain
from pyro_genmodels.transforms.base.flow_transform import FlowTransform
from pyro_genmodels.transforms.couplings.coupling import AdditiveCoupling, AffineCoupling
from pyro_genmodels.transforms.couplings.masks import ChannelMask, HalfMask, Mask
from pyro_genmodels.transforms.couplings.spline import SplineCoupling
from pyro_genmodels.transforms.flows.coupling_layout import check_sides_divisible
from pyro_genmodels.transforms.flows.multiscale import FactorOut, OnSqueezed
from pyro_genmodels.transforms.layers.act_norm import ActNorm
from pyro_genmodels.transforms.layers.invertible_linear import InvertibleLinear

CouplingName = Literal["affine", "additive", "spline"]


class GlowParts:
    """Makes the parts of one Glow."""

    def __init__(
        self,
        make: Callable[[Mask, Sequence[int]], FlowTransform],
        num_steps: int,
        lu: bool,
        learned_prior: bool,
        context: dict[str, Any],
        factor: dict[str, Any],
        checkpoint: bool,
        max_amplification: float | None,
    ) -> None:
        self.make, self.num_steps, self.lu = make, num_steps, lu
        self.learned_prior, self.context, self.checkpoint = learned_prior, context, checkpoint
        self.factor = factor
        self.bound: dict[str, Any] = {"max_amplification": max_amplification}

    def scale(self, shape: Sequence[int], num_scales: int) -> FlowTransform:
        """Return one scale of images, and in it the scales after it."""
        channels, height, width = shape
        squeezed = 4 * channels, height // 2, width // 2
        if num_scales == 1:
            rest = self.prior(squeezed)
        else:
            later = self.scale((2 * channels, *squeezed[1:]), num_scales - 1)
            net = GlowNet(2 * channels, 4 * channels, hidden_channels=0, **self.factor)
            rest = [FactorOut(later, net if self.learned_prior else None, **self.bound)]
        return OnSqueezed(Chain([*rest, self.steps(squeezed)]))

    def vectors(self, shape: Sequence[int]) -> FlowTransform:
        """Return the flow of vectors."""
        return Chain([*self.prior(shape), self.steps(shape)])

    def prior(self, shape: Sequence[int]) -> list[FlowTransform]:
        """Return the map from a standard Gaussian to the learned prior of what is left."""
        if not self.learned_prior:
            return []
        rank = len(shape)
        options = {**self.factor, **self.context, **self.bound}
        return [ActNorm(shape[0], event_dim=rank, initialized=True, **options)]

    def steps(self, shape: Sequence[int]) -> Chain:
        """Return the steps of one scale."""
        return Chain([self.step(shape) for _ in range(self.num_steps)], checkpoint=self.checkpoint)

    def step(self, shape: Sequence[int]) -> Chain:
        """Return a step: from data to noise normalisation, 1x1 convolution, coupling."""
        rank = len(shape)
        mask = ChannelMask() if rank == 3 else HalfMask()
        linear = InvertibleLinear(shape[0], event_dim=rank, lu=self.lu)
        norm = ActNorm(shape[0], event_dim=rank, **self.factor)
        return Chain([self.make(mask, shape), linear, norm])


def number_of_scales(num_scales: int | None, shape: torch.Size) -> int:
    """Return the number of scales, or raise ``ValueError`` if the shape has not as many."""
    if len(shape) == 1:
        check(num_scales in (None, 1), "num_scales", "be 1 for vectors", num_scales)
        return 1
    if num_scales is None:
        fits = [n for n in (3, 2, 1) if shape[1] % 2**n == 0 and shape[2] % 2**n == 0]
        num_scales = fits[0] if fits else 1
    check_sides_divisible(shape, num_scales, 2**num_scales)
    return num_scales


def make_net(
    rank: int,
    seen: int,
    answers: int,
    *,
    width: int,
    dropout: float,
    factor: dict[str, Any],
    **context: Any,
) -> nn.Module:
    """Return the network of a coupling of images or of vectors."""
    if rank == 3:
        options: dict[str, Any] = {"hidden_channels": width, "dropout": dropout, **factor}
        return GlowNet(seen, answers, **options, **context)
    hidden = [width, width]
    return vector_net(seen, answers, hidden=hidden, dropout=dropout, zero_init=True, **context)


def make_coupling(
    mask: Mask,
    shape: Sequence[int],
    *,
    kind: CouplingName,
    net: Callable[[int, int, int], nn.Module],
    num_bins: int,
    bound: float,
    max_amplification: float | None,
) -> FlowTransform:
    """Return a coupling of that kind."""
    seen, changed = mask.sizes(shape)
    if kind == "additive":
        return AdditiveCoupling(mask, net(len(shape), seen, changed))
    if kind == "affine":
        affine_net = net(len(shape), seen, 2 * changed)
        return AffineCoupling(
            mask, affine_net, scale="sigmoid", max_amplification=max_amplification
        )
    count = SplineCoupling.parameters_of(num_bins)
    spline_net = net(len(shape), seen, count * changed)
    return SplineCoupling(mask, spline_net, num_bins=num_bins, bound=bound)
