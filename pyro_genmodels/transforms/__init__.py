"""Flows as Pyro ``TransformModule``s: forward goes from noise to data."""

from pyro_genmodels.transforms._base import FlowTransform
from pyro_genmodels.transforms._coupling import Coupling
from pyro_genmodels.transforms.act_norm import ActNorm, act_norm, conditional_act_norm
from pyro_genmodels.transforms.batch_norm import BatchNorm, batch_norm
from pyro_genmodels.transforms.chain import Chain
from pyro_genmodels.transforms.conditional import ConditionalFlow
from pyro_genmodels.transforms.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    additive_coupling,
    affine_coupling,
    conditional_additive_coupling,
    conditional_affine_coupling,
)
from pyro_genmodels.transforms.dequantize import Dequantize
from pyro_genmodels.transforms.elementary import DiagonalScale, Permute, Reverse, permute
from pyro_genmodels.transforms.glow import ConditionalGlow, Glow, conditional_glow, glow
from pyro_genmodels.transforms.invertible_linear import (
    InvertibleLinear,
    conditional_invertible_linear,
    invertible_linear,
)
from pyro_genmodels.transforms.logit import Logit
from pyro_genmodels.transforms.masked_autoregressive import (
    MaskedAutoregressive,
    conditional_masked_autoregressive,
    masked_autoregressive,
)
from pyro_genmodels.transforms.masks import AlternatingMask, ChannelMask, Checkerboard, HalfMask
from pyro_genmodels.transforms.multiscale import FactorOut
from pyro_genmodels.transforms.neural_spline_flow import (
    ConditionalNeuralSplineFlow,
    NeuralSplineFlow,
    conditional_neural_spline_flow,
    neural_spline_flow,
)
from pyro_genmodels.transforms.nflows import NFlowsTransform
from pyro_genmodels.transforms.nice import NICE, ConditionalNICE, conditional_nice, nice
from pyro_genmodels.transforms.realnvp import (
    ConditionalRealNVP,
    RealNVP,
    conditional_real_nvp,
    real_nvp,
)
from pyro_genmodels.transforms.spline import (
    SplineCoupling,
    conditional_spline_coupling,
    spline_coupling,
)
from pyro_genmodels.transforms.squeeze import Squeeze

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
    "HalfMask",
    "InvertibleLinear",
    "Logit",
    "MaskedAutoregressive",
    "NFlowsTransform",
    "NeuralSplineFlow",
    "Permute",
    "RealNVP",
    "Reverse",
    "SplineCoupling",
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
