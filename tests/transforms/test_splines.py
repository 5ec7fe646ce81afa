"""Rational-quadratic splines: where they are the identity, what they are inside, float32."""

from __future__ import annotations

import pytest
import torch
from pyro.distributions.transforms.spline import _monotonic_rational_spline
from torch import Tensor, nn

from pyro_genmodels import nets, transforms
from pyro_genmodels.transforms.couplings.spline import LEAST_BIN, LEAST_SLOPE
from tests.transforms.flows import randomized

BINS, BOUND = 5, 2.0


class Given(nn.Module):
    """A network that answers the same for every event."""

    def __init__(self, parameters: Tensor) -> None:
        super().__init__()
        self.parameters_of_one = nn.Parameter(parameters)

    def forward(self, x: Tensor) -> Tensor:
        return self.parameters_of_one.expand(*x.shape[:-1], -1)


def spline(parameters: Tensor | None = None, **options) -> transforms.SplineCoupling:
    """Return a coupling of pairs: the second element passes one and the same spline."""
    count = transforms.SplineCoupling.parameters_of(BINS)
    parameters = torch.randn(count, dtype=torch.float64) if parameters is None else parameters
    options = {"num_bins": BINS, "bound": BOUND} | options
    return transforms.SplineCoupling(transforms.HalfMask(), Given(parameters), **options)


def pairs(values: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(values), values], dim=-1)


def evaluate(flow: transforms.SplineCoupling, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the spline's values and log-slopes, from data to noise."""
    x, log_det = flow.inverse_and_log_det(pairs(y))
    return x[..., 1], log_det


def test_zeros_of_the_network_are_the_identity() -> None:
    flow = spline(torch.zeros(3 * BINS - 1, dtype=torch.float64))
    y = torch.linspace(-3, 3, 101, dtype=torch.float64)
    x, log_slope = evaluate(flow, y)
    torch.testing.assert_close(x, y, atol=1e-12, rtol=0)
    torch.testing.assert_close(log_slope, 0 * y, atol=1e-12, rtol=0)


def test_a_new_coupling_is_the_identity() -> None:
    y = 2 * torch.randn(50, 3)
    torch.testing.assert_close(transforms.spline_coupling(3).inv(y), y)


@pytest.mark.parametrize("far", [2.0, 2.1, 50.0, 1e4, 1e30])
def test_the_identity_outside(far) -> None:
    y = torch.tensor([-far, far], dtype=torch.float64)
    x, log_slope = evaluate(spline(), y)
    assert torch.equal(x, y)
    assert torch.equal(log_slope, 0 * y)


def test_continuous_with_slope_one_at_the_bounds() -> None:
    ends = torch.tensor([-BOUND, BOUND], dtype=torch.float64)
    for seed in range(20):
        torch.manual_seed(seed)
        x, log_slope = evaluate(spline(), ends * (1 - 1e-9))
        torch.testing.assert_close(x, ends, atol=1e-8, rtol=0)
        torch.testing.assert_close(log_slope, 0 * ends, atol=1e-6, rtol=0)


def test_slopes_are_continuous_and_positive() -> None:
    y = torch.linspace(-2.5, 2.5, 200_001, dtype=torch.float64)
    x, log_slope = evaluate(spline(0.5 * torch.randn(3 * BINS - 1, dtype=torch.float64)), y)
    assert bool((x.diff() > 0).all())
    assert float(log_slope.exp().diff().abs().max().detach()) < 5e-3
    between = (x.diff() / y.diff()).log()
    torch.testing.assert_close(between, (log_slope[1:] + log_slope[:-1]) / 2, atol=1e-3, rtol=0)


def test_agrees_with_pyros_spline() -> None:
    """The same knots and slopes in an evaluation that is not ours."""
    flow = spline()
    y = 3 * torch.randn(200, dtype=torch.float64)
    raw = flow.net.parameters_of_one.detach()
    sizes = raw[: 2 * BINS].reshape(2, BINS).softmax(-1)
    sizes = LEAST_BIN + (1 - LEAST_BIN * BINS) * sizes
    offset = torch.expm1(torch.tensor(1 - LEAST_SLOPE, dtype=torch.float64)).log()
    slopes = LEAST_SLOPE + nn.functional.softplus(raw[2 * BINS :] + offset)
    widths, heights, slopes = (v.expand(200, -1) for v in (*sizes, slopes))
    options = {"bound": BOUND, "min_bin_width": 0.0, "min_bin_height": 0.0, "min_derivative": 0.0}
    for inverse in (False, True):
        expected = _monotonic_rational_spline(
            y, widths, heights, slopes, inverse=inverse, **options
        )
        ours = flow.forward_and_log_det if inverse else flow.inverse_and_log_det
        actual = ours(pairs(y))
        torch.testing.assert_close(actual[0][:, 1], expected[0], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(actual[1], expected[1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("size", [1.0, 5.0, 30.0, 1000.0])
def test_single_precision_round_trips_with_bins_nearly_empty(size) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        flow = spline(size * torch.randn(3 * BINS - 1))
        y = torch.linspace(-2.5, 2.5, 2001)
        x, log_slope = evaluate(flow, y)
        assert bool(torch.isfinite(x).all())
        assert bool(torch.isfinite(log_slope).all())
        back, log_det = flow.forward_and_log_det(pairs(x))
        # A rounded x moves y by the inverse's slope; this is what rounding alone does.
        bound = 3e-5 * (1 + torch.exp(-log_slope))
        assert bool(((back[:, 1] - y).abs() <= bound).all())
        assert bool(torch.isfinite(log_det).all())


def test_gradients_are_finite_everywhere() -> None:
    """In the middle of a knot, at the bounds and far outside, whose untaken branch could be nan."""
    flow = spline(10 * torch.randn(3 * BINS - 1))
    y = torch.tensor([-1e30, -BOUND, -1.0, 0.0, 1.0, BOUND, 1e30]).requires_grad_()
    for map_ in (flow.inverse_and_log_det, flow.forward_and_log_det):
        x, log_det = map_(pairs(y))
        gradients = torch.autograd.grad(
            x.clamp(-5, 5).sum() + log_det.sum(), [y, *flow.parameters()]
        )
        assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_a_conditional_spline_depends_on_its_context() -> None:
    twin = transforms.conditional_spline_coupling(2, 3, hidden=(8,))
    randomized(twin)
    y = torch.randn(2)
    x = twin.condition(torch.randn(4, 3)).inv(y)
    assert x.shape == (4, 2)
    assert len(x[:, 1].unique()) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spline(num_bins=1), "`num_bins` must be from 2 to 999; got 1"),
        (lambda: spline(num_bins=1000), "`num_bins` must be from 2 to 999; got 1000"),
        (lambda: spline(bound=0.0), "`bound` must be positive; got 0"),
        (
            lambda: transforms.SplineCoupling(transforms.HalfMask(), nets.MLP(1, 7))(torch.ones(2)),
            r"`net` must return 23 features for events \(2,\); got 7",
        ),
    ],
)
def test_errors(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
