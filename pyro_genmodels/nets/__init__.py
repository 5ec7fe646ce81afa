"""Plain networks, without Pyro: they take any leading dimensions and an optional context."""

from pyro_genmodels.nets._autoregressive import AutoregressiveNet
from pyro_genmodels.nets._quantizer import Quantized, Quantizer, code_perplexity
from pyro_genmodels.nets.code_conditioner import CodeConditioner
from pyro_genmodels.nets.code_hierarchy import CodeHierarchyNet
from pyro_genmodels.nets.composite_quantizer import (
    MultiHeadQuantizer,
    ProductQuantizer,
    ResidualQuantizer,
)
from pyro_genmodels.nets.context import ContextEmbedding
from pyro_genmodels.nets.conv import ConvNet, ResNet
from pyro_genmodels.nets.conv_vae import ConvDecoder, ConvEncoder
from pyro_genmodels.nets.dense import MLP
from pyro_genmodels.nets.gated_pixelcnn import GatedPixelCNNNet
from pyro_genmodels.nets.glow import GlowNet
from pyro_genmodels.nets.made import MADENet
from pyro_genmodels.nets.masked import MaskedConv2d
from pyro_genmodels.nets.multiscale import MultiScaleNet
from pyro_genmodels.nets.ngram import NGramNet
from pyro_genmodels.nets.patch import PatchDecoder, PatchEncoder
from pyro_genmodels.nets.pixelcnn import PixelCNNNet
from pyro_genmodels.nets.pixelcnn_pp import PixelCNNPlusPlusNet
from pyro_genmodels.nets.pixelrnn import PixelRNNNet
from pyro_genmodels.nets.pixelsnail import PixelSNAILNet
from pyro_genmodels.nets.quantizer import VectorQuantizer
from pyro_genmodels.nets.realnvp import RealNVPNet
from pyro_genmodels.nets.recurrent import CharRNNNet
from pyro_genmodels.nets.sequence_vqvae import SequenceDecoder, SequenceEncoder
from pyro_genmodels.nets.vae import MLPDecoder, MLPEncoder
from pyro_genmodels.nets.vqvae import MapDecoder, MapEncoder
from pyro_genmodels.nets.wavenet import WaveNetNet

__all__ = [
    "MLP",
    "AutoregressiveNet",
    "CharRNNNet",
    "CodeConditioner",
    "CodeHierarchyNet",
    "ContextEmbedding",
    "ConvDecoder",
    "ConvEncoder",
    "ConvNet",
    "GatedPixelCNNNet",
    "GlowNet",
    "MADENet",
    "MLPDecoder",
    "MLPEncoder",
    "MapDecoder",
    "MapEncoder",
    "MaskedConv2d",
    "MultiHeadQuantizer",
    "MultiScaleNet",
    "NGramNet",
    "PatchDecoder",
    "PatchEncoder",
    "PixelCNNNet",
    "PixelCNNPlusPlusNet",
    "PixelRNNNet",
    "PixelSNAILNet",
    "ProductQuantizer",
    "Quantized",
    "Quantizer",
    "RealNVPNet",
    "ResNet",
    "ResidualQuantizer",
    "SequenceDecoder",
    "SequenceEncoder",
    "VectorQuantizer",
    "WaveNetNet",
    "code_perplexity",
]
