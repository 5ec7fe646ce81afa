"""Mutants of the training and scoring of models whose weights are costly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning.pytorch")

from pyro_genmodels.models import DiffusionModel
from pyro_genmodels.models.diffusion.level_sampler import StepSampler
from pyro_genmodels.training.engine import training_module
from pyro_genmodels.training.engine.average import WeightAverage
from tests.mutants.mutation import Mutation, assert_caught
from tests.training import test_diffusion as laws

pytestmark = pytest.mark.once


def costs_denied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DiffusionModel, "weights_are_costly", False)


def other_noise_each_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training_module, "seeded", lambda seed: nullcontext())


def decayed_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DiffusionModel, "undecayed_parameters", lambda self: [])


def average_under_one_name(patch: pytest.MonkeyPatch) -> None:
    def state_dict(self: Any) -> dict[str, Any]:
        return {**self.module.state_dict(), **self.average}

    patch.setattr(WeightAverage, "state_dict", state_dict)


def means_not_saved(patch: pytest.MonkeyPatch) -> None:
    original = StepSampler.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.register_buffer("squares", self.squares, persistent=False)

    patch.setattr(StepSampler, "__init__", init)


def means_move_in_eval_mode(patch: pytest.MonkeyPatch) -> None:
    original = StepSampler.learn

    def learn(self: Any, *arguments: Any) -> None:
        before, self.training = self.training, True
        original(self, *arguments)
        self.training = before

    patch.setattr(StepSampler, "learn", learn)


def whole_chains_in_pictures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DiffusionModel, "preview_options", {})


Law = Callable[[Path], None]
MUTANTS: dict[str, tuple[Law, Mutation, str]] = {
    "rates in validation": (
        laws.test_validation_is_cheap_and_meets_the_same_levels_and_noise,
        costs_denied,
        "sum",
    ),
    "other noise in each epoch": (
        laws.test_validation_is_cheap_and_meets_the_same_levels_and_noise,
        other_noise_each_epoch,
        "False = all",
    ),
    "a pass for each bound": (
        lambda folder: laws.test_an_evaluation_scores_both_bounds_by_the_same_chains(),
        costs_denied,
        "assert 960 == ",
    ),
    "ends under weight decay": (
        lambda folder: laws.test_one_group_where_nothing_is_spared(),
        decayed_ends,
        "1 == 2",
    ),
    "averages under one name of two": (
        laws.test_averages_of_a_shared_part_have_all_its_names,
        average_under_one_name,
        "left.weight is right.weight",
    ),
    "a step sampler's means not saved": (
        laws.test_a_killed_run_resumes_bit_for_bit,
        means_not_saved,
        "state_dict",
    ),
    "a step sampler's means in eval mode": (
        lambda folder: laws.test_frozen_step_samplers_keep_their_means("eval"),
        means_move_in_eval_mode,
        "step_sampler.squares",
    ),
    "whole chains in pictures": (
        laws.test_pictures_during_training_take_few_steps_and_say_so,
        whole_chains_in_pictures,
        "41 == ",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_training(
    mutant: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    law, mutation, message = MUTANTS[mutant]
    assert_caught(lambda: law(tmp_path_factory.mktemp("run")), mutation, monkeypatch, message)
