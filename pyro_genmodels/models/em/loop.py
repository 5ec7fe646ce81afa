"""Expectation-maximisation from several starts."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.em.base import ComponentFamily, LatentStructure
from pyro_genmodels.models.em.gaussian.covariances import CollapsedComponentError
from pyro_genmodels.models.em.result import EMResult, EMStart
from pyro_genmodels.models.em.saddles import leave_saddle

_MIN_ITERATIONS = 10


class _Point(NamedTuple):
    """Parameters, and what they reach."""

    log_likelihood: float
    objective: float
    family: dict[str, Tensor]
    structure: dict[str, Tensor]


@integers_checked
def run_em(
    family: ComponentFamily,
    structure: LatentStructure,
    *,
    num_starts: int = 5,
    tol: float = 1e-7,
    max_iterations: int = 1000,
    seed: int = 0,
    weights: Float[Tensor, " N"] | None = None,
) -> EMResult:
    """Fit components and their labels' structure, and copy the best start's fit into the model.

    An iteration takes all parameters to their maximum given the labels' probabilities, so that the
    objective, log-likelihood plus log-prior, never falls. A start ends when what is left to gain
    per row, extrapolated from the last two changes, is below ``tol``; but first, components that
    share their rows (a saddle, where nothing changes) are parted and components without rows moved
    to those explained worst, and the start goes on if that leads higher. The best objective wins.

    Args:
        family: Components, which hold the training rows.
        structure: Where the labels come from. It holds the rows' weights, if there are any.
        num_starts: Number of random starts; with 0 the fit goes on from the model's parameters.
        tol: What a converged fit may leave to gain, in nats per row.
        max_iterations: Most iterations of one start.
        seed: Seed of the starts. The global generator is not used.
        weights: Weights of the rows, whose sum is the number of rows of the information criteria.

    Raises:
        ValueError: If a number is out of range, or a component collapses in every start.
        RuntimeError: If the objective falls, so that the family or the structure is wrong.
    """
    check(num_starts >= 0, "num_starts", "not be negative", num_starts)
    check_positive(tol=tol, max_iterations=max_iterations)
    rule = f"be at most the number of training rows, {family.num_rows}"
    fits = family.num_components <= family.num_rows
    check(fits or not num_starts, "num_components", rule, family.num_components)
    num_rows = float(family.num_rows if weights is None else weights.sum())
    generator = torch.Generator().manual_seed(seed)
    outcomes: list[EMStart] = []
    best: _Ascent | None = None
    failure: CollapsedComponentError | None = None
    for _ in range(max(1, num_starts)):
        ascent = _Ascent(family, structure, generator, tol * num_rows)
        try:
            if num_starts:
                _start(family, structure, generator)
            else:
                family.read()
                structure.read()
            ascent.run(max_iterations)
        except CollapsedComponentError as error:
            failure = error
            outcomes.append(EMStart(-torch.inf, ascent.num_iterations, False, str(error)))
            continue
        outcomes.append(EMStart(ascent.history[-1], ascent.num_iterations, ascent.converged))
        # The same optimum within the tolerance stays the first that was found.
        if best is None or ascent.history[-1] > best.history[-1] + tol * num_rows:
            best = ascent
    if best is None:
        raise failure or RuntimeError("no start")
    end = best.end
    family.load(end.family)
    structure.load(end.structure)
    family.write()
    structure.write()
    return EMResult(
        end.log_likelihood,
        end.objective,
        tuple(best.history),
        best.converged,
        best.num_iterations,
        family.num_parameters + structure.num_parameters,
        num_rows,
        tuple(outcomes),
    )


def _start(family: ComponentFamily, structure: LatentStructure, generator: torch.Generator) -> None:
    family.start(generator)
    structure.start(generator)
    aligned = structure.align(family.log_probs())
    if aligned is not None:
        family.maximise(aligned)


class _Ascent:
    """The iterations of one start."""

    def __init__(
        self,
        family: ComponentFamily,
        structure: LatentStructure,
        generator: torch.Generator,
        tolerance: float,
    ) -> None:
        self._family, self._structure = family, structure
        self._generator, self._tolerance = generator, tolerance
        self.history: list[float] = []
        self.num_iterations, self.converged = 0, False
        self.end: _Point

    def run(self, max_iterations: int) -> None:
        """Iterate until converged, also after saddles were left, or out of iterations."""
        self.history, responsibilities, log_probs = self._climb(max_iterations)
        while self.converged:
            left = leave_saddle(responsibilities, log_probs, self._other_start)
            if left is None:
                return
            if self.num_iterations >= max_iterations:  # nobody knows whether it leads higher
                self.converged = False
                return
            top = self.end
            self._family.maximise(left.responsibilities)
            self._structure.maximise()
            self._structure.revive(left.empty)
            self.num_iterations += 1
            try:
                trial, responsibilities, log_probs = self._climb(max_iterations)
            except CollapsedComponentError:  # the end of another way is no maximum
                trial, self.converged = [], True
            if not trial or trial[-1] <= top.objective + self._tolerance:
                # Out of iterations, the trial may have led higher.
                self.end = top
                return
            self.history += [value for value in trial if value > top.objective]

    def _other_start(self) -> Tensor:
        """Return the rows' log-probabilities at another start, and leave the parameters alone."""
        state = dict(self._family.state())
        self._family.start(self._generator)
        log_probs = self._family.log_probs()
        self._family.load(state)
        return log_probs

    def _climb(self, max_iterations: int) -> tuple[list[float], Tensor, Tensor]:
        """Iterate from the present parameters; return objectives and the last expectations."""
        objectives: list[float] = []
        self.converged = False
        while True:
            log_probs = self._family.log_probs()
            log_likelihood, responsibilities = self._structure.expect(log_probs)
            objective = log_likelihood + self._family.log_prior() + self._structure.log_prior()
            objectives.append(objective)
            self._check_ascent(objectives)
            self.converged = self._has_converged(objectives)
            if self.converged or self.num_iterations >= max_iterations:
                break
            self._family.maximise(responsibilities)
            self._structure.maximise()
            self.num_iterations += 1
        states = dict(self._family.state()), dict(self._structure.state())
        self.end = _Point(log_likelihood, objective, *states)
        return objectives, responsibilities, log_probs

    def _has_converged(self, objectives: list[float]) -> bool:
        if len(objectives) <= _MIN_ITERATIONS:
            return False
        before, last = objectives[-2] - objectives[-3], objectives[-1] - objectives[-2]
        # Changes shrink by a constant factor near a maximum, and grow on leaving a saddle.
        factor = last / before if before > 0 else 0.0
        rounding = self._rounding(objectives[-1])
        return last <= rounding or (factor < 1 and last <= self._tolerance * (1 - factor))

    def _check_ascent(self, objectives: list[float]) -> None:
        if len(objectives) < 2:
            return
        fall = objectives[-2] - objectives[-1]
        if not fall <= self._rounding(objectives[-1]):
            raise RuntimeError(
                "`family` and `structure` must raise the objective in every iteration; it fell by "
                f"{fall} to {objectives[-1]} nats in iteration {self.num_iterations}."
            )

    def _rounding(self, objective: float) -> float:
        """Return how much rounding may change an objective of many rows."""
        return 1e-11 * (abs(objective) + self._family.num_rows)
