"""Noise schedules: they rise between finite ends, in any dtype, and their copies are alike."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pyro_genmodels import nets
from pyro_genmodels._configuration import build, configuration

SCHEDULES: dict[str, Callable[[], nets.NoiseSchedule]] = {
    "Cosine": nets.Cosine,
    "Cosine/far": lambda: nets.Cosine(-20.0, 15.0),
    "Geometric": nets.Geometric,
    "Geometric/far": lambda: nets.Geometric(1e-4, 500.0),
    "LinearBeta": nets.LinearBeta,
    "LinearBeta/two": lambda: nets.LinearBeta(0.1, 0.9, num_betas=2),
    "LinearLogSNR": nets.LinearLogSNR,
    "LinearLogSNR/fixed": lambda: nets.LinearLogSNR(-8.0, 4.0, learnable=False),
}
each = pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)


@each
@pytest.mark.parametrize("num_steps", [1, 7, 1000])
def test_levels_rise_between_the_ends(
    make: Callable[[], nets.NoiseSchedule], num_steps: int
) -> None:
    schedule = make()
    single = schedule.grid(num_steps)
    assert single.shape == (num_steps + 1,)
    assert single.dtype == torch.float32
    assert single.isfinite().all()
    assert (single.diff() > 0).all()
    first, last = schedule.ends
    assert torch.equal(single[[0, -1]], torch.stack([first, last]))
    double = copy.deepcopy(schedule).double().grid(num_steps)
    assert double.dtype == torch.float64
    assert (double - single).abs().max() <= 1e-4
    assert torch.equal(schedule(torch.linspace(0, 1, num_steps + 1)), single)


@each
def test_levels_of_any_shape_of_times(make: Callable[[], nets.NoiseSchedule]) -> None:
    schedule, times = make(), torch.rand(2, 3, 1)
    assert torch.equal(schedule(times), schedule(times.flatten()).view(2, 3, 1))
    assert schedule(times[0, 0, 0]).shape == ()
    for outside in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="`time` must lie between 0 and 1"):
            schedule(torch.tensor([0.5, outside]))
    with pytest.raises(ValueError, match="`num_steps` must be positive; got 0"):
        schedule.grid(0)
    with pytest.raises(ValueError, match="`num_steps` must be an integer"):
        schedule.grid(1.5)  # type: ignore[arg-type]


@each
def test_levels_are_exact_under_autocast(make: Callable[[], nets.NoiseSchedule]) -> None:
    schedule = make()
    expected = schedule.grid(20)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(schedule.grid(20), expected)


@each
def test_copies_have_the_same_levels(make: Callable[[], nets.NoiseSchedule]) -> None:
    schedule = make()
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter.mul_(1.1)
    expected = schedule.grid(9)
    with torch.device("meta"):
        empty = make()
    empty.to_empty(device="cpu").load_state_dict(schedule.state_dict())
    rebuilt = build(configuration(schedule))
    rebuilt.load_state_dict(schedule.state_dict())
    copies = [copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule)), empty, rebuilt]
    for other in copies:
        assert torch.equal(other.grid(9), expected)


def test_only_learned_ends_are_parameters() -> None:
    learned, fixed = nets.LinearLogSNR(-8.0, 4.0), nets.LinearLogSNR(-8.0, 4.0, learnable=False)
    assert [name for name, _ in learned.named_parameters()] == list(nets.LinearLogSNR.undecayed)
    assert list(fixed.parameters()) == []
    assert fixed.state_dict() == {}
    assert torch.equal(learned.grid(5), fixed.grid(5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nets.Cosine(1.0, 1.0),
        lambda: nets.LinearLogSNR(-3.0, math.inf),
        lambda: nets.LinearLogSNR(math.nan, 1.0),
        lambda: nets.Geometric(1.0, 0.5),
        lambda: nets.Geometric(0.0, 0.5),
        lambda: nets.LinearBeta(0.0, 0.5),
        lambda: nets.LinearBeta(0.1, 1.0),
        lambda: nets.LinearBeta(num_betas=1),
    ],
)
def test_impossible_ends_are_an_error(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"^`.*` must .*; got"):
        make()
