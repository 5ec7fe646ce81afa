"""Mutants of the units of data: what is forgotten, done twice, or done column by column."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, models, testing
from pyro_genmodels.models.base.standardization import Standardization
from tests.grouped import grouped
from tests.mutants.mutation import Mutation, assert_caught, method_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def no_log_det(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(distributions.Rescaled, "_log_det", lambda self: torch.zeros(()))


def one_column_of_the_log_det(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(distributions.Rescaled, "_log_det", lambda self: self.scale.log().flatten()[0])


def inverted_log_det(patch: pytest.MonkeyPatch) -> None:
    method_of(distributions.Rescaled, "_log_det", lambda nats, self: -nats)(patch)


def a_scale_per_column(patch: pytest.MonkeyPatch) -> None:
    original = Standardization.set_from

    def set_from(self: Any, data: Any, kind: str, which: Any = None) -> None:
        original(self, data, "per_dimension")

    patch.setattr(Standardization, "set_from", set_from)


def standardized_twice(patch: pytest.MonkeyPatch) -> None:
    original = Standardization.standardized

    def standardized(self: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return original(self, original(self, x, dtype), dtype)

    patch.setattr(Standardization, "standardized", standardized)


def rescaled_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Standardization, "_is_in_data_units", lambda self, law: False)


def no_handler(patch: pytest.MonkeyPatch) -> None:
    """Leave site "x" in the units of the networks."""
    patch.setattr(Standardization, "observing", lambda self, x, dtype: nullcontext())
    patch.setattr(Standardization, "in_data_units", lambda self, law, dtype: law)


def set_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Standardization, "is_set", property(lambda self: False))


def set_late(patch: pytest.MonkeyPatch) -> None:
    """Let trained weights see data in other units than before."""
    patch.setattr(models.GenerativeModel, "is_trained", property(lambda self: False))


def narrowed(patch: pytest.MonkeyPatch) -> None:
    """Convert shift and scale with the model."""
    patch.setattr(Standardization, "_apply", torch.nn.Module._apply)


def kept_when_loading(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Standardization, "_load_from_state_dict", torch.nn.Module._load_from_state_dict)


MUTANTS: dict[str, tuple[Mutation, str]] = {
    "log-determinant forgotten": (no_log_det, "log-weights are in the data's units"),
    "log-determinant of one column": (one_column_of_the_log_det, "log-weights are in"),
    "log-determinant of the other sign": (inverted_log_det, "log-weights are in"),
    "standardised twice": (standardized_twice, "log-weights are in"),
    "rescaled twice": (rescaled_twice, "log-weights are in"),
    "site x in the networks' units": (no_handler, "log-weights are in"),
    "set again": (set_again, "units|is set once"),
    "set late": (set_late, "weights that were loaded without a scale get none"),
    "rounded with the model": (narrowed, "is set once, in all its digits"),
}


def model(**options: Any) -> models.VAE:
    torch.manual_seed(0)
    made = models.VAE(
        (3,), latent_dim=2, network=models.VAENetwork(hidden=(6,)), **grouped(models.VAE, options)
    )
    return testing.randomize_parameters(made, 0.1).eval()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_units(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, message = MUTANTS[mutant]

    def law() -> None:
        testing.check_standardization(model(), torch.randn(6, 3))

    assert_caught(law, mutation, monkeypatch, message)


def test_a_scale_per_column_of_shared_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    likelihood = models.GaussianLikelihood((3,), scale="shared")

    def law() -> None:
        testing.check_standardization(model(likelihood=likelihood), torch.randn(6, 3))

    message = "noise that is the same in all directions"
    assert_caught(law, a_scale_per_column, monkeypatch, message)


def every_column_scaled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(models.Columns, "standardized_columns", property(lambda self: [0, 1, 2]))


def moments_of_all_columns(patch: pytest.MonkeyPatch) -> None:
    moments = "pyro_genmodels.models.base.standardization.ColumnMoments.keep_only"
    patch.setattr(moments, lambda self, which: None)


@pytest.mark.parametrize("mutation", [every_column_scaled, moments_of_all_columns])
def test_units_of_counts(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([[0.0, -1.0, 2.0], [5.0, 3.0, 0.0], [1.0, 0.5, 1.0]])

    def law() -> None:
        columns = models.Columns(["count", "gaussian", 3])
        testing.check_standardization(model(likelihood=columns), rows)

    error = (AssertionError, ValueError)  # values that no count has
    assert_caught(law, mutation, monkeypatch, "counts and codes|constraint|hold", error=error)


def test_units_that_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def law() -> None:
        testing.check_standardization(model(), torch.randn(6, 3))

    error = (AssertionError, RuntimeError)  # torch names the missing keys itself
    assert_caught(law, kept_when_loading, monkeypatch, "units|standardization", error=error)
