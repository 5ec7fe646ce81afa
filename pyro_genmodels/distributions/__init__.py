"""Autoregressive and discrete distributions over images, as Pyro ``TorchDistribution``s."""

from pyro_genmodels.distributions.autoregressive.base import AutoregressiveDistribution
from pyro_genmodels.distributions.autoregressive.codes import HierarchicalVQPrior, VQPrior
from pyro_genmodels.distributions.autoregressive.images import PixelCNN
from pyro_genmodels.distributions.autoregressive.sequences import MADE, CharRNN, NGram, WaveNet
from pyro_genmodels.distributions.dequantization import UniformDequantization
from pyro_genmodels.distributions.discretized_logistic import DiscretizedLogistic
from pyro_genmodels.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyro_genmodels.distributions.gated_pixelcnn import GatedPixelCNN
from pyro_genmodels.distributions.pixelcnn_pp import PixelCNNPlusPlus
from pyro_genmodels.distributions.pixelrnn import MultiScalePixelRNN, PixelRNN
from pyro_genmodels.distributions.pixelsnail import PixelSNAIL
from pyro_genmodels.distributions.uniform import UniformLevels

__all__ = [
    "MADE",
    "AutoregressiveDistribution",
    "CharRNN",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "GatedPixelCNN",
    "HierarchicalVQPrior",
    "MultiScalePixelRNN",
    "NGram",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "PixelRNN",
    "PixelSNAIL",
    "UniformDequantization",
    "UniformLevels",
    "VQPrior",
    "WaveNet",
]
