"""Dequantisation: every draw rounds down to its datum, and the density is exactly one."""

from __future__ import annotations

import copy
import pickle

import pyro
import pytest
import torch

from pyro_genmodels.distributions import UniformDequantization


def always_rounding_up(size: torch.Tensor) -> torch.Tensor:
    """The largest uniform that float32 can draw, at which x + u rounds to x + 1."""
    return torch.full_like(size, 1 - 2**-24)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("largest", [False, True])
def test_draws_round_down_to_the_datum(dtype, largest, monkeypatch) -> None:
    if largest:
        monkeypatch.setattr(torch, "rand_like", always_rounding_up)
    x = torch.arange(256, dtype=dtype)
    law = UniformDequantization(x)
    v = law.rsample((500,))
    assert v.shape == (500, 256)
    assert v.dtype == dtype
    assert torch.equal(v.floor(), x.expand(500, 256))
    assert bool((law.log_prob(v) == 0).all())


def test_without_the_guard_a_draw_would_be_the_next_integer(monkeypatch) -> None:
    monkeypatch.setattr(torch, "rand_like", always_rounding_up)
    x = torch.arange(256.0)
    assert bool(((x + torch.rand_like(x)).floor() != x).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_draw_is_the_end_of_the_range(dtype, monkeypatch) -> None:
    """``rand`` gives an exact zero twice an epoch of MNIST, and its logit is infinite."""
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    v = UniformDequantization(torch.zeros(3, dtype=dtype)).rsample()
    assert bool(torch.isfinite((v / 256).logit()).all())
    assert bool((v < 2**-24).all())


def test_other_values_are_impossible() -> None:
    law = UniformDequantization(torch.tensor([3.0]))
    assert law.log_prob(torch.tensor([2.999])).item() == -torch.inf
    assert law.log_prob(torch.tensor([4.0])).item() == -torch.inf


def test_the_noise_is_uniform() -> None:
    u = UniformDequantization(torch.tensor(5.0)).rsample((100_000,)) - 5
    ordered, grid = u.sort().values, torch.linspace(0, 1, 100_000)
    # The Kolmogorov-Smirnov bound at p = 1e-4.
    assert float((ordered - grid).abs().max()) < 2.23 / 100_000**0.5


def test_expand_event_copy_and_validation() -> None:
    law = UniformDequantization(torch.tensor([1.0, 2.0]))
    assert law.expand((3, 2)).rsample().shape == (3, 2)
    event = pickle.loads(pickle.dumps(copy.deepcopy(law.to_event(1))))
    assert event.log_prob(event.rsample((4,))).shape == (4,)
    with pyro.plate("data", 2):
        assert pyro.sample("v", law).shape == (2,)
