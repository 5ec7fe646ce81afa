"""Expectation-maximisation: of mixtures and hidden Markov models, whatever they are made of."""

from pyro_genmodels.models.em.base import ComponentFamily, LatentStructure
from pyro_genmodels.models.em.categorical_family import CategoricalFamily
from pyro_genmodels.models.em.gaussian.covariances import CollapsedComponentError
from pyro_genmodels.models.em.gaussian_family import CovarianceName, GaussianFamily
from pyro_genmodels.models.em.loop import run_em
from pyro_genmodels.models.em.priors import GaussianPriors
from pyro_genmodels.models.em.result import EMResult, EMStart
from pyro_genmodels.models.em.starts import kmeans, kmeans_plus_plus
from pyro_genmodels.models.em.weights import MixtureWeights

__all__ = [
    "CategoricalFamily",
    "CollapsedComponentError",
    "ComponentFamily",
    "CovarianceName",
    "EMResult",
    "EMStart",
    "GaussianFamily",
    "GaussianPriors",
    "LatentStructure",
    "MixtureWeights",
    "kmeans",
    "kmeans_plus_plus",
    "run_em",
]
