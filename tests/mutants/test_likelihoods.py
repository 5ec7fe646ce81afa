"""Mutants of likelihoods: size factors that are left out, columns that are mixed up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import models
from pyro_genmodels.models.likelihoods.columns import MixedColumns
from pyro_genmodels.models.likelihoods.counts import CountLikelihood
from tests.models import test_columns as columns
from tests.models import test_counts as counts
from tests.mutants.mutation import Mutation, assert_caught

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def no_factor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CountLikelihood, "_factor", lambda self, context, like: 1.0)


def factor_of_each_feature(patch: pytest.MonkeyPatch) -> None:
    """Hand an image's factors to its last dimension, as broadcasting would."""

    def factor(self: Any, context: Tensor, like: Tensor) -> Tensor:
        return context[..., 0]

    patch.setattr(CountLikelihood, "_factor", factor)


def order_of_kinds(patch: pytest.MonkeyPatch) -> None:
    """Leave the columns as they lie by kind."""

    def joined(self: Any, of: Any, value: Tensor | None = None) -> Tensor:
        pairs = zip(self.laws, self.places, strict=True)
        parts = [of(law) if value is None else of(law, value[..., at]) for law, at in pairs]
        return torch.cat(parts, -1)

    patch.setattr(MixedColumns, "joined", joined)


def not_standardized(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(models.Columns, "standardization_scale", None)


def by_factor() -> None:
    torch.manual_seed(0)
    counts.test_law_given_a_size_factor(models.NegativeBinomialLikelihood, (2, 1, 2))


def by_column() -> None:
    torch.manual_seed(0)
    columns.test_each_column_has_its_own_law()


MUTANTS: dict[str, tuple[Any, Mutation, str]] = {
    "no size factor": (by_factor, no_factor, "not close"),
    "a size factor for each feature": (by_factor, factor_of_each_feature, "size|shape|close"),
    "columns lie by kind": (by_column, order_of_kinds, "not close"),
    "real columns not standardised": (
        columns.test_bound_is_in_the_units_of_the_data,
        not_standardized,
        "not close",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_likelihood(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = MUTANTS[mutant]
    error = (AssertionError, RuntimeError)
    assert_caught(law, mutation, monkeypatch, message, error=error)
