"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro.infer.autoguide import init_to_uniform
from torch import Tensor

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels.mcmc.one_step import OneStepHMC


class MALA(OneStepHMC):
    r"""Metropolis-adjusted Langevin algorithm, a kernel for ``pyro.infer.MCMC``.

    A step of Langevin dynamics, whose noise has the covariance :math:`\epsilon^2 M^{-1}`, is a
    proposal

    .. math:: x' = x + \tfrac12 \epsilon^2 M^{-1} \nabla \log p(x) + \epsilon M^{-1/2} n

    that is accepted with probability :math:`\min(1, p(x') q(x | x') / (p(x) q(x' | x)))`, so that
    the chain leaves :math:`p` invariant for any step size :math:`\epsilon`. This is HMC with one
    leapfrog step per trajectory, and arguments, initialization, sites with constrained support and
    diagnostics are those of Pyro's ``HMC`` and ``NUTS``. The best acceptance probability in many
    dimensions is 0.574.

    Args:
        model: Pyro model; the posterior of its latent sites is sampled.
        potential_fn: Or else a function from a dictionary of unconstrained values to their
            potential energy (minus the log-density, in nats), a scalar. ``MCMC`` then needs
            ``initial_params``.
        step_size: Step size :math:`\epsilon`, in units of the unconstrained values; the initial
            one if it is adapted.
        adapt_step_size: Adapt the step size in warm-up.
        adapt_mass_matrix: Adapt the mass matrix :math:`M` in warm-up.
        full_mass: Use a dense mass matrix, or a list of tuples of sites that have one each.
        transforms: Transforms of sites to unconstrained values; by default those of their supports.
        max_plate_nesting: Number of nested plates, for models with enumerated discrete sites.
        jit_compile: Compile the potential energy with ``torch.jit.trace``.
        jit_options: Arguments of ``torch.jit.trace``.
        ignore_jit_warnings: Ignore the compiler's warnings.
        target_accept_prob: Acceptance probability aimed at by the adaptation of the step size.
        init_strategy: Initialization of each site, from ``pyro.infer.autoguide``.
        min_stepsize: Lower bound of adapted step sizes.
        max_stepsize: Upper bound of adapted step sizes.

    Raises:
        ValueError: If both or neither of ``model`` and ``potential_fn`` are given, a step size is
            not positive, or ``target_accept_prob`` is not between 0 and 1; in ``MCMC.run``, if the
            initial values are not those of the sites, or their potential energy is not a finite
            scalar.

    References:
        Roberts & Tweedie (1996), Exponential convergence of Langevin distributions and their
        discrete approximations. Roberts & Rosenthal (1998), Optimal scaling of discrete
        approximations to Langevin diffusions.

    Example:
        >>> import pyro, torch
        >>> from pyro.distributions import Gamma
        >>> from pyro.infer import MCMC
        >>> def model():
        ...     return pyro.sample("rate", Gamma(3.0, 2.0))
        >>> mcmc = MCMC(MALA(model), num_samples=50, warmup_steps=50, disable_progbar=True)
        >>> mcmc.run()
        >>> mcmc.get_samples()["rate"].shape
        torch.Size([50])
    """

    @integers_checked
    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Any], Tensor] | None = None,
        step_size: float = 1.0,
        *,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool | list[tuple[str, ...]] = False,
        transforms: Mapping[str, Any] | None = None,
        max_plate_nesting: int | None = None,
        jit_compile: bool = False,
        jit_options: Mapping[str, Any] | None = None,
        ignore_jit_warnings: bool = False,
        target_accept_prob: float = 0.574,
        init_strategy: Callable[..., Any] = init_to_uniform,
        min_stepsize: float = 1e-10,
        max_stepsize: float = 1e10,
    ) -> None:
        is_probability = 0 < target_accept_prob < 1
        check(is_probability, "target_accept_prob", "lie between 0 and 1", target_accept_prob)
        super().__init__(
            model,
            potential_fn,
            step_size,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            full_mass=full_mass,
            transforms=transforms,
            max_plate_nesting=max_plate_nesting,
            jit_compile=jit_compile,
            jit_options=jit_options,
            ignore_jit_warnings=ignore_jit_warnings,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
            min_stepsize=min_stepsize,
            max_stepsize=max_stepsize,
        )
