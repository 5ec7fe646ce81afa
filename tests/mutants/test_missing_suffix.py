"""Mutants of what is made of missing elements."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, nets, testing
from pyro_genmodels.distributions.autoregressive import base
from tests.mutants.mutation import Mutation, assert_caught

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def replaced(name: str, function: Any) -> Mutation:
    return lambda patch: patch.setattr(base, name, function)


def filled_counts(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.nan_to_num(), torch.ones_like(x, dtype=torch.bool)


def nan_enters(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, ~x.isnan()


def one_too_many(x: Tensor) -> tuple[Tensor, Tensor]:
    seen = ~x.isnan()
    return x.nan_to_num(), seen & seen.roll(-1, -1)


SUFFIX_MUTANTS = {
    "what is missing is scored": (replaced("observed_part", filled_counts), "sum over the others"),
    "the last observed is not": (replaced("observed_part", one_too_many), "sum over the others"),
    "NaN enters the network": (replaced("observed_part", nan_enters), "are finite|sum over"),
    "holes pass": (replaced("check_missing_suffix", lambda *_: None), "before an observed one"),
}


@pytest.mark.parametrize("mutant", SUFFIX_MUTANTS)
def test_missing_suffix(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nets.WaveNetNet((3,), 3, channels=4, num_blocks=1, layers_per_block=1, num_mixtures=2)
    law = distributions.WaveNet(testing.randomize_parameters(net.double()), missing=True)
    mutation, message = SUFFIX_MUTANTS[mutant]
    assert_caught(lambda: testing.check_missing_suffix(law), mutation, monkeypatch, message)
