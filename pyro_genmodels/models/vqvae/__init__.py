"""VQ-VAE, VQ-VAE-2, and the priors learned on their codes."""

from pyro_genmodels.models.vqvae.learned_priors import code_model

__all__ = ["code_model"]
