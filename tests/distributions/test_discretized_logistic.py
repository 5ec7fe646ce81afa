"""Laws of the discretised logistic: exact masses at every parameter, a sampler equal in law."""

from __future__ import annotations

import pickle

import pytest
import torch
from pyro.distributions import TorchDistribution

from pyro_genmodels.distributions import DiscretizedLogistic

LOCS = torch.linspace(-2, 2, 41, dtype=torch.float64)
LOG_SCALES = torch.linspace(-7, 3, 41, dtype=torch.float64)


def grid(num_levels: int, dtype: torch.dtype = torch.float64) -> DiscretizedLogistic:
    return DiscretizedLogistic(LOCS.to(dtype)[:, None], LOG_SCALES.to(dtype), num_levels)


@pytest.mark.parametrize("num_levels", [2, 3, 17, 256])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_sums_to_one(num_levels: int, dtype: torch.dtype, bound: float) -> None:
    levels = grid(num_levels, dtype)
    total = levels.log_prob(levels.enumerate_support()).exp().sum(0)
    assert total.dtype == dtype
    torch.testing.assert_close(total, torch.ones_like(total), atol=bound, rtol=0)


@pytest.mark.parametrize("num_levels", [2, 17])
def test_equals_difference_of_cdfs(num_levels: int) -> None:
    """Where the naive formula is safe (scales that are not tiny) both must agree."""
    levels = DiscretizedLogistic(LOCS[:, None], LOG_SCALES[LOG_SCALES > -2], num_levels)
    value, scale = levels.enumerate_support(), levels.log_scale.exp()
    centre, half = 2 * value / (num_levels - 1) - 1, 1 / (num_levels - 1)
    upper = torch.sigmoid((centre + half - levels.loc) / scale)
    lower = torch.sigmoid((centre - half - levels.loc) / scale)
    upper = torch.where(value == num_levels - 1, 1.0, upper)
    lower = torch.where(value == 0, 0.0, lower)
    torch.testing.assert_close(levels.log_prob(value).exp(), upper - lower, atol=1e-12, rtol=0)


def test_second_highest_level_has_no_tail() -> None:
    """One reference's threshold catches 254 as well as 255, so its masses sum to 1.49."""
    levels = DiscretizedLogistic(torch.tensor(0.0), torch.tensor(-1.0), 256)
    second, top = levels.log_prob(torch.tensor(254.0)), levels.log_prob(torch.tensor(255.0))
    assert second < top - 2


@pytest.mark.parametrize("loc", [-0.999, 0.0, 0.37, 1.0])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, -1.0, 0.0, 3.0])
def test_samples_follow_log_prob(loc: float, log_scale: float) -> None:
    levels = DiscretizedLogistic(torch.tensor(loc), torch.tensor(log_scale), 17)
    n = 40_000
    draws = levels.sample((n,))
    counts = torch.bincount(draws.long(), minlength=17).double()
    expected = levels.log_prob(levels.enumerate_support()).double().exp() * n
    seen = expected > 5
    statistic = ((counts - expected)[seen].square() / expected[seen]).sum().item()
    # Four standard deviations above a chi-square's mean; the rare levels together stay rare.
    degrees = max(int(seen.sum()) - 1, 1)
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5
    assert counts[~seen].sum() < expected[~seen].sum() + 6 + 4 * expected[~seen].sum().sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_extremes(dtype: torch.dtype) -> None:
    loc = torch.tensor([-5.0, -1.0, 0.0, 0.3, 1.0, 5.0], dtype=dtype).requires_grad_()
    log_scale = torch.tensor([-40.0, -20.0, -7.0, 0.0, 3.0, 20.0, 40.0], dtype=dtype)
    log_scale.requires_grad_()
    levels = DiscretizedLogistic(loc[:, None], log_scale, 256)
    log_prob = levels.log_prob(levels.enumerate_support())
    assert torch.isfinite(log_prob).all()
    for gradient in torch.autograd.grad(log_prob.sum(), [loc, log_scale]):
        assert torch.isfinite(gradient).all()


def test_gradients_equal_finite_differences() -> None:
    value = torch.arange(5.0, dtype=torch.float64)[:, None]

    def log_prob(loc: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        return DiscretizedLogistic(loc, log_scale, 5).log_prob(value)

    loc = torch.tensor([-1.2, 0.1, 0.9], dtype=torch.float64, requires_grad=True)
    log_scale = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_prob, (loc, log_scale))


def test_moments_and_entropy_equal_enumeration() -> None:
    levels = grid(9)
    value = levels.enumerate_support()
    mass = levels.log_prob(value).exp()
    mean = (mass * value).sum(0)
    torch.testing.assert_close(levels.mean, mean)
    torch.testing.assert_close(levels.variance, (mass * (value - mean) ** 2).sum(0))
    entropy = -(mass * mass.clamp(min=1e-300).log()).sum(0)
    torch.testing.assert_close(levels.entropy(), entropy, atol=1e-10, rtol=1e-8)


def test_shapes_expand_and_to_event() -> None:
    levels = DiscretizedLogistic(torch.zeros(3, 1), torch.zeros(4), 7)
    assert levels.batch_shape == (3, 4)
    wide = levels.expand((2, 3, 4))
    assert isinstance(wide, TorchDistribution)
    assert wide.batch_shape == (2, 3, 4)
    assert wide.sample((5,)).shape == (5, 2, 3, 4)
    value = wide.sample()
    torch.testing.assert_close(wide.log_prob(value), levels.log_prob(value))
    assert wide.to_event(2).log_prob(value).shape == (2,)
    assert levels.enumerate_support(expand=False).shape == (7, 1, 1)
    masked = wide.mask(torch.tensor(False))
    assert (masked.log_prob(value) == 0).all()


def test_pickle_keeps_the_law() -> None:
    levels = DiscretizedLogistic(torch.tensor([0.2]), torch.tensor([-1.0]), 7)
    again = pickle.loads(pickle.dumps(levels))
    value = levels.enumerate_support()
    assert torch.equal(again.log_prob(value), levels.log_prob(value))


def test_integers_of_any_dtype_score_alike() -> None:
    levels = DiscretizedLogistic(torch.tensor(0.2), torch.tensor(-1.0), 7)
    value = torch.arange(7)
    expected = levels.log_prob(value.float())
    for dtype in (torch.uint8, torch.int64, torch.float64):
        torch.testing.assert_close(levels.log_prob(value.to(dtype)), expected)


@pytest.mark.parametrize("value", [-1.0, 7.0, 2.5, float("nan")])
def test_other_values_are_errors(value: float) -> None:
    levels = DiscretizedLogistic(torch.tensor(0.2), torch.tensor(-1.0), 7, validate_args=True)
    with pytest.raises(ValueError, match="value"):
        levels.log_prob(torch.tensor(value))


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match=r"`num_levels` must be at least 2; got 1\."):
        DiscretizedLogistic(torch.tensor(0.0), torch.tensor(0.0), 1)
    with pytest.raises(ValueError, match="log_scale"):
        DiscretizedLogistic(torch.tensor(0.0), torch.tensor(99.0), 7, validate_args=True)
