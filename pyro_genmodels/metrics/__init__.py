"""Figures of merit: nats, bits per dimension, bounds on the evidence, gaps to a known optimum.

Bounds come as one value an example, in nats, so that any two methods can be compared on the same
examples; :class:`Estimate` turns them into a mean with its standard error.
"""

from pyro_genmodels._modules import evaluating
from pyro_genmodels.metrics.bounds import (
    EvidenceBounds,
    WeightedModel,
    elbo,
    evidence_bounds,
    importance_weighted_bound,
)
from pyro_genmodels.metrics.estimate import Estimate, atypicality, bits_per_dim, paired_gap

__all__ = [
    "Estimate",
    "EvidenceBounds",
    "WeightedModel",
    "atypicality",
    "bits_per_dim",
    "elbo",
    "evaluating",
    "evidence_bounds",
    "importance_weighted_bound",
    "paired_gap",
]
