"""What the Langevin kernels share: Pyro's HMC with one leapfrog step, and checks of its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pyro.infer import HMC
from torch import Tensor

from pyro_genmodels._checks import check, check_positive


class OneStepHMC(HMC):
    """HMC whose trajectories are one leapfrog step, also while the step size is adapted.

    Pyro's ``HMC(num_steps=1)`` keeps the length of the trajectory instead: as soon as adaptation
    halves the step size, it takes two steps.

    Args:
        model: Pyro model.
        potential_fn: Or else a function from a dictionary of unconstrained values to their
            potential energy, a scalar.
        step_size: Step size, initially.
        options: As for ``HMC``.
    """

    def __init__(
        self,
        model: Callable[..., Any] | None,
        potential_fn: Callable[[Any], Tensor] | None,
        step_size: float,
        **options: Any,
    ) -> None:
        given = "both" if model is not None else "neither"
        one = (model is None) != (potential_fn is None)
        check(one, "model", "be given or `potential_fn`, one of them", given)
        check_positive(step_size=step_size)
        super().__init__(model, potential_fn, step_size, num_steps=1, **options)

    @property
    def num_steps(self) -> int:
        """Number of leapfrog steps per sample."""
        return 1

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Prepare a chain, after checking where it starts.

        Raises:
            ValueError: If the initial values are not tensors of a floating dtype, or are not those
                of the model's sites; if the potential energy there is not a finite scalar.
        """
        if self.model is None:
            self._check_initial_params()
        super().setup(warmup_steps, *args, **kwargs)
        _, energy, _ = self._fetch_from_cache()
        rule = "have a finite potential energy"
        check(math.isfinite(energy), "initial_params", rule, energy.item())

    def _initialize_model_properties(self, model_args: Any, model_kwargs: Any) -> None:
        super()._initialize_model_properties(model_args, model_kwargs)
        sites, given = sorted(self.transforms), sorted(self.initial_params)
        check(given == sites, "initial_params", f"have the model's sites, {sites}", given)

    def _check_initial_params(self) -> None:
        given = self.initial_params
        are_tensors = isinstance(given, Mapping) and all(
            isinstance(value, Tensor) and value.is_floating_point() for value in given.values()
        )
        check(are_tensors, "initial_params", "be tensors of a floating dtype by name", given)
        energy = self.potential_fn(given)
        is_scalar = isinstance(energy, Tensor) and energy.numel() == 1
        found = f"shape {tuple(energy.shape)}" if isinstance(energy, Tensor) else repr(energy)
        check(is_scalar, "potential_fn", "return a scalar tensor", found)
