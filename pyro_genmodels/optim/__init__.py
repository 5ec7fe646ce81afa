"""Optimizers for Pyro's ``SVI`` that step all parameters at once, not one after another."""

from pyro_genmodels.optim.joint import JointLRScheduler, JointOptim

__all__ = ["JointLRScheduler", "JointOptim"]
