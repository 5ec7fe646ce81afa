"""What a run's curves say of it: undertrained, overfitted or neither; and its best epoch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from pyro_genmodels.training import diagnosis
from pyro_genmodels.training.history import best_epoch

Curve = Callable[[float], float]


def history(
    number: int, validation: Curve, training: Curve, noise: float = 0.0, unit: str = "nats"
) -> list[dict[str, float]]:
    """Return rows of two curves over the part of the run that is done, from 0 to 1."""
    draw = random.Random(number).gauss
    return [
        {
            "epoch": epoch,
            f"training_{unit}": training(epoch / number),
            f"validation_{unit}": validation(epoch / number) + draw(0, noise),
        }
        for epoch in range(1, number + 1)
    ]


def falling(t: float) -> float:
    return 3 - t


def settled(t: float) -> float:
    return 2 + math.exp(-15 * t)


def turning(t: float) -> float:
    return 2 + math.exp(-15 * t) + 0.4 * max(0.0, t - 0.3)


NUMBERS = [5, 8, 20, 100, 1000]


@pytest.mark.parametrize("unit", ["nats", "bits_per_dim"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_run_is_undertrained_overfitted_or_neither(number: int, unit: str) -> None:
    """Whatever a run's length, in either unit, with a little noise."""
    cases = {"undertrained": falling, "overfitted": turning, "None": settled}
    for noise in (0.0, 0.002):
        for expected, curve in cases.items():
            if number == 5 and (noise or curve is settled):
                continue  # settles within one epoch of five
            rows = history(number, curve, falling, noise, unit)
            assert expected in str(diagnosis(rows)), (noise, expected)


@pytest.mark.parametrize("number", [5, 10, 30, 100])
def test_noise_alone_says_nothing(number: int) -> None:
    """A plateau is neither, but for what four standard errors of a few epochs let through."""
    alarms = 0
    for seed in range(200):
        draw = random.Random(seed).gauss
        rows = history(number, lambda t: 2 + math.exp(-50 * t), falling)
        rows = [{**row, "validation_nats": row["validation_nats"] + draw(0, 0.1)} for row in rows]
        alarms += diagnosis(rows) is not None
    assert alarms <= 14


def test_a_rise_without_a_fall_of_the_training_loss_is_no_overfitting() -> None:
    assert diagnosis(history(50, turning, turning)) is None


def test_figures_and_remedies_are_named() -> None:
    text = str(diagnosis(history(100, turning, falling, unit="bits_per_dim")))
    assert "epoch 30 of 100" in text
    assert "0.24 bits/dim" in text
    assert "--patience" in text
    assert "--max_epochs" in str(diagnosis(history(100, falling, falling)))


def test_epochs_that_are_not_finite_or_too_few_are_no_matter() -> None:
    rows = history(40, turning, falling)
    expected = diagnosis(rows)
    broken = {**rows[0], "validation_nats": math.nan}
    assert diagnosis([broken, *rows, {**broken, "validation_nats": math.inf}]) == expected
    assert diagnosis([]) is diagnosis(rows[:4]) is diagnosis([broken] * 40) is None
    assert best_epoch([broken]) is best_epoch([]) is None
    assert best_epoch([broken, *rows]) == 12
