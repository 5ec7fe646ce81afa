"""Model/guide pairs: deep generative models that Pyro's inference takes as they are."""

from pyro_genmodels.models._base import GenerativeModel
from pyro_genmodels.models._latent_scale import LatentScale
from pyro_genmodels.models._loss import ELBOLoss, NonFiniteELBOError
from pyro_genmodels.models._shared_pass import SharedPass
from pyro_genmodels.models.flow import FlowModel

__all__ = [
    "ELBOLoss",
    "FlowModel",
    "GenerativeModel",
    "LatentScale",
    "NonFiniteELBOError",
    "SharedPass",
]
