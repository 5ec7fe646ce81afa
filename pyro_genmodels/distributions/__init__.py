"""Autoregressive and discrete distributions over images, as Pyro ``TorchDistribution``s."""

from pyro_genmodels.distributions.ar1 import AR1Normal
from pyro_genmodels.distributions.autoregressive.base import AutoregressiveDistribution
from pyro_genmodels.distributions.autoregressive.codes import HierarchicalVQPrior, VQPrior
from pyro_genmodels.distributions.autoregressive.images import (
    GatedPixelCNN,
    MultiScalePixelRNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelRNN,
    PixelSNAIL,
)
from pyro_genmodels.distributions.autoregressive.sequences import MADE, CharRNN, NGram, WaveNet
from pyro_genmodels.distributions.dequantization import UniformDequantization
from pyro_genmodels.distributions.diffusion.forward import ForwardDiffusion
from pyro_genmodels.distributions.diffusion.ratio import draw_log_ratio as draw_log_ratio
from pyro_genmodels.distributions.diffusion.reverse import Denoised as Denoised
from pyro_genmodels.distributions.diffusion.reverse import ReverseDiffusion
from pyro_genmodels.distributions.diffusion.steps import VARIANCES as VARIANCES
from pyro_genmodels.distributions.diffusion.steps import VarianceName as VarianceName
from pyro_genmodels.distributions.diffusion.steps import check_grid as check_grid
from pyro_genmodels.distributions.diffusion.steps import step_between as step_between
from pyro_genmodels.distributions.diffusion.steps import step_divergence as step_divergence
from pyro_genmodels.distributions.discretized_logistic import DiscretizedLogistic
from pyro_genmodels.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal, WhitenedNormal
from pyro_genmodels.distributions.gaussian import inverse_triangular as inverse_triangular
from pyro_genmodels.distributions.hidden_markov import HiddenMarkov
from pyro_genmodels.distributions.hidden_markov import draw_paths as draw_paths
from pyro_genmodels.distributions.hidden_markov import expected_counts as expected_counts
from pyro_genmodels.distributions.hidden_markov import log_partition as log_partition
from pyro_genmodels.distributions.hidden_markov import most_probable_path as most_probable_path
from pyro_genmodels.distributions.hidden_markov import posterior_marginals as posterior_marginals
from pyro_genmodels.distributions.mixtures.components import BatchedComponents, Components
from pyro_genmodels.distributions.mixtures.components import as_components as as_components
from pyro_genmodels.distributions.mixtures.mixture import ComponentOf as ComponentOf
from pyro_genmodels.distributions.mixtures.mixture import Mixture
from pyro_genmodels.distributions.mixtures.mixture import posterior_of as posterior_of
from pyro_genmodels.distributions.mixtures.mixture import summed_out as summed_out
from pyro_genmodels.distributions.mixtures.mixture import without_nan as without_nan
from pyro_genmodels.distributions.negative_binomial import (
    NegativeBinomial,
    ZeroInflatedNegativeBinomial,
)
from pyro_genmodels.distributions.observed import IndependentElements as IndependentElements
from pyro_genmodels.distributions.observed import ObservedPart
from pyro_genmodels.distributions.observed import observed_part as observed_part
from pyro_genmodels.distributions.observed import with_mask as with_mask
from pyro_genmodels.distributions.rescaled import Rescaled
from pyro_genmodels.distributions.uniform import ClosedUniform, UniformLevels

__all__ = [
    "MADE",
    "AR1Normal",
    "AutoregressiveDistribution",
    "BatchedComponents",
    "CharRNN",
    "ClosedUniform",
    "Components",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "ForwardDiffusion",
    "GatedPixelCNN",
    "HiddenMarkov",
    "HierarchicalVQPrior",
    "Mixture",
    "MultiScalePixelRNN",
    "NGram",
    "NegativeBinomial",
    "ObservedPart",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "PixelRNN",
    "PixelSNAIL",
    "Rescaled",
    "ReverseDiffusion",
    "StandardNormal",
    "UniformDequantization",
    "UniformLevels",
    "VQPrior",
    "WaveNet",
    "WhitenedNormal",
    "ZeroInflatedNegativeBinomial",
]
