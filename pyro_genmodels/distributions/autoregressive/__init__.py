"""Distributions by autoregressive networks, with exact cached sampling."""

from pyro_genmodels.distributions.autoregressive.base import check_missing_suffix
from pyro_genmodels.distributions.autoregressive.codes import check_looks_up
from pyro_genmodels.distributions.autoregressive.logistic_mixture import LogisticMixture
from pyro_genmodels.distributions.autoregressive.output_distributions import OutputLaw, Softmax
from pyro_genmodels.distributions.autoregressive.sampling import reproducibly_evaluating

__all__ = [
    "LogisticMixture",
    "OutputLaw",
    "Softmax",
    "check_looks_up",
    "check_missing_suffix",
    "reproducibly_evaluating",
]
