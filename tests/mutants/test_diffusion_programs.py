"""Mutants of diffusion models as Pyro programs: the wrong form, other units, shared parts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK

from pyro_genmodels.models import DiffusionModel
from pyro_genmodels.models.diffusion import diffusion_model
from pyro_genmodels.models.diffusion.encoding import ChainData
from tests.models import test_diffusion_programs as laws
from tests.mutants.mutation import Mutation, assert_caught

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def never_follows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(diffusion_model, "replayed_value", lambda name: None)


def follows_without_a_replay(patch: pytest.MonkeyPatch) -> None:
    ran: list[bool] = []
    infer = DiffusionModel.infer

    def noting(self: DiffusionModel, x: Any, context: Any) -> None:
        ran.append(self._takes_one_level)
        infer(self, x, context)

    patch.setattr(DiffusionModel, "infer", noting)
    patch.setattr(DiffusionModel, "_follows", lambda self, z: bool(ran) and ran.pop())


def overlooks_a_condition(patch: pytest.MonkeyPatch) -> None:
    def replayed_value(name: str) -> Any:
        replays = [h.trace for h in _PYRO_STACK if isinstance(h, ReplayMessenger)]
        return replays[0].nodes[name]["value"] if replays and replays[0] is not None else None

    patch.setattr(diffusion_model, "replayed_value", replayed_value)


def known_by_one_slot(patch: pytest.MonkeyPatch) -> None:
    """As the record of a hierarchy is, which forgets the run before."""
    infer = DiffusionModel.infer

    def forgetting(self: DiffusionModel, x: Any, context: Any) -> None:
        diffusion_model._drawn_alone.clear()
        infer(self, x, context)

    patch.setattr(DiffusionModel, "infer", forgetting)


def scores_see_the_data_s_own_units(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DiffusionModel, "_values", lambda self, x: self.data(x.to(self.dtype)))


def first_level_of_a_draw(patch: pytest.MonkeyPatch) -> None:
    def least_distance(self: ChainData) -> float:
        apart = torch.cdist(self.values.detach(), self.values.detach())
        return float(apart.fill_diagonal_(torch.inf).min())

    patch.setattr(ChainData, "least_distance", property(least_distance))


def fixed_in_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(copy, "deepcopy", lambda part: part)


def units_of_scores() -> None:
    laws.test_units_of_scores((3,))


MUTANTS: dict[str, tuple[Callable[[], None], Mutation, str]] = {
    "never follows its guide": (
        partial(laws.test_the_model_follows_its_guide, True, True),
        never_follows,
        "",
    ),
    "follows without a replay": (
        laws.test_a_model_that_is_not_replayed_runs_the_whole_chain,
        follows_without_a_replay,
        "",
    ),
    "overlooks a condition": (
        laws.test_a_model_that_is_not_replayed_runs_the_whole_chain,
        overlooks_a_condition,
        "",
    ),
    "known by one slot": (
        laws.test_one_model_twice_in_a_program,
        known_by_one_slot,
        "shapes disagree at site",
    ),
    "scores in the data's own units": (
        units_of_scores,
        scores_see_the_data_s_own_units,
        "log_weights in the data's units",
    ),
    "first level of a draw": (
        partial(laws.test_learned_vectors_differ_from_the_start, 3),
        first_level_of_a_draw,
        "",
    ),
    "fixed in place": (
        laws.test_a_schedule_of_two_models_learns_by_the_one_that_trains_it,
        fixed_in_place,
        "",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = MUTANTS[name]
    assert_caught(law, mutation, monkeypatch, message, error=(AssertionError, ValueError))
