"""Mutants of the slot that hands a log-determinant over from a map to its density."""

from __future__ import annotations

import copy
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_genmodels import testing, transforms
from pyro_genmodels.transforms.base import single_use_cache
from pyro_genmodels.transforms.base.single_use_cache import Dependencies, Slot
from tests.mutants.mutation import Mutation, assert_caught
from tests.mutants.parts import points

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def slotted() -> tuple[Any, Tensor]:
    flow = transforms.RealNVP(3, width=4, num_couplings=2, activation="tanh")
    return testing.randomize_parameters(flow).eval(), points(flow, 2, 3)


def keep_forever(patch: pytest.MonkeyPatch) -> None:
    """Serve by the identity of the pair alone, and again and again: torch's own cache."""

    def take_log_det(self: Any, x: Tensor, y: Tensor, dependencies: Any) -> Tensor | None:
        entry = self._entry
        if entry is None:
            return None
        given, made = (x, y) if entry.forward else (y, x)
        return entry.log_det if entry.given is given and entry.made() is made else None

    def take_input(self: Any, y: Tensor, dependencies: Any) -> Tensor | None:
        entry = self._entry
        if entry is None or not entry.forward or entry.made() is not y:
            return None
        self.put(entry.given, y, entry.log_det, dependencies, forward=False)
        return entry.given  # type: ignore[no-any-return]

    patch.setattr(Slot, "take_log_det", take_log_det)
    patch.setattr(Slot, "take_input", take_input)


def without_stamp(patch: pytest.MonkeyPatch) -> None:
    original = single_use_cache._stamp
    patch.setattr(single_use_cache, "_stamp", lambda *arguments: ((), original(*arguments)[1]))


def without_snapshot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(single_use_cache, "_snapshot", lambda _: [])


def without_checksum(patch: pytest.MonkeyPatch) -> None:
    """Compare values spread over a draw, as over a parameter."""
    patch.setattr(single_use_cache, "checksum", single_use_cache._spread)


def blind_to_attributes(patch: pytest.MonkeyPatch) -> None:
    original = Dependencies.state
    patch.setattr(Dependencies, "state", lambda self: original(self)._replace(plain=[]))


def never_served(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slot, "take_log_det", lambda *_: None)


def log_det_kept_out_of_the_slot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slot, "take_input", lambda *_: None)


SLOT_MUTANTS: dict[str, tuple[str, Mutation, str]] = {
    "stale": ("check_no_stale_value", keep_forever, "is fresh"),
    "blind to .data writes": ("check_no_stale_value", without_snapshot, "write through .data"),
    "served across no_grad": ("check_gradients_survive", without_stamp, "has a gradient"),
    "never served": ("check_single_evaluation", never_served, "log_prob evaluates"),
    "sample inverted again": (
        "check_single_evaluation",
        log_det_kept_out_of_the_slot,
        "rsample then log_prob",
    ),
}


@pytest.mark.parametrize("mutant", SLOT_MUTANTS)
def test_slot(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = SLOT_MUTANTS[mutant]
    flow, x = slotted()
    check = getattr(testing, law)
    assert_caught(lambda: check(flow, x), mutation, monkeypatch, message)


@torch.no_grad()
def changed_after_a_draw(change: str) -> None:
    flow, _ = slotted()
    flow.flow.parts[0].rate = 1.0
    density = testing.flow_distribution(flow, torch.zeros(1, 3, dtype=torch.float64))
    y = density.sample((1000,))
    if change == "a value":
        y.numpy()[500, 1] += 1
    else:
        flow.flow.parts[0].rate = 2.0
        assert flow._slot.take_input(y, flow._dependencies()) is None, "an attribute is not seen"
    assert torch.equal(density.log_prob(y), density.log_prob(y.clone())), "a value is not seen"


EDIT_MUTANTS = {"a value": without_checksum, "an attribute": blind_to_attributes}


@pytest.mark.parametrize("change", EDIT_MUTANTS)
def test_change_after_a_draw(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = f"{change} is not seen"
    assert_caught(lambda: changed_after_a_draw(change), EDIT_MUTANTS[change], monkeypatch, message)


def plain_inverse(patch: pytest.MonkeyPatch) -> None:
    """torch's own: it knows the flow, and registers nothing."""
    patch.setattr(transforms.FlowTransform, "inv", torch.distributions.Transform.inv)


def inverse_of_a_copy(patch: pytest.MonkeyPatch) -> None:
    def inv(self: Any) -> Any:
        return transforms.Inverse(copy.deepcopy(self))

    patch.setattr(transforms.FlowTransform, "inv", property(inv))


INVERSE_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "no module": (plain_inverse, "the inverse of a module is a module"),
    "of a copy": (inverse_of_a_copy, "the inverse has the transform's parameters"),
}


@pytest.mark.parametrize("mutant", INVERSE_MUTANTS)
def test_inverse_module(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, message = INVERSE_MUTANTS[mutant]

    def law() -> None:
        testing.check_inverse_module(slotted()[0])

    assert_caught(law, mutation, monkeypatch, message)


def test_pyros_own_coupling_is_stale() -> None:
    """The identity cache of Pyro 1.9 (#2564) breaks the law that ours keeps."""
    coupling = dist.transforms.affine_coupling(3).double()
    with pytest.raises((AssertionError, RuntimeError)):
        testing.check_no_stale_value(coupling, points(coupling, 2, 3))
