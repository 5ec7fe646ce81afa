"""Transforms, with and without a context."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels import nets, transforms
from tests.cases.case import LABELS, Case, Cases, features


def coupling(kind: str, mask: Any, *shape: int, **options: Any) -> Case:
    """A coupling with a small smooth network."""
    make = getattr(transforms, f"{kind}_coupling")
    options = {"mask": mask, "hidden": (5,), "activation": "tanh"} | options
    return Case(make(shape, **options), shape)


def affine(mask: Any, *shape: int, **options: Any) -> Case:
    """A RealNVP layer."""
    return coupling("affine", mask, *shape, **options)


def real_nvp(*shape: int, **options: Any) -> Case:
    """A small RealNVP."""
    options = {"width": 4, "num_couplings": 2, "num_blocks": 1, "activation": "tanh"} | options
    return Case(transforms.RealNVP(shape, **options), shape)


def conditional_real_nvp(*shape: int, context: Tensor = LABELS, **options: Any) -> Case:
    """A small conditional RealNVP and a batch of two contexts."""
    options = {"width": 4, "num_couplings": 2, "num_blocks": 1, "activation": "tanh"} | options
    return Case(transforms.ConditionalRealNVP(shape, **options), shape, context)


def batch_norm(num_features: int, **options: Any) -> nn.Module:
    """A batch norm that has seen data."""
    layer = transforms.BatchNorm(num_features, **options)
    layer.running_mean.copy_(torch.linspace(-1, 1, num_features))
    layer.running_var.copy_(torch.linspace(0.5, 2, num_features))
    return layer


def nice(*shape: int, **options: Any) -> dict[str, Any]:
    """Arguments of a small NICE."""
    return {"event_shape": shape, "width": 4, "num_layers": 1, "activation": "tanh"} | options


def spline_flow(*shape: int, **options: Any) -> dict[str, Any]:
    """Arguments of a small neural spline flow."""
    options = {"width": 4, "num_blocks": 1, "activation": "tanh"} | options
    splines = transforms.Splines(options.pop("domain", "real"), num_bins=4)
    return {"event_shape": shape, "num_couplings": 2, "splines": splines, **options}


def glow(*shape: int, **options: Any) -> dict[str, Any]:
    """Arguments of a small Glow."""
    return {"event_shape": shape, "num_steps": 2, "width": 4} | options


class ScaledFeatures(nn.Module):
    """A transform with nflows' two methods, for where nflows is not installed."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(features))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs * self.log_scale.exp(), self.log_scale.sum().expand(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(inputs))


def of_nflows(module: str, name: str, *arguments: Any, **options: Any) -> nn.Module:
    """A transform of nflows."""
    transform: nn.Module = getattr(importlib.import_module(f"nflows.{module}"), name)(
        *arguments, **options
    )
    return transform


def nflows_net(context: int | None = None) -> Callable[[int, int], nn.Module]:
    """What nflows' couplings of vectors make their networks with."""
    options = {"hidden_features": 5, "num_blocks": 1, "activation": torch.tanh}
    return lambda inputs, outputs: of_nflows(
        "nn.nets", "ResidualNet", inputs, outputs, context_features=context, **options
    )


def nflows_conv_net(inputs: int, outputs: int) -> nn.Module:
    """The same for images."""
    options = {"num_blocks": 1, "activation": torch.tanh}
    return of_nflows("nn.nets", "ConvResidualNet", inputs, outputs, 4, **options)


NFLOWS: Cases = {
    "NFlowsTransform/coupling": lambda: Case(
        transforms.NFlowsTransform(
            of_nflows("transforms", "AffineCouplingTransform", [0, 1, 0, 1], nflows_net())
        ),
        (4,),
    ),
    "NFlowsTransform/image": lambda: Case(
        transforms.NFlowsTransform(
            of_nflows("transforms", "AffineCouplingTransform", [1, 0, 1], nflows_conv_net),
            event_dim=3,
        ),
        (3, 2, 3),
    ),
}


CONDITIONAL_NFLOWS: Cases = {
    "ConditionalFlow/nflows": lambda: Case(
        transforms.ConditionalFlow(
            transforms.NFlowsTransform(
                of_nflows("transforms", "AffineCouplingTransform", [0, 1, 0], nflows_net(2)),
                context_shape=(2,),
            )
        ),
        (3,),
        features(2),
    ),
}


