"""Flows as Pyro ``TransformModule``s: forward goes from noise to data."""

from pyro_genmodels.transforms._base import FlowTransform
from pyro_genmodels.transforms.chain import Chain
from pyro_genmodels.transforms.conditional import ConditionalFlow
from pyro_genmodels.transforms.coupling import AdditiveCoupling, AffineCoupling
from pyro_genmodels.transforms.logit import Logit
from pyro_genmodels.transforms.masks import AlternatingMask, ChannelMask, Checkerboard, HalfMask
from pyro_genmodels.transforms.nflows import NFlowsTransform
from pyro_genmodels.transforms.realnvp import (
    ConditionalRealNVP,
    RealNVP,
    conditional_real_nvp,
    real_nvp,
)
from pyro_genmodels.transforms.squeeze import Squeeze

__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "AlternatingMask",
    "Chain",
    "ChannelMask",
    "Checkerboard",
    "ConditionalFlow",
    "ConditionalRealNVP",
    "FlowTransform",
    "HalfMask",
    "Logit",
    "NFlowsTransform",
    "RealNVP",
    "Squeeze",
    "conditional_real_nvp",
    "real_nvp",
]
