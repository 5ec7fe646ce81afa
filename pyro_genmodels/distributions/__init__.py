"""Autoregressive and discrete distributions over images, as Pyro ``TorchDistribution``s."""

from pyro_genmodels.distributions.discretized_logistic import DiscretizedLogistic

__all__ = [
    "DiscretizedLogistic",
]
