"""Log-masses of counts against SciPy, and against many digits where SciPy loses its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_genmodels.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

MEANS = (1e-10, 1e-3, 0.5, 3.0, 50.0, 1e4, 1e6, 1e8)
DISPERSIONS = (1e-8, 1e-3, 0.3, 1.0, 7.0, 31.9, 32.1, 1e3, 1e6, 1e10)


def grid(
    dtype: torch.dtype, least: float = 0.0, most: float = math.inf
) -> tuple[Tensor, Tensor, Tensor]:
    """Means, inverse dispersions, and counts around each mean and far from it."""
    points = []
    for mu in (m for m in MEANS if least <= m <= most):
        for theta in (t for t in DISPERSIONS if least <= t <= most):
            deviation = (mu + mu**2 / theta) ** 0.5
            near = (round(mu + k * deviation) for k in (-1, 0, 1, 5))
            counts = {0, 1, 2, 17, 100, 10**6, *near}
            points += [(mu, theta, float(x)) for x in counts if 0 <= x <= min(most * 100, 1e12)]
    mu, theta, x = torch.tensor(sorted(set(points)), dtype=dtype).unbind(-1)
    return mu, theta, x


def exact(mu: Tensor, theta: Tensor, x: Tensor) -> Tensor:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        found = []
        for m, t, k in zip(mu.tolist(), theta.tolist(), x.tolist(), strict=True):
            m, t, k = mpmath.mpf(m), mpmath.mpf(t), mpmath.mpf(k)
            nats = mpmath.loggamma(k + t) - mpmath.loggamma(t) - mpmath.loggamma(k + 1)
            nats += t * mpmath.log(t / (t + m)) + k * mpmath.log(m / (t + m))
            found.append(float(nats))
    return torch.tensor(found, dtype=torch.float64)


def test_log_mass_is_that_of_scipy() -> None:
    """Of ordinary sizes: SciPy takes a probability, in which a mean of 1e-10 is rounded away."""
    stats = pytest.importorskip("scipy.stats")
    mu, theta, x = grid(torch.float64, 1e-3, 50.0)
    expected = torch.as_tensor(stats.nbinom.logpmf(x, theta, theta / (theta + mu)))
    law = NegativeBinomial(mu, theta)
    torch.testing.assert_close(law.log_prob(x), expected, rtol=1e-10, atol=1e-10)
    moments = stats.nbinom.stats(theta, theta / (theta + mu))
    for moment, value in zip((law.mean, law.variance), moments, strict=True):
        torch.testing.assert_close(moment, torch.as_tensor(value), rtol=1e-6, atol=0)
    logits = torch.linspace(-50, 50, len(x), dtype=torch.float64)
    inflated = ZeroInflatedNegativeBinomial(mu, theta, logits).log_prob(x)
    zero = torch.where(x == 0, torch.logaddexp(expected, logits), expected)
    expected = zero - torch.logaddexp(logits, torch.zeros_like(logits))
    torch.testing.assert_close(inflated, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 3e-4)])
def test_extreme_parameters_keep_their_digits(dtype: torch.dtype, rtol: float) -> None:
    """Relative to the nats, or to one nat."""
    mu, theta, x = grid(dtype)
    nats = NegativeBinomial(mu, theta).log_prob(x)
    expected = exact(mu, theta, x)
    error = (nats.double() - expected).abs() / expected.abs().clamp(min=1)
    worst = int(error.argmax())
    assert error[worst] < rtol, (mu[worst], theta[worst], x[worst], nats[worst], expected[worst])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_are_finite_and_right(dtype: torch.dtype) -> None:
    mu, theta, x = (t.requires_grad_(k < 2) for k, t in enumerate(grid(dtype)))
    logits = torch.linspace(-100, 100, len(x), dtype=dtype, requires_grad=True)
    ZeroInflatedNegativeBinomial(mu, theta, logits).log_prob(x).sum().backward()
    for parameter in (mu, theta, logits):
        assert bool(parameter.grad.isfinite().all())
    mu.grad = None
    NegativeBinomial(mu, theta).log_prob(x).sum().backward()
    m, t, k = (v.detach().double() for v in (mu, theta, x))
    slope = t * (k - m) / (t + m)  # with respect to the logarithm of the mean
    size = t * (k + m) / (t + m)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-10
    assert bool(((mu.grad.double() * m - slope).abs() <= tolerance * (slope.abs() + size)).all())
