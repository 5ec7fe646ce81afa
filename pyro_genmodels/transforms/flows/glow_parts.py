"""What a Glow is made of: its steps, their couplings, and the priors of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from pyro_genmodels.transforms.flows.glow_coupling import GlowCoupling
from pyro_genmodels.transforms.flows.multiscale import FactorOut, OnSqueezed
from pyro_genmodels.transforms.layers.act_norm import ActNorm
from pyro_genmodels.transforms.layers.invertible_linear import InvertibleLinear


@dataclass(frozen=True)
class GlowParts:
    """Makes the parts of one Glow.

    Args:
        coupling: What the couplings do.
        num_scales: Number of scales; 1 for vectors.
        num_steps: Steps at each scale.
        width: Hidden channels of the coupling networks.
        dropout: Dropout probability in them.
        lu: Learn the 1x1 convolutions by their LU factors.
        learned_prior: Learn the priors.
        checkpoint: Evaluate each step anew in the backward pass.
        context: ``num_classes`` and ``context_shape`` of the last prior.
        net_context: Those of the coupling networks.
    """

    coupling: GlowCoupling
    num_scales: int
    num_steps: int
    width: int
    dropout: float
    lu: bool
    learned_prior: bool
    checkpoint: bool
    context: dict[str, Any]
    net_context: dict[str, Any]

    def whole(self, shape: torch.Size) -> FlowTransform:
        """Return the flow of images or of vectors."""
        if len(shape) == 3:
            return self._scale(shape, self.num_scales)
        return Chain([*self._prior(shape), self._steps(shape)])

    def _scale(self, shape: Sequence[int], num_scales: int) -> FlowTransform:
        """Return one scale of images, and in it the scales after it."""
        channels, height, width = shape
        squeezed = 4 * channels, height // 2, width // 2
        if num_scales == 1:
            rest = self._prior(squeezed)
        else:
            later = self._scale((2 * channels, *squeezed[1:]), num_scales - 1)
            net = GlowNet(2 * channels, 4 * channels, hidden_channels=0, **self._factor)
            prior = net if self.learned_prior else None
            rest = [FactorOut(later, prior, max_amplification=self._bounds[0])]
        return OnSqueezed(Chain([*rest, self._steps(squeezed)]))

    def _prior(self, shape: Sequence[int]) -> list[FlowTransform]:
        """Return the map from a standard Gaussian to the learned prior of what is left."""
        if not self.learned_prior:
            return []
        options = {**self._factor, **self.context, "max_amplification": self._bounds[0]}
        return [ActNorm(shape[0], event_dim=len(shape), initialized=True, **options)]

    def _steps(self, shape: Sequence[int]) -> Chain:
        """Return the steps of one scale."""
        return Chain([self._step(shape) for _ in range(self.num_steps)], checkpoint=self.checkpoint)

    def _step(self, shape: Sequence[int]) -> Chain:
        """Return a step: from data to noise normalisation, 1x1 convolution, coupling."""
        rank = len(shape)
        mask = ChannelMask() if rank == 3 else HalfMask()
        linear = InvertibleLinear(shape[0], event_dim=rank, lu=self.lu)
        norm = ActNorm(shape[0], event_dim=rank, **self._factor)
        return Chain([self._coupling(mask, shape), linear, norm])

    def _coupling(self, mask: Mask, shape: Sequence[int]) -> FlowTransform:
        chosen = self.coupling
        if chosen.kind == "additive":
            return AdditiveCoupling(mask, self._net(mask, shape, 1))
        if chosen.kind == "affine":
            net, most = self._net(mask, shape, 2), self._bounds[1]
            return AffineCoupling(mask, net, scale="sigmoid", max_amplification=most)
        net = self._net(mask, shape, SplineCoupling.parameters_of(chosen.num_bins))
        return SplineCoupling(mask, net, num_bins=chosen.num_bins, bound=chosen.bound)

    def _net(self, mask: Mask, shape: Sequence[int], num_parameters: int) -> nn.Module:
        """Return the network of a coupling, zero at the start."""
        seen, changed = mask.sizes(shape)
        answers = num_parameters * changed
        options = {"dropout": self.dropout, **self.net_context}
        if len(shape) == 3:
            return GlowNet(seen, answers, hidden_channels=self.width, **self._factor, **options)
        hidden = [self.width, self.width]
        return vector_net(seen, answers, hidden=hidden, zero_init=True, **options)

    @property
    def _factor(self) -> dict[str, Any]:
        return {"log_scale_factor": self.coupling.log_scale_factor}

    @property
    def _bounds(self) -> tuple[float | None, float | None]:
        return self.coupling.bounds(self.num_steps * self.num_scales)


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
