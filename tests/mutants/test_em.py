"""Mutants of expectation-maximisation, each caught by a law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pyro_genmodels.models.em import GaussianPriors, MixtureWeights, starts
from pyro_genmodels.models.em.categorical_family import CategoricalFamily
from pyro_genmodels.models.em.gaussian import elementwise, low_rank, patterns
from pyro_genmodels.models.em.gaussian.dense import FullCovariances, TiedCovariances
from pyro_genmodels.models.em.gaussian.elementwise import DiagonalCovariances
from pyro_genmodels.models.em.gaussian.low_rank import LowRankCovariances
from pyro_genmodels.models.em.gaussian_family import GaussianFamily
from tests.models import em_laws
from tests.models.em_laws import PRIORS
from tests.mutants.mutation import Mutation, assert_caught, method_of

pytestmark = pytest.mark.once


def _step(covariance: str, missing: float = 0.0, weighted: bool = False) -> Callable[[], None]:
    priors = PRIORS if weighted else None
    return lambda: em_laws.check_step(covariance, missing=missing, weighted=weighted, priors=priors)


def _without_conditional_covariance(patch: pytest.MonkeyPatch) -> None:
    original = patterns._completion

    def completion(*arguments: Any) -> Any:
        gain, rest = original(*arguments)
        return gain, torch.zeros_like(rest)

    patch.setattr(patterns, "_completion", completion)


def _without_conditional_mean(patch: pytest.MonkeyPatch) -> None:
    original = patterns._completion

    def completion(covariances: Any, given: Any) -> Any:
        gain, rest = original(covariances, given)
        return gain * given.seen.unsqueeze(-1), rest

    patch.setattr(patterns, "_completion", completion)


def _unweighted_counts(result: Any, structure: Any, log_probs: Any) -> Any:
    nats, shares = result
    structure._counts = (shares / shares.sum(1, keepdim=True).clamp_min(1e-300)).sum(0)
    return nats, shares


def _other_log_det(scores: Any, covariances: Any) -> Any:
    whitening = covariances.parameters["whitening"]
    return scores - 2 * whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)


def _ascends(covariance: str) -> Callable[[], None]:
    def law() -> None:
        x = em_laws.rows()
        strong = GaussianPriors(3.0, strength=100.0)
        family = em_laws.gaussian_family(covariance, x, priors=strong)
        em_laws.check_never_falls(family, MixtureWeights(3))

    return law


def _categories_ascend() -> None:
    family = em_laws.categorical(concentration=5.0)
    em_laws.check_never_falls(family, MixtureWeights(3))


def _single_pass(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(elementwise, "FAR", torch.inf)


def _no_prior(result: float, *arguments: Any) -> float:
    return 0.0


def _repeated(covariance: str) -> Callable[[], None]:
    return lambda: em_laws.check_repeated_rows(covariance, 0.0)


def _unweighted_starts(patch: pytest.MonkeyPatch) -> None:
    original = starts._draw
    patch.setattr(starts, "_draw", lambda shares, *rest: original((shares > 0).to(shares), *rest))


def _second_moment_ignores_the_mean(result: Any, *arguments: Any) -> Any:
    return result[0], result[1], result[2] + 1e-3 * result[1].square()


def _noise_without_prior(patch: pytest.MonkeyPatch) -> None:
    original = low_rank.noise_maxima
    patch.setattr(low_rank, "noise_maxima", lambda *given: original(*given[:-1], (0.0, 0.0)))


MUTANTS: dict[str, tuple[Callable[[], None], Mutation]] = {
    "conditional covariance left out": (_step("full", 0.3), _without_conditional_covariance),
    "conditional covariance left out, tied": (
        _step("tied", 0.3, True),
        _without_conditional_covariance,
    ),
    "conditional mean left out": (_step("full", 0.3), _without_conditional_mean),
    "weights ignored in the counts": (
        _repeated("full"),
        method_of(MixtureWeights, "expect", _unweighted_counts),
    ),
    "weights ignored in the starts": (_repeated("spherical"), _unweighted_starts),
    "sign of the log-determinant": (
        _step("full"),
        method_of(FullCovariances, "scores", _other_log_det),
    ),
    "sign of the log-determinant, tied": (
        _step("tied"),
        method_of(TiedCovariances, "scores", _other_log_det),
    ),
    "prior left out of the objective": (
        _ascends("full"),
        method_of(GaussianFamily, "log_prior", _no_prior),
    ),
    "prior left out of the objective, low rank": (
        _ascends("low_rank"),
        method_of(LowRankCovariances, "log_prior", _no_prior),
    ),
    "prior left out of the objective, of weights": (
        em_laws.check_objective,
        method_of(MixtureWeights, "log_prior", _no_prior),
    ),
    "prior of the noise left out": (
        lambda: em_laws.check_noise_is_a_maximum((5.0, 0.3)),
        _noise_without_prior,
    ),
    "prior of tables left out": (
        _categories_ascend,
        method_of(CategoricalFamily, "log_prior", _no_prior),
    ),
    "single-pass variance": (lambda: em_laws.check_far_clusters("diagonal"), _single_pass),
    "single-pass variance, spherical": (
        lambda: em_laws.check_far_clusters("spherical"),
        _single_pass,
    ),
    "variance about zero": (
        _step("diagonal"),
        method_of(DiagonalCovariances, "_sums", _second_moment_ignores_the_mean),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_expectation_maximisation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation = MUTANTS[name]
    assert_caught(law, mutation, monkeypatch, ".", error=(AssertionError, RuntimeError, ValueError))
