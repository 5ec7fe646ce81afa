"""How far single latent units stand for single factors of the data, where these are known.

The scores take codes, usually the posterior's means, and the factors they belong to; two draw
their own data instead, such as :class:`pyro_genmodels.data.Sprites`. All lie between zero and one.
What needs scikit-learn comes with the ``train`` extra.

References:
    Locatello et al. (2019), Challenging common assumptions in the unsupervised learning of
    disentangled representations, for a comparison. https://arxiv.org/abs/1811.12359
"""

from pyro_genmodels.disentanglement.dci_scores import DCI, dci
from pyro_genmodels.disentanglement.factor_scores import (
    FactorSource,
    beta_vae_score,
    factor_vae_score,
)
from pyro_genmodels.disentanglement.information import active_units, mig, mutual_information
from pyro_genmodels.disentanglement.sap_score import sap

__all__ = [
    "DCI",
    "FactorSource",
    "active_units",
    "beta_vae_score",
    "dci",
    "factor_vae_score",
    "mig",
    "mutual_information",
    "sap",
]
