"""Plain networks, without Pyro: they take any leading dimensions and an optional context."""

from pyro_genmodels.nets.autoencoders.conv import ConvDecoder, ConvEncoder
from pyro_genmodels.nets.autoencoders.maps import MapDecoder, MapEncoder
from pyro_genmodels.nets.autoencoders.mlp import MLPDecoder, MLPEncoder
from pyro_genmodels.nets.autoencoders.patches import PatchDecoder, PatchEncoder
from pyro_genmodels.nets.autoencoders.sequences import SequenceDecoder, SequenceEncoder
from pyro_genmodels.nets.autoregressive.base import AutoregressiveNet
from pyro_genmodels.nets.autoregressive.multiscale import MultiScaleNet
from pyro_genmodels.nets.code_priors.code_conditioner import CodeConditioner
from pyro_genmodels.nets.code_priors.code_hierarchy import CodeHierarchyNet
from pyro_genmodels.nets.couplings.glow import GlowNet
from pyro_genmodels.nets.couplings.realnvp import RealNVPNet
from pyro_genmodels.nets.denoisers.base import Denoiser
from pyro_genmodels.nets.denoisers.dense_denoiser import DenseDenoiser
from pyro_genmodels.nets.denoisers.unet import SequenceUNet, UNet
from pyro_genmodels.nets.gated_pixelcnn.gated_pixelcnn import GatedPixelCNNNet
from pyro_genmodels.nets.gated_pixelcnn.pixelsnail import PixelSNAILNet
from pyro_genmodels.nets.layers.context import ContextEmbedding, join_context, split_context
from pyro_genmodels.nets.layers.conv import ConvNet, ResNet
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d
from pyro_genmodels.nets.layers.mlp import MLP, NoInputMLP
from pyro_genmodels.nets.noise_schedules.base import NoiseSchedule
from pyro_genmodels.nets.noise_schedules.base import signal_and_noise as signal_and_noise
from pyro_genmodels.nets.noise_schedules.cosine import Cosine
from pyro_genmodels.nets.noise_schedules.linear_beta import LinearBeta
from pyro_genmodels.nets.noise_schedules.linear_log_snr import Geometric, LinearLogSNR
from pyro_genmodels.nets.pixelcnn.pixelcnn import PixelCNNNet
from pyro_genmodels.nets.pixelcnn_pp.pixelcnn_pp import PixelCNNPlusPlusNet
from pyro_genmodels.nets.pixelrnn.pixelrnn import PixelRNNNet
from pyro_genmodels.nets.scores.energy_gradient import EnergyGradient
from pyro_genmodels.nets.sequences.char_rnn import CharRNNNet
from pyro_genmodels.nets.sequences.made import MADENet
from pyro_genmodels.nets.sequences.ngram import NGramNet
from pyro_genmodels.nets.sequences.wavenet import WaveNetNet
from pyro_genmodels.nets.vector_quantization.base import Quantized, Quantizer, code_perplexity
from pyro_genmodels.nets.vector_quantization.composite import (
    MultiHeadQuantizer,
    ProductQuantizer,
    ResidualQuantizer,
)
from pyro_genmodels.nets.vector_quantization.vector import VectorQuantizer

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
    "Cosine",
    "Denoiser",
    "DenseDenoiser",
    "EnergyGradient",
    "GatedPixelCNNNet",
    "Geometric",
    "GlowNet",
    "LinearBeta",
    "LinearLogSNR",
    "MADENet",
    "MLPDecoder",
    "MLPEncoder",
    "MapDecoder",
    "MapEncoder",
    "MaskedConv2d",
    "MultiHeadQuantizer",
    "MultiScaleNet",
    "NGramNet",
    "NoInputMLP",
    "NoiseSchedule",
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
    "SequenceUNet",
    "UNet",
    "VectorQuantizer",
    "WaveNetNet",
    "code_perplexity",
    "join_context",
    "split_context",
]