TRANSFORMS: Cases = {
    "ActNorm": lambda: Case(transforms.ActNorm(3, initialized=True), (3, 2, 3)),
    "ActNorm/vector": lambda: Case(transforms.ActNorm(3, event_dim=1), (3,)),
    "AdditiveCoupling": lambda: coupling("additive", transforms.Checkerboard(), 2, 3, 4),
    "AdditiveCoupling/vector": lambda: coupling("additive", transforms.HalfMask(), 5),
    "AdditiveCoupling/one-element": lambda: coupling("additive", transforms.AlternatingMask(), 1),
    "AffineCoupling/alternating": lambda: affine(transforms.AlternatingMask(), 5),
    "AffineCoupling/alternating-inverted": lambda: affine(
        transforms.AlternatingMask(inverted=True), 5
    ),
    "AffineCoupling/channels": lambda: affine(transforms.ChannelMask(), 3, 2, 3),
    "AffineCoupling/channels-inverted": lambda: affine(
        transforms.ChannelMask(inverted=True), 3, 2, 3
    ),
    "AffineCoupling/checkerboard": lambda: affine(transforms.Checkerboard(), 1, 3, 5),
    "AffineCoupling/checkerboard-inverted": lambda: affine(
        transforms.Checkerboard(inverted=True), 2, 3, 3
    ),
    "AffineCoupling/half": lambda: affine(transforms.HalfMask(), 5),
    "AffineCoupling/half-inverted": lambda: affine(transforms.HalfMask(inverted=True), 4),
    "AffineCoupling/one-element": lambda: affine(transforms.HalfMask(inverted=True), 1),
    "AffineCoupling/one-row": lambda: affine(transforms.Checkerboard(), 2, 1, 3, scale="sigmoid"),
    "AffineCoupling/two-elements": lambda: affine(transforms.HalfMask(), 2, scale="exp"),
    "BatchNorm": lambda: Case(batch_norm(3, event_dim=3), (3, 2, 3)),
    "BatchNorm/vector": lambda: Case(batch_norm(3, event_dim=1), (3,)),
    "Chain": lambda: Case(
        transforms.Chain(
            [affine(transforms.HalfMask(), 5).part, affine(transforms.AlternatingMask(), 5).part]
        ),
        (5,),
    ),
    "Chain/squeezed": lambda: Case(
        transforms.Chain([transforms.Squeeze(), affine(transforms.ChannelMask(), 8, 2, 1).part]),
        (2, 4, 2),
    ),
    "Chain/checkpoint": lambda: Case(
        transforms.Chain(
            [affine(transforms.HalfMask(), 3).part, affine(transforms.HalfMask(), 3).part],
            checkpoint=True,
        ),
        (3,),
    ),
    "DiagonalScale": lambda: Case(transforms.DiagonalScale((2, 2, 3)), (2, 2, 3)),
    "FactorOut": lambda: Case(
        transforms.FactorOut(
            affine(transforms.Checkerboard(), 1, 3, 2).part, nets.ConvNet(1, 4, hidden=(4,))
        ),
        (3, 3, 2),
    ),
    "FactorOut/no-prior": lambda: Case(
        transforms.FactorOut(transforms.InvertibleLinear(2)), (4, 1, 3)
    ),
    "Glow": lambda: Case(transforms.Glow(**glow(1, 4, 4, num_scales=2)), (1, 4, 4)),
    "Glow/additive": lambda: Case(
        transforms.Glow(**glow(2, 2, 6, coupling="additive", lu=False)), (2, 2, 6)
    ),
    "Glow/checkpoint": lambda: Case(transforms.Glow(**glow(3, 2, 2, checkpoint=True)), (3, 2, 2)),
    "Glow/one-element": lambda: Case(transforms.Glow(**glow(1)), (1,)),
    "Glow/spline": lambda: Case(
        transforms.Glow(**glow(1, 4, 2, coupling="spline", learned_prior=False)), (1, 4, 2)
    ),
    "Glow/vector": lambda: Case(transforms.Glow(**glow(5)), (5,)),
    "Inverse": lambda: Case(affine(transforms.AlternatingMask(), 5).part.inv, (5,)),
    "Inverse/image": lambda: Case(
        transforms.Inverse(affine(transforms.ChannelMask(), 3, 2, 3).part), (3, 2, 3)
    ),
    "Inverse/masked-autoregressive": lambda: Case(
        transforms.MaskedAutoregressive(4, hidden=(6,)).inv, (4,)
    ),
    "InvertibleLinear": lambda: Case(transforms.InvertibleLinear(3), (3, 2, 3)),
    "InvertibleLinear/one-element": lambda: Case(transforms.InvertibleLinear(1, event_dim=1), (1,)),
    "InvertibleLinear/plain": lambda: Case(transforms.InvertibleLinear(3, lu=False), (3, 2, 3)),
    "InvertibleLinear/plain-vector": lambda: Case(
        transforms.InvertibleLinear(4, event_dim=1, lu=False), (4,)
    ),
    "InvertibleLinear/vector": lambda: Case(transforms.InvertibleLinear(4, event_dim=1), (4,)),
    "Logit": lambda: Case(transforms.Logit(1), (4,)),
    "Logit/image": lambda: Case(transforms.Logit(3, margin=0.0), (2, 2, 3)),
    "NFlowsTransform": lambda: Case(transforms.NFlowsTransform(ScaledFeatures(3)), (3,)),
    "MaskedAutoregressive": lambda: Case(transforms.MaskedAutoregressive(4, hidden=(6,)), (4,)),
    "MaskedAutoregressive/one-element": lambda: Case(
        transforms.MaskedAutoregressive(1, hidden=(3,)), (1,)
    ),
    "NICE": lambda: Case(transforms.NICE(**nice(5)), (5,)),
    "NICE/image": lambda: Case(transforms.NICE(**nice(1, 3, 3)), (1, 3, 3)),
    "NICE/one-element": lambda: Case(transforms.NICE(**nice(1)), (1,)),
    "NeuralSplineFlow": lambda: Case(
        transforms.NeuralSplineFlow(**spline_flow(1, 4, 4)), (1, 4, 4)
    ),
    "NeuralSplineFlow/linear": lambda: Case(
        transforms.NeuralSplineFlow(**spline_flow(5, linear=True)), (5,)
    ),
    "NeuralSplineFlow/odd-image": lambda: Case(
        transforms.NeuralSplineFlow(**spline_flow(2, 3, 3)), (2, 3, 3)
    ),
    "NeuralSplineFlow/one-element": lambda: Case(
        transforms.NeuralSplineFlow(**spline_flow(1, linear=True)), (1,)
    ),
    "NeuralSplineFlow/one-element-unit": lambda: Case(
        transforms.NeuralSplineFlow(**spline_flow(1, domain="unit")), (1,)
    ),
    "NeuralSplineFlow/unit": lambda: Case(
        transforms.NeuralSplineFlow(**spline_flow(4, domain="unit")), (4,)
    ),
    "Permute": lambda: Case(transforms.Permute([2, 0, 3, 1]), (4, 2, 2)),
    "Permute/vector": lambda: Case(transforms.Permute([2, 0, 1], event_dim=1), (3,)),
    "RealNVP": lambda: real_nvp(5, num_couplings=4),
    "RealNVP/batch-norm": lambda: real_nvp(1, 4, 4, batch_norm=True, activation="relu"),
    "RealNVP/batch-norm-vector": lambda: real_nvp(4, batch_norm=True),
    "RealNVP/checkpoint": lambda: real_nvp(1, 4, 4, checkpoint=True),
    "RealNVP/image": lambda: real_nvp(1, 4, 4),
    "RealNVP/image-into-unit-interval": lambda: real_nvp(1, 2, 2, logit_margin=0.05),
    "RealNVP/odd-image": lambda: real_nvp(3, 3, 5),
    "RealNVP/one-element": lambda: real_nvp(1, batch_norm=True),
    "RealNVP/plane": lambda: real_nvp(2, num_couplings=4),
    "RealNVP/three-scales": lambda: real_nvp(1, 8, 4, num_scales=3, num_couplings=1),
    "Reverse": lambda: Case(transforms.Reverse(), (3, 2, 2)),
    "Reverse/vector": lambda: Case(transforms.Reverse(1), (3,)),
    "SplineCoupling": lambda: coupling("spline", transforms.HalfMask(), 5, num_bins=4),
    "SplineCoupling/alternating": lambda: coupling("spline", transforms.AlternatingMask(), 4),
    "SplineCoupling/channels": lambda: coupling("spline", transforms.ChannelMask(), 3, 2, 3),
    "SplineCoupling/one-element": lambda: coupling("spline", transforms.HalfMask(), 1, num_bins=4),
    "SplineCoupling/checkerboard": lambda: coupling("spline", transforms.Checkerboard(), 1, 3, 5),
    "Squeeze": lambda: Case(transforms.Squeeze(), (2, 4, 2)),
    "Squeeze/alternating": lambda: Case(transforms.Squeeze(alternating=True), (3, 2, 4)),
}


