"""The unadjusted Langevin algorithm."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from pyro.infer.autoguide import init_to_uniform
from pyro.ops.integrator import potential_grad, velocity_verlet
from torch import Tensor

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels.mcmc.one_step import OneStepHMC


class Langevin(OneStepHMC):
    r"""Unadjusted Langevin algorithm, a kernel for ``pyro.infer.MCMC`` whose samples are biased.

    Each sample is a step of Langevin dynamics without a Metropolis test,

    .. math:: x' = x + \tfrac12 \epsilon^2 \nabla \log p(x) + \epsilon n, \qquad n \sim N(0, I),

    so the chain's stationary distribution differs from :math:`p`, by an error of the order
    :math:`\epsilon^2`. For a Gaussian with variance :math:`v` it is a Gaussian with variance
    :math:`v / (1 - \epsilon^2 / (4 v))`, and for :math:`\epsilon \ge 2 \sqrt v` the chain diverges.
    Nothing is adapted in warm-up, since step size and mass matrix determine the distribution
    sampled. :class:`MALA` has no bias.

    Args:
        model: Pyro model; the posterior of its latent sites is sampled.
        potential_fn: Or else a function from a dictionary of unconstrained values to their
            potential energy (minus the log-density, in nats), a scalar. ``MCMC`` then needs
            ``initial_params``.
        step_size: Step size :math:`\epsilon`, in units of the unconstrained values.
        transforms: Transforms of sites to unconstrained values; by default those of their supports.
        max_plate_nesting: Number of nested plates, for models with enumerated discrete sites.
        jit_compile: Compile the potential energy with ``torch.jit.trace``.
        jit_options: Arguments of ``torch.jit.trace``.
        ignore_jit_warnings: Ignore the compiler's warnings.
        init_strategy: Initialization of each site, from ``pyro.infer.autoguide``.

    Raises:
        ValueError: If both or neither of ``model`` and ``potential_fn`` are given, or the step size
            is not positive; in ``MCMC.run``, if the initial values are not the sites' or their
            potential energy is not a finite scalar, or if it ceases to be finite.

    References:
        Roberts & Tweedie (1996), Exponential convergence of Langevin distributions and their
        discrete approximations.

    Example:
        >>> import torch
        >>> from pyro.infer import MCMC
        >>> kernel = Langevin(potential_fn=lambda z: 0.5 * z["x"].square().sum(), step_size=0.5)
        >>> start = {"x": torch.zeros(3)}
        >>> mcmc = MCMC(kernel, 50, warmup_steps=10, initial_params=start, disable_progbar=True)
        >>> mcmc.run()
        >>> mcmc.get_samples()["x"].shape
        torch.Size([50, 3])
    """

    @integers_checked
    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Any], Tensor] | None = None,
        step_size: float = 0.1,
        *,
        transforms: Mapping[str, Any] | None = None,
        max_plate_nesting: int | None = None,
        jit_compile: bool = False,
        jit_options: Mapping[str, Any] | None = None,
        ignore_jit_warnings: bool = False,
        init_strategy: Callable[..., Any] = init_to_uniform,
    ) -> None:
        super().__init__(
            model,
            potential_fn,
            step_size,
            adapt_step_size=False,
            adapt_mass_matrix=False,
            transforms=transforms,
            max_plate_nesting=max_plate_nesting,
            jit_compile=jit_compile,
            jit_options=jit_options,
            ignore_jit_warnings=ignore_jit_warnings,
            init_strategy=init_strategy,
        )

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take a step.

        Args:
            params: The chain's present values.

        Raises:
            ValueError: If the potential energy is no longer finite.
        """
        z, _, z_grads = self._fetch_from_cache()
        if z is None:  # the cache was cleared
            z_grads, potential_energy = potential_grad(self.potential_fn, params)
            z = params
            self._cache(z, potential_energy, z_grads)
        if z:
            r, _ = self._sample_r(name=f"r_t={self._t}")
            kinetic_grad = self.mass_matrix_adapter.kinetic_grad
            z, _, z_grads, potential_energy = velocity_verlet(
                z, r, self.potential_fn, kinetic_grad, self.step_size, z_grads=z_grads
            )
            rule = "be so small that the chain's potential energy stays finite"
            found = f"{self.step_size}, and {float(potential_energy)} in step {self._t + 1}"
            check(math.isfinite(potential_energy), "step_size", rule, found)
            self._cache(z, potential_energy, z_grads)
        self._t += 1
        return z.copy()

    def logging(self) -> OrderedDict[str, str]:
        """Return what the progress bar shows."""
        return OrderedDict([("step size", f"{self.step_size:.2e}")])

    def diagnostics(self) -> dict[str, Any]:
        """Return nothing: every step is taken."""
        return {}
