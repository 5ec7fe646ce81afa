"""Small flows for the contract tests, moved away from their initial values."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_genmodels import nets, transforms
from pyro_genmodels.transforms import FlowTransform


def small_glow(
    shape: int | tuple[int, ...], coupling: str = "affine", **options: object
) -> transforms.Glow:
    """A Glow of two steps that stays well conditioned at random parameters.

    Not so with its priors, whose scales are exponentials; tests/cases has those.
    """
    fixed = {"num_steps": 2, "width": 8, "learned_prior": False}
    slow = transforms.GlowCoupling(coupling, log_scale_factor=1.0)
    return transforms.Glow(shape, coupling=slow, **(fixed | options))


FLOWS: dict[str, tuple[tuple[int, ...], Callable[[], FlowTransform]]] = {
    "additive checkerboard 1x3x5": (
        (1, 3, 5),
        lambda: transforms.AdditiveCoupling(transforms.Checkerboard(), nets.ConvNet(1, 1)),
    ),
    "affine channels 3x2x3": (
        (3, 2, 3),
        lambda: transforms.AffineCoupling(
            transforms.ChannelMask(inverted=True), nets.ResNet(2, 2, hidden_channels=8)
        ),
    ),
    "affine channels 2x2x2": (
        (2, 2, 2),
        lambda: transforms.AffineCoupling(transforms.ChannelMask(), nets.ConvNet(1, 2)),
    ),
    "affine half 5": (
        (5,),
        lambda: transforms.AffineCoupling(transforms.HalfMask(), nets.MLP(2, 6, hidden=(8,))),
    ),
    "affine alternating 2": (
        (2,),
        lambda: transforms.AffineCoupling(
            transforms.AlternatingMask(inverted=True), nets.MLP(1, 2, hidden=(8,))
        ),
    ),
    "spline half 3": (
        (3,),
        lambda: transforms.spline_coupling(3, hidden=(8,), num_bins=4),
    ),
    "act_norm 3": ((3,), lambda: transforms.act_norm(3)),
    "linear 3x2x2": ((3, 2, 2), lambda: transforms.InvertibleLinear(3)),
    "squeeze": ((2, 4, 2), lambda: transforms.Squeeze()),
    "squeeze alternating": ((2, 2, 4), lambda: transforms.Squeeze(alternating=True)),
    "logit": ((4,), lambda: transforms.Logit(1)),
    "chain": (
        (3,),
        lambda: transforms.Chain(
            [transforms.RealNVP(3, width=8, num_couplings=2), transforms.Logit(1)]
        ),
    ),
    "real_nvp 2": ((2,), lambda: transforms.RealNVP(2, width=8)),
    "real_nvp 5": ((5,), lambda: transforms.RealNVP(5, width=8)),
    "real_nvp 1x4x4": ((1, 4, 4), lambda: transforms.RealNVP((1, 4, 4), width=4)),
    "real_nvp 1x8x8 3 scales": (
        (1, 8, 8),
        lambda: transforms.RealNVP((1, 8, 8), width=2, num_scales=3, num_couplings=2),
    ),
    "real_nvp 3x5x3 logit": (
        (3, 5, 3),
        lambda: transforms.RealNVP((3, 5, 3), width=4, logit_margin=0.05),
    ),
    "real_nvp 2x4x6": ((2, 4, 6), lambda: transforms.RealNVP((2, 4, 6), width=4)),
    "real_nvp 1x4x4 batch norm": (
        (1, 4, 4),
        lambda: transforms.RealNVP((1, 4, 4), width=4, num_couplings=1, batch_norm=True),
    ),
    "nice 1x2x3": ((1, 2, 3), lambda: transforms.NICE((1, 2, 3), width=8, num_layers=1)),
    "glow 4": ((4,), lambda: small_glow(4)),
    "glow 1x4x4": ((1, 4, 4), lambda: small_glow((1, 4, 4))),
    "glow 1x2x2 spline": (
        (1, 2, 2),
        lambda: small_glow((1, 2, 2), coupling="spline", lu=False, num_steps=1),
    ),
}

CONTEXTS: dict[str, tuple[dict[str, object], Callable[[tuple[int, ...]], Tensor]]] = {
    "labels": ({"num_classes": 4}, lambda batch: torch.randint(4, batch)),
    "vector": ({"context_shape": (3,)}, lambda batch: torch.randn(*batch, 3)),
    "map": ({"context_shape": (2, 4, 4)}, lambda batch: torch.randn(*batch, 2, 4, 4)),
}


def randomized(module: nn.Module) -> nn.Module:
    """Move every parameter: initial values hide mistakes (zero-initialised nets do nothing)."""
    for name, parameter in module.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        # These learn three times as fast as others: so many layers of them would overflow.
        std = 0.1 if name.endswith("log_scale") else fan_in**-0.5
        nn.init.normal_(parameter, std=std)
    return module.eval()


def make(name: str, dtype: torch.dtype = torch.float64) -> tuple[FlowTransform, Tensor]:
    """Return a randomised flow and noise of batch shape (2, 3)."""
    shape, factory = FLOWS[name]
    return randomized(factory()).to(dtype), torch.randn(2, 3, *shape, dtype=dtype)


def flow_distribution(flow, shape, dtype=torch.float32) -> dist.TransformedDistribution:
    noise = dist.Normal(torch.zeros(shape, dtype=dtype), 1.0).to_event(len(shape))
    return dist.TransformedDistribution(noise, [flow])


class Count:
    """Counts the evaluations of every network of a flow."""

    def __init__(self, module: nn.Module) -> None:
        self.calls = 0
        kinds = (nets.MLP, nets.ConvNet, nets.ResNet, nets.GlowNet, nets.RealNVPNet)
        self.networks = [m for m in module.modules() if isinstance(m, kinds)]
        for network in self.networks:
            network.register_forward_hook(self._note)

    def _note(self, *_: object) -> None:
        self.calls += 1

    def passes(self) -> float:
        """Return the number of passes through all networks since the last call."""
        calls, self.calls = self.calls, 0
        return calls / len(self.networks)