def conditional(flow: Any, shape: tuple[int, ...], context: Tensor = LABELS) -> Case:
    """A flow that waits for its context, and a batch of two."""
    return Case(transforms.ConditionalFlow(flow), shape, context)


CONDITIONAL_TRANSFORMS: Cases = {
    "ConditionalFlow/act-norm": lambda: conditional(
        transforms.ActNorm(3, num_classes=3), (3, 2, 2)
    ),
    "ConditionalFlow/act-norm-by-map": lambda: conditional(
        transforms.ActNorm(2, context_shape=(1, 2, 3)), (2, 2, 3), features(1, 2, 3)
    ),
    "ConditionalFlow/factor-out": lambda: conditional(
        transforms.FactorOut(
            transforms.Permute([1, 0]), nets.ConvNet(2, 4, hidden=(4,), num_classes=3)
        ),
        (4, 2, 2),
    ),
    "ConditionalFlow/inverse": lambda: conditional(
        affine(transforms.HalfMask(), 4, num_classes=3).part.inv, (4,)
    ),
    "ConditionalFlow/linear": lambda: conditional(
        transforms.InvertibleLinear(3, event_dim=1, num_classes=3), (3,)
    ),
    "ConditionalFlow/linear-image": lambda: conditional(
        transforms.InvertibleLinear(2, lu=False, context_shape=(2,)), (2, 1, 3), features(2)
    ),
    "ConditionalFlow/masked-autoregressive": lambda: conditional(
        transforms.MaskedAutoregressive(3, hidden=(6,), num_classes=3), (3,)
    ),
    "ConditionalFlow/masked-autoregressive-by-vector": lambda: conditional(
        transforms.MaskedAutoregressive(3, hidden=(6, 5), context_shape=(2,)), (3,), features(2)
    ),
    "ConditionalFlow/spline": lambda: conditional(
        coupling("spline", transforms.HalfMask(), 4, num_classes=3).part, (4,)
    ),
    "ConditionalFlow/one-element-by-vector": lambda: conditional(
        coupling("spline", transforms.AlternatingMask(), 1, context_shape=(2,)).part,
        (1,),
        features(2),
    ),
    "ConditionalGlow": lambda: Case(
        transforms.ConditionalGlow(
            **glow(1, 4, 4, num_scales=2, num_classes=3),
            coupling=transforms.GlowCoupling(log_scale_factor=1),
        ),
        (1, 4, 4),
        LABELS,
    ),
    "ConditionalGlow/map": lambda: Case(
        transforms.ConditionalGlow(**glow(1, 2, 4, context_shape=(2, 2, 4))),
        (1, 2, 4),
        features(2, 2, 4),
    ),
    "ConditionalGlow/prior": lambda: Case(
        transforms.ConditionalGlow(**glow(3, num_classes=3, condition="prior")), (3,), LABELS
    ),
    "ConditionalNeuralSplineFlow": lambda: Case(
        transforms.ConditionalNeuralSplineFlow(**spline_flow(3, num_classes=3)), (3,), LABELS
    ),
    "ConditionalNICE/one-element": lambda: Case(
        transforms.ConditionalNICE(**nice(1, context_shape=(1, 2, 2))), (1,), features(1, 2, 2)
    ),
    "ConditionalNICE": lambda: Case(
        transforms.ConditionalNICE(**nice(1, 2, 2, context_shape=(2,))), (1, 2, 2), features(2)
    ),
    "ConditionalFlow": lambda: Case(
        transforms.ConditionalFlow(affine(transforms.HalfMask(), 4, num_classes=3).part),
        (4,),
        LABELS,
    ),
    "ConditionalRealNVP": lambda: conditional_real_nvp(3, num_classes=3),
    "ConditionalRealNVP/image-by-labels": lambda: conditional_real_nvp(2, 4, 2, num_classes=3),
    "ConditionalRealNVP/image-by-map": lambda: conditional_real_nvp(
        1, 4, 4, context_shape=(2, 4, 4), context=features(2, 4, 4)
    ),
    "ConditionalRealNVP/image-by-vector": lambda: conditional_real_nvp(
        2, 2, 2, context_shape=(3,), context=features(3)
    ),
    "ConditionalRealNVP/one-element": lambda: conditional_real_nvp(1, num_classes=3),
    "ConditionalRealNVP/vector-by-vector": lambda: conditional_real_nvp(
        3, context_shape=(2,), context=features(2)
    ),
}


if importlib.util.find_spec("nflows"):
    TRANSFORMS |= NFLOWS
    CONDITIONAL_TRANSFORMS |= CONDITIONAL_NFLOWS


CONDITIONAL_TRANSFORMS |= {
    "ConditionalFlow/dequantize": lambda: conditional(
        transforms.Dequantize((2,)), (2,), torch.tensor([[0.0, 3.0], [7.0, 16.0]])
    ),
    "ConditionalFlow/dequantize-image": lambda: conditional(
        transforms.Dequantize((1, 2, 3)), (1, 2, 3), torch.arange(12.0).reshape(2, 1, 2, 3)
    ),
}
