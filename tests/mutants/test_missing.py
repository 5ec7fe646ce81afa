"""Mutants of data with missing elements: NaN let into arithmetic, or elements that still count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, models, testing
from pyro_genmodels.models.base import arguments, standardization
from pyro_genmodels.models.gaussian import factor_analysis, observed_factors
from tests.models import test_missing as laws
from tests.mutants.mutation import Mutation, assert_caught

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def levels(*, missing: bool = True) -> Any:
    torch.manual_seed(0)
    model = models.VAE(
        (2,),
        num_levels=2,
        latent_dim=1,
        network=models.VAENetwork(hidden=(6,)),
        missing=missing,
    )
    return testing.randomize_parameters(model, 0.2).eval()


X = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan], [0.0, 1.0]], dtype=torch.float64)


def scored_as_zeros(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        distributions.ObservedPart,
        "log_prob",
        lambda self, value: self.base.log_prob(value.nan_to_num(0.0)),
    )


def multiplied(patch: pytest.MonkeyPatch) -> None:
    """Take out by a product: zero times NaN is NaN."""

    def log_prob(self: Any, value: Tensor) -> Tensor:
        return (self.base.base_dist.log_prob(value) * ~value.isnan()).sum(-1)

    patch.setattr(distributions.ObservedPart, "log_prob", log_prob)


def taken_out_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """Take out what was computed with NaN: right in value, and NaN in its gradients."""

    def log_prob(self: Any, value: Tensor) -> Tensor:
        elements = self.base.base_dist.log_prob(value.clamp(0, 1))
        return torch.where(value.isnan(), 0.0, elements).sum(-1)

    patch.setattr(distributions.ObservedPart, "log_prob", log_prob)


def nan_for_the_encoder(patch: pytest.MonkeyPatch) -> None:
    def posterior(self: Any, x: Tensor, context: Any) -> Any:
        return self.posterior_of_scaled(self.likelihood.encoder_input(x), context, ~x.isnan())

    patch.setattr(models.VAE, "_posterior", posterior)


def neighbours_in_the_encoder(patch: pytest.MonkeyPatch) -> None:
    """Fill by the mean of the batch."""

    def posterior(self: Any, x: Tensor, context: Any) -> Any:
        seen = ~x.isnan()
        filled = torch.where(seen, x, x.nanmean().nan_to_num())
        return self.posterior_of_scaled(self.likelihood.encoder_input(filled), context, seen)

    patch.setattr(models.VAE, "_posterior", posterior)


def imputed_everywhere(patch: pytest.MonkeyPatch) -> None:
    def impute(self: Any, x: Tensor, context: Any = None, *, num_samples: int = 1) -> Tensor:
        return self.sample(num_samples * len(x), context).reshape(num_samples, *x.shape)

    patch.setattr(models.VAE, "impute", impute)


MUTANTS: dict[str, tuple[Mutation, str]] = {
    "scored as zeros": (scored_as_zeros, "evidence of the observed part is the sum"),
    "multiplied by the mask": (multiplied, "is as good as another"),
    "taken out at the end": (taken_out_at_the_end, "gradients are finite"),
    "NaN for the encoder": (nan_for_the_encoder, "is as good as another|must"),
    "the batch's mean for the encoder": (neighbours_in_the_encoder, "its own affair"),
    "imputed everywhere": (imputed_everywhere, "keeps what was observed"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_missing(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, message = MUTANTS[mutant]
    model = levels()

    def law() -> None:
        with pyro.validation_enabled(False):  # or torch names some of these first
            testing.check_missing(model, X)
            testing.check_marginal(model, X, num_particles=500)

    assert_caught(law, mutation, monkeypatch, message, error=(AssertionError, ValueError))


def test_nan_that_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    model = levels(missing=False)

    def unchecked(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(arguments, "check_levels", lambda *_, **__: None)

    def law() -> None:
        testing.check_missing(model, X)

    assert_caught(law, unchecked, monkeypatch, "NaN is a ValueError of `x`")


def posterior_of_all(patch: pytest.MonkeyPatch) -> None:
    everything = observed_factors.factor_precision
    patch.setattr(
        factor_analysis, "factor_precision", lambda w, seen: everything(w, torch.ones_like(seen))
    )


def density_of_all(patch: pytest.MonkeyPatch) -> None:
    everything = observed_factors.factor_precision
    patch.setattr(
        observed_factors, "factor_precision", lambda w, seen: everything(w, torch.ones_like(seen))
    )


def scales_of_none(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        distributions.Rescaled, "_observed_log_det", lambda self, value: value.new_zeros(())
    )


def scales_of_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(distributions.Rescaled, "_observed_log_det", lambda self, value: self._log_det())


def zeros_in_the_moments(patch: pytest.MonkeyPatch) -> None:
    original = standardization.observed_part
    patch.setattr(
        standardization,
        "observed_part",
        lambda x: (original(x)[0], torch.ones_like(x, dtype=torch.bool)),
    )


def exact() -> None:
    laws.test_factor_analysis_is_exact((5,), "per_dimension", True)


EXACT: dict[str, tuple[Callable[[], None], Mutation]] = {
    "posterior of all elements": (exact, posterior_of_all),
    "density of all elements": (exact, density_of_all),
    "log-determinant forgotten": (exact, scales_of_none),
    "log-determinant of all elements": (exact, scales_of_all),
    "zeros in the moments": (
        laws.test_moments_are_those_of_what_was_observed,
        zeros_in_the_moments,
    ),
}


@pytest.mark.parametrize("mutant", EXACT)
def test_exact(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation = EXACT[mutant]
    assert_caught(law, mutation, monkeypatch, "not close")
