"""."""

from pyro_genmodels.nets.context import ContextEmbedding
from pyro_genmodels.nets.dense import MLP
from pyro_genmodels.nets.vae import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

__all__ = [
    "MLP",
    "ContextEmbedding",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
]
