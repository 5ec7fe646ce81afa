"""Model/guide pairs: deep generative models that Pyro's inference takes as they are."""

from pyro_genmodels.models._base import GenerativeModel
from pyro_genmodels.models._latent_scale import LatentScale
from pyro_genmodels.models._loss import ELBOLoss, NonFiniteELBOError
from pyro_genmodels.models._shared_pass import SharedPass
from pyro_genmodels.models.autoregressive import AutoregressiveModel, pixelcnn
from pyro_genmodels.models.flow import FlowModel, realnvp
from pyro_genmodels.models.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from pyro_genmodels.models.vae import VAE, BetaVAE

__all__ = [
    "VAE",
    "AutoregressiveModel",
    "BernoulliLikelihood",
    "BetaVAE",
    "CategoricalLikelihood",
    "DiscretizedLogisticLikelihood",
    "ELBOLoss",
    "FlowModel",
    "GaussianLikelihood",
    "GenerativeModel",
    "LatentScale",
    "Likelihood",
    "NonFiniteELBOError",
    "SharedPass",
    "pixelcnn",
    "realnvp",
]
