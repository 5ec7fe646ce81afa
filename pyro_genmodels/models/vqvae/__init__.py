"""VQ-VAE, VQ-VAE-2, and the priors learned on their codes."""

from pyro_genmodels.models.vqvae.learned_priors import code_model
from pyro_genmodels.models.vqvae.single_map import OneMapModel

__all__ = [
    "OneMapModel",
    "code_model",
]
