"""Encoders and decoders: multilayer, convolutional, by patches, of sequences."""

from pyro_genmodels.nets.autoencoders.conv import ConvDecoder, ConvEncoder
from pyro_genmodels.nets.autoencoders.mlp import MLPDecoder, MLPEncoder

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
]
