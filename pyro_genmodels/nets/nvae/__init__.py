"""NVAE's towers of residual cells."""

from pyro_genmodels.nets.nvae.cells import AutoregressiveShift
from pyro_genmodels.nets.nvae.layers import BatchNorm
from pyro_genmodels.nets.nvae.regularization import BatchNormScales, SpectralNorms
from pyro_genmodels.nets.nvae.sizes import NVAENetwork
from pyro_genmodels.nets.nvae.towers import DecoderTower, EncoderTower

__all__ = [
    "AutoregressiveShift",
    "BatchNorm",
    "BatchNormScales",
    "DecoderTower",
    "EncoderTower",
    "NVAENetwork",
    "SpectralNorms",
]
