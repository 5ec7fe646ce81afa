r"""Langevin dynamics: kernels for Pyro's MCMC, and samples of many examples at once.

All steps are :math:`x' = x + \tfrac12 \epsilon^2 \nabla \log p(x) + \epsilon n` with standard
normal noise :math:`n`: the step size :math:`\epsilon` is the standard deviation of the noise in
units of :math:`x`, as in Pyro's HMC with one leapfrog step. Where a paper writes
:math:`x' = x + h \nabla \log p(x) + \sqrt{2h} n`, it is :math:`\epsilon = \sqrt{2h}`.
"""

from pyro_genmodels.mcmc.batched import langevin_samples
from pyro_genmodels.mcmc.langevin import Langevin
from pyro_genmodels.mcmc.mala import MALA

__all__ = ["MALA", "Langevin", "langevin_samples"]
