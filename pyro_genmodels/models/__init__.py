"""Model/guide pairs: deep generative models that Pyro's inference takes as they are."""

from pyro_genmodels.models.autoregressive.autoregressive_model import AutoregressiveModel
from pyro_genmodels.models.autoregressive.builders import (
    char_rnn,
    diagonal_bilstm,
    gated_pixelcnn,
    made,
    multiscale_pixelrnn,
    ngram,
    pixelcnn,
    pixelcnn_pp,
    pixelsnail,
    row_lstm,
    wavenet,
)
from pyro_genmodels.models.autoregressive.likelihood import AutoregressiveLikelihood
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.models.base.loss import ELBOLoss, NonFiniteELBOError
from pyro_genmodels.models.base.shared_pass import SharedPass
from pyro_genmodels.models.diffusion.arguments import (
    Denoising,
    DenoisingNetwork,
    DiffusionObjective,
    LevelEncoding,
)
from pyro_genmodels.models.diffusion.builders import (
    bit_diffusion,
    ddpm,
    improved_ddpm,
    ncsn,
    vdm,
)
from pyro_genmodels.models.diffusion.diffusion_model import DiffusionModel
from pyro_genmodels.models.diffusion.samplers.ancestral import Ancestral
from pyro_genmodels.models.diffusion.samplers.annealed_langevin import AnnealedLangevin
from pyro_genmodels.models.diffusion.samplers.base import Sampler
from pyro_genmodels.models.diffusion.samplers.ddim import DDIM
from pyro_genmodels.models.diffusion.samplers.dpm_solver import DPMSolver
from pyro_genmodels.models.diffusion.samplers.guidance import ClassifierGuidance
from pyro_genmodels.models.diffusion.samplers.heun import Heun
from pyro_genmodels.models.diffusion.samplers.pndm import PNDM
from pyro_genmodels.models.em.gaussian.covariances import CollapsedComponentError
from pyro_genmodels.models.em.priors import GaussianPriors
from pyro_genmodels.models.em.result import EMResult, EMStart
from pyro_genmodels.models.flows.builders import glow, maf, nice, realnvp, spline_flow
from pyro_genmodels.models.flows.flow_model import FlowModel
from pyro_genmodels.models.gaussian.factor_analysis import FactorAnalysis
from pyro_genmodels.models.gaussian.gaussian_model import GaussianModel
from pyro_genmodels.models.likelihoods.columns import Columns
from pyro_genmodels.models.likelihoods.counts import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from pyro_genmodels.models.likelihoods.elementwise import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from pyro_genmodels.models.likelihoods.logistic_mixture import LogisticMixtureLikelihood
from pyro_genmodels.models.markov.builders import hidden_markov
from pyro_genmodels.models.markov.hidden_markov_model import HiddenMarkovModel
from pyro_genmodels.models.mixtures.builders import (
    bernoulli_mixture,
    categorical_mixture,
    gaussian_mixture,
)
from pyro_genmodels.models.mixtures.categorical_model import CategoricalModel
from pyro_genmodels.models.mixtures.mixture_model import MixtureModel
from pyro_genmodels.models.nvae.nvae import NVAE
from pyro_genmodels.models.nvae.objective import NVAEObjective
from pyro_genmodels.models.published.lookup import preset, presets
from pyro_genmodels.models.scores.score_matching import (
    DenoisingScoreMatching,
    ExactScoreMatching,
    ScoreMatchingLoss,
    SlicedScoreMatching,
)
from pyro_genmodels.models.vae.beta_vae import BetaVAE
from pyro_genmodels.models.vae.delta_vae import DeltaVAE, RateCommitment
from pyro_genmodels.models.vae.network import VAENetwork
from pyro_genmodels.models.vae.objectives import KLObjective
from pyro_genmodels.models.vae.posteriors import GaussianPosterior
from pyro_genmodels.models.vae.priors import (
    AR1Prior,
    FlowPrior,
    LatentPrior,
    MixturePrior,
    ModelPrior,
    VampPrior,
)
from pyro_genmodels.models.vae.semi_supervised import SemiSupervisedVAE
from pyro_genmodels.models.vae.vae import VAE
from pyro_genmodels.models.vqvae.base import VectorQuantizedModel
from pyro_genmodels.models.vqvae.code_maps import Codebook
from pyro_genmodels.models.vqvae.code_priors import CodePrior, UniformPrior
from pyro_genmodels.models.vqvae.learned_priors import LearnedPrior, learned_priors
from pyro_genmodels.models.vqvae.networks import (
    SequenceVQVAENetwork,
    VQVAE2Network,
    VQVAENetwork,
    WaveNetSizes,
)
from pyro_genmodels.models.vqvae.sequence_vqvae import SequenceVQVAE
from pyro_genmodels.models.vqvae.vqvae import VQVAE
from pyro_genmodels.models.vqvae.vqvae2 import VQVAE2
from pyro_genmodels.nets.nvae import NVAENetwork

