"""Mutants of optimizers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyro_genmodels import optim
from pyro_genmodels.optim import joint
from tests import test_optim as optim_laws
from tests.mutants.mutation import Mutation, assert_caught

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def _stay_together(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(optim.JointOptim, "_split", lambda self, present: None)


def states_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(joint, "load_states", lambda shared, states: None)


OPTIM_MUTANTS: dict[str, tuple[Callable[[], None], Mutation, str]] = {
    "what is absent moves": (optim_laws.test_an_absent_parameter_stays, _stay_together, "assert"),
    "what is absent decays": (
        lambda: optim_laws.test_steps_are_pyros("ClippedAdam"),
        _stay_together,
        "now and then",
    ),
    "one set of arguments for all": (
        lambda: optim_laws.test_arguments_may_be_of_the_parameter(optim_laws.lists),
        lambda patch: patch.setattr(joint, "is_equal", lambda one, other: True),
        "assert",
    ),
    "a state that is set is lost": (
        optim_laws.test_a_state_set_while_running_is_taken_up,
        states_lost,
        "assert",
    ),
}


@pytest.mark.parametrize("mutant", OPTIM_MUTANTS)
def test_optim(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = OPTIM_MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message)
