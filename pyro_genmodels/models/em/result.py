"""What a fit by expectation-maximisation reached."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EMStart:
    """What one start reached.

    Attributes:
        objective: Log-likelihood plus log-prior, in nats; minus infinity if a component collapsed.
        num_iterations: Number of its iterations.
        converged: Whether it converged.
        error: Why it failed, or None.
    """

    objective: float
    num_iterations: int
    converged: bool
    error: str | None = None


@dataclass(frozen=True, repr=False)
class EMResult:
    r"""What :func:`run_em` reached: the best of its starts.

    Attributes:
        log_likelihood: Log-likelihood L of all rows, in nats.
        objective: Log-likelihood plus the log-density of the priors up to a constant: what never
            falls from one iteration to the next.
        history: Objective before each step of the best start, and at its end.
        converged: Whether the objective changed by less than the tolerance, and not at a saddle.
        num_iterations: Number of steps of the best start.
        num_parameters: Number of free parameters p.
        num_rows: Number of rows N, or the sum of their weights.
        starts: What each start reached.

    Example:
        >>> result = EMResult(-120.0, -120.0, (-150.0, -120.0), True, 1, 5, 100.0)
        >>> result
        EMResult(log_likelihood=-120, per row -1.2; 1 iteration, converged; 5 parameters, BIC 263.0)
        >>> result.aic
        250.0
    """

    log_likelihood: float
    objective: float
    history: tuple[float, ...]
    converged: bool
    num_iterations: int
    num_parameters: int
    num_rows: float
    starts: tuple[EMStart, ...] = ()

    @property
    def bic(self) -> float:
        r"""Bayesian information criterion :math:`-2 L + p \ln N`; lower is better."""
        return -2 * self.log_likelihood + self.num_parameters * math.log(self.num_rows)

    @property
    def aic(self) -> float:
        r"""Akaike's information criterion :math:`-2 L + 2 p`; lower is better."""
        return -2 * self.log_likelihood + 2 * self.num_parameters

    def __repr__(self) -> str:
        iterations = f"{self.num_iterations} iteration{'' if self.num_iterations == 1 else 's'}"
        starts = f", best of {len(self.starts)} starts" if len(self.starts) > 1 else ""
        end = "converged" if self.converged else "not converged"
        return (
            f"EMResult(log_likelihood={self.log_likelihood:.6g}, "
            f"per row {self.log_likelihood / self.num_rows:.6g}; {iterations}, {end}{starts}; "
            f"{self.num_parameters} parameters, BIC {self.bic:.1f})"
        )
