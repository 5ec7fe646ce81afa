"""Every check names the argument, the rule and the value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pyro_genmodels import _checks as checks
from pyro_genmodels._configuration import Configured, argument_groups
from tests import cases
from tests.cases import Case

NAN = float("nan")
GROUPS = (
    cases.NETS,
    cases.TRANSFORMS,
    cases.CONDITIONAL_TRANSFORMS,
    cases.MODELS,
    cases.DATA_DISTRIBUTIONS,
)
CLASSES = {name.partition("/")[0]: make for group in GROUPS for name, make in group.items()}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checks.check(False, "a", "be b", 3), "`a` must be b; got 3."),
        (
            lambda: checks.check_choice("a", "x", ("y", "z")),
            "`a` must be one of 'y', 'z'; got 'x'.",
        ),
        (lambda: checks.check_positive(a=0), "`a` must be positive; got 0."),
        (lambda: checks.check_positive(a=NAN), "`a` must be positive; got nan."),
        (lambda: checks.check_positive(a=float("inf")), "`a` must be positive; got inf."),
        (
            lambda: checks.check_event_shape((1, 8)),
            "`event_shape` must be positive sizes (D,) or (C, H, W); got (1, 8).",
        ),
        (
            lambda: checks.check_event_shape((1, 0, 8), argument="shape"),
            "`shape` must be positive sizes (D,) or (C, H, W); got (1, 0, 8).",
        ),
        (
            lambda: checks.check_event_shape("123"),
            "`event_shape` must be positive sizes (D,) or (C, H, W); got 123.",
        ),
        (
            lambda: checks.check_trailing("x", torch.zeros(2, 3), (4,)),
            "`x` must have trailing shape (4,); got shape (2, 3).",
        ),
        (
            lambda: checks.check_trailing("x", torch.zeros(3), (1, 3)),
            "`x` must have trailing shape (1, 3); got shape (3,).",
        ),
        (
            lambda: checks.check_levels("x", torch.tensor([0.0, 4.0]), 4),
            "`x` must hold integers from 0 to 3; got values from 0.0 to 4.0.",
        ),
        (
            lambda: checks.check_levels("x", torch.tensor([0.5]), 4),
            "`x` must hold integers from 0 to 3; got [0.5].",
        ),
        (
            lambda: checks.check_levels("x", torch.tensor([0.0, NAN]), 4),
            "`x` must hold integers from 0 to 3; got values from nan to nan.",
        ),
        (
            lambda: checks.check_finite("x", torch.tensor([0.0, NAN, float("inf")])),
            "`x` must be finite; got 2 NaN or infinite elements.",
        ),
    ],
)
def test_messages(call, message) -> None:
    with pytest.raises(ValueError, match=r"^`") as error:
        call()
    assert str(error.value) == message


def test_what_is_right_passes() -> None:
    assert checks.check_event_shape([3, 4, 5]) == torch.Size([3, 4, 5])
    checks.check_levels("x", torch.arange(4), 4)
    checks.check_levels("x", torch.arange(4.0), 4)
    checks.check_levels("x", torch.empty(0), 4)
    checks.check_trailing("x", torch.zeros(2, 3), (3,))
    checks.check_trailing("x", torch.zeros(2), ())
    checks.check_finite("x", torch.arange(3))


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(ImportError, match=r"pip install 'pyro-genmodels\[train\]'"):
        checks.require("no_such_module.part", extra="train")
    assert checks.require("math", extra="train").pi > 3


def test_a_package_broken_inside_speaks_for_itself(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_inside.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        checks.require("broken_inside", extra="train")


@pytest.mark.parametrize("make", CLASSES.values(), ids=CLASSES)
def test_half_a_channel_is_named(make: Callable[[], Case]) -> None:
    """Whatever a constructor declares as an integer, or as several."""
    part = make().part
    assert isinstance(part, Configured)
    given = part.current_arguments()
    groups = argument_groups(type(part))
    for name, parameter in inspect.signature(type(part)).parameters.items():
        if name in groups:  # which check their own fields
            continue
        kinds = str(parameter.annotation).split(" | ")
        wrong = 2.5 if "int" in kinds else [3, 2.5]
        if {"int", "Sequence[int]"} & set(kinds) and not name.endswith("shape"):
            with pytest.raises(ValueError, match=f"`{name}` must be"):
                type(part)(**{**given, name: wrong})


DROPPING = {
    name: make
    for name, make in CLASSES.items()
    if "dropout" in inspect.signature(type(make().part)).parameters
}
# What may be zero, so that a network has no layer that drops.
DEPTHS = ("hidden", "hidden_channels", "num_blocks", "num_layers", "num_resnets")


@pytest.mark.parametrize("rate", [1.0, 1.5, -0.1, NAN])
@pytest.mark.parametrize("make", DROPPING.values(), ids=DROPPING)
def test_a_share_to_drop_is_from_zero_to_below_one(make: Callable[[], Case], rate: float) -> None:
    part = make().part
    given = _without_batch_norm(part)
    with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\); got"):
        type(part)(**given, dropout=rate)
    parameters = inspect.signature(type(part)).parameters
    for depth in (each for each in DEPTHS if each in parameters):
        none = () if "Sequence" in str(parameters[depth].annotation) else 0
        try:
            type(part)(**{**given, depth: none})
        except ValueError:
            continue
        with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\); got"):
            type(part)(**{**given, depth: none}, dropout=rate)


def _without_batch_norm(part: Configured) -> dict[str, Any]:
    """Return a part's arguments, but the share to drop, and what refuses any such share."""
    refused = ("batch_norm", "dropout")
    return {k: v for k, v in part.current_arguments().items() if k not in refused}
