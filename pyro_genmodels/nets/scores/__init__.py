"""Networks of the score, the gradient of a log-density with respect to the data."""

from pyro_genmodels.nets.scores.energy_gradient import EnergyGradient
from pyro_genmodels.nets.scores.gradients import differentiable, outside_inference

__all__ = ["EnergyGradient", "differentiable", "outside_inference"]
