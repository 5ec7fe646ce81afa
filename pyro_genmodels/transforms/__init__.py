"""Flows as Pyro ``TransformModule``s: forward goes from noise to data."""

from pyro_genmodels.transforms.base.chain import Chain
from pyro_genmodels.transforms.base.conditional import ConditionalFlow
from pyro_genmodels.transforms.base.flow_transform import FlowTransform, Inverse
from pyro_genmodels.transforms.couplings.base import Coupling
from pyro_genmodels.transforms.couplings.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    additive_coupling,
    affine_coupling,
    conditional_additive_coupling,
    conditional_affine_coupling,
)
from pyro_genmodels.transforms.couplings.masks import (
    AlternatingMask,
    ChannelMask,
    Checkerboard,
    HalfMask,
)
from pyro_genmodels.transforms.couplings.spline import (
    SplineCoupling,
    conditional_spline_coupling,
    spline_coupling,
)
from pyro_genmodels.transforms.flows.glow import ConditionalGlow, Glow, conditional_glow, glow
from pyro_genmodels.transforms.flows.glow_coupling import GlowCoupling
from pyro_genmodels.transforms.flows.multiscale import FactorOut
from pyro_genmodels.transforms.flows.neural_spline_flow import (
    ConditionalNeuralSplineFlow,
    NeuralSplineFlow,
    Splines,
    conditional_neural_spline_flow,
    neural_spline_flow,
)
from pyro_genmodels.transforms.flows.nice import NICE, ConditionalNICE, conditional_nice, nice
from pyro_genmodels.transforms.flows.realnvp import (
    ConditionalRealNVP,
    RealNVP,
    conditional_real_nvp,
    real_nvp,
)
from pyro_genmodels.transforms.interop.nflows import NFlowsTransform
from pyro_genmodels.transforms.layers.act_norm import ActNorm, act_norm, conditional_act_norm
from pyro_genmodels.transforms.layers.batch_norm import BatchNorm, batch_norm
from pyro_genmodels.transforms.layers.dequantize import Dequantize
from pyro_genmodels.transforms.layers.elementary import DiagonalScale, Permute, Reverse, permute
from pyro_genmodels.transforms.layers.invertible_linear import (
    InvertibleLinear,
    conditional_invertible_linear,
    invertible_linear,
)
from pyro_genmodels.transforms.layers.logit import Logit
from pyro_genmodels.transforms.layers.masked_autoregressive import (
    MaskedAutoregressive,
    conditional_masked_autoregressive,
    masked_autoregressive,
)
from pyro_genmodels.transforms.layers.squeeze import Squeeze

__all__ = [
    "NICE",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AlternatingMask",
    "BatchNorm",
    "Chain",
    "ChannelMask",
    "Checkerboard",
    "ConditionalFlow",
    "ConditionalGlow",
    "ConditionalNICE",
    "ConditionalNeuralSplineFlow",
    "ConditionalRealNVP",
    "Coupling",
    "Dequantize",
    "DiagonalScale",
    "FactorOut",
    "FlowTransform",
    "Glow",
    "GlowCoupling",
    "HalfMask",
    "Inverse",
    "InvertibleLinear",
    "Logit",
    "MaskedAutoregressive",
    "NFlowsTransform",
    "NeuralSplineFlow",
    "Permute",
    "RealNVP",
    "Reverse",
    "SplineCoupling",
    "Splines",
    "Squeeze",
    "act_norm",
    "additive_coupling",
    "affine_coupling",
    "batch_norm",
    "conditional_act_norm",
    "conditional_additive_coupling",
    "conditional_affine_coupling",
    "conditional_glow",
    "conditional_invertible_linear",
    "conditional_masked_autoregressive",
    "conditional_neural_spline_flow",
    "conditional_nice",
    "conditional_real_nvp",
    "conditional_spline_coupling",
    "glow",
    "invertible_linear",
    "masked_autoregressive",
    "neural_spline_flow",
    "nice",
    "permute",
    "real_nvp",
    "spline_coupling",
]
