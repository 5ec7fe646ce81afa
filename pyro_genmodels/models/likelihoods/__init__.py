"""Likelihoods of decoders: element by element, logistic mixtures, counts, and tables."""

from pyro_genmodels.models.likelihoods.columns import Columns

__all__ = ["Columns"]