__all__ = [
    "DDIM",
    "NVAE",
    "PNDM",
    "VAE",
    "VQVAE",
    "VQVAE2",
    "AR1Prior",
    "Ancestral",
    "AnnealedLangevin",
    "AutoregressiveLikelihood",
    "AutoregressiveModel",
    "BernoulliLikelihood",
    "BetaVAE",
    "CategoricalLikelihood",
    "CategoricalModel",
    "ClassifierGuidance",
    "CodePrior",
    "Codebook",
    "CollapsedComponentError",
    "Columns",
    "DPMSolver",
    "DeltaVAE",
    "Denoising",
    "DenoisingNetwork",
    "DenoisingScoreMatching",
    "DiffusionModel",
    "DiffusionObjective",
    "DiscretizedLogisticLikelihood",
    "ELBOLoss",
    "EMResult",
    "EMStart",
    "ExactScoreMatching",
    "FactorAnalysis",
    "FlowModel",
    "FlowPrior",
    "GaussianLikelihood",
    "GaussianModel",
    "GaussianPosterior",
    "GaussianPriors",
    "GenerativeModel",
    "Heun",
    "HiddenMarkovModel",
    "KLObjective",
    "LatentPrior",
    "LatentScale",
    "LearnedPrior",
    "LevelEncoding",
    "Likelihood",
    "LogisticMixtureLikelihood",
    "MixtureModel",
    "MixturePrior",
    "ModelPrior",
    "NVAENetwork",
    "NVAEObjective",
    "NegativeBinomialLikelihood",
    "NonFiniteELBOError",
    "PoissonLikelihood",
    "RateCommitment",
    "Sampler",
    "ScoreMatchingLoss",
    "SemiSupervisedVAE",
    "SequenceVQVAE",
    "SequenceVQVAENetwork",
    "SharedPass",
    "SlicedScoreMatching",
    "UniformPrior",
    "VAENetwork",
    "VQVAE2Network",
    "VQVAENetwork",
    "VampPrior",
    "VectorQuantizedModel",
    "WaveNetSizes",
    "ZeroInflatedNegativeBinomialLikelihood",
    "bernoulli_mixture",
    "bit_diffusion",
    "categorical_mixture",
    "char_rnn",
    "ddpm",
    "diagonal_bilstm",
    "gated_pixelcnn",
    "gaussian_mixture",
    "glow",
    "hidden_markov",
    "improved_ddpm",
    "learned_priors",
    "made",
    "maf",
    "multiscale_pixelrnn",
    "ncsn",
    "ngram",
    "nice",
    "pixelcnn",
    "pixelcnn_pp",
    "pixelsnail",
    "preset",
    "presets",
    "realnvp",
    "row_lstm",
    "spline_flow",
    "vdm",
    "wavenet",
]
