"""Laws of Langevin dynamics: what the steps leave invariant, and what they do to a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.distributions import Beta, Categorical, Gamma, MixtureSameFamily, Normal
from pyro.infer import MCMC
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from pyro_genmodels.mcmc import MALA, Langevin, langevin_samples
from pyro_genmodels.testing.report import require_within

STEP_SIZE = 1.4


def chain(kernel: Any, num_samples: int, warmup_steps: int = 0, **start: Tensor) -> dict[str, Any]:
    """Samples of one chain."""
    options = {"initial_params": start} if start else {}
    mcmc = MCMC(kernel, num_samples, warmup_steps, disable_progbar=True, **options)
    mcmc.run()
    samples: dict[str, Any] = mcmc.get_samples()
    return samples


def half_square(z: dict[str, Tensor]) -> Tensor:
    """Potential energy of a standard normal distribution."""
    return 0.5 * z["x"].square().sum()


def require_mean(law: str, values: Tensor, expected: Tensor | float) -> None:
    """The mean of a chain's values, to three standard errors of its effective sample size."""
    size = effective_sample_size(values[None, :])
    error = (values.mean(0) - expected).abs()
    require_within(law, error, 3 * values.std(0) / size.sqrt())


def acceptance(step_size: float) -> float:
    """Mean acceptance probability of MALA on a normal distribution of variance one.

    It is twice the probability that the proposal has the smaller energy error; the error is
    proportional to the difference of the squares.
    """
    half = step_size / 2
    return 2 / math.pi * (math.atan(half) + math.atan(1 / half - half))


def check_biased_variance(*, step_size: float = STEP_SIZE, count: int = 20_000) -> None:
    """Unadjusted Langevin dynamics of a Gaussian: the variance is v / (1 - step^2 / (4 v))."""
    for variance in (1.0, 4.0):
        expected = variance / (1 - step_size**2 / (4 * variance))
        end = langevin_samples(lambda x, v=variance: -x / v, torch.zeros(count), 60, step_size)
        squares = end.square()
        error = (squares.mean() - expected).abs()
        require_within("variance of the chain", error, 3 * squares.std() / count**0.5)


def check_kernel_variance(num_samples: int = 3000) -> None:
    """As above, by the kernel: each of three coordinates."""
    torch.manual_seed(1)
    x = chain(
        Langevin(potential_fn=half_square, step_size=STEP_SIZE), num_samples, x=torch.zeros(3)
    )
    expected = 1 / (1 - STEP_SIZE**2 / 4)
    require_mean("variance of the kernel's chain", x["x"].square(), expected)
    require_mean("mean of the kernel's chain", x["x"], 0.0)


def mixture() -> Any:
    """Two unequal Gaussians on the line."""
    parts = Normal(torch.tensor([-1.0, 1.5]), torch.tensor([0.5, 0.8]))
    return MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7])), parts)


def gradient(log_density: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The score of a density."""

    def score(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(log_density(x).sum(), x)[0]

    return score


def check_leaves_invariant(count: int = 20_000, num_steps: int = 15) -> None:
    """Adjusted steps take exact samples to exact samples, though the steps are long.

    Kolmogorov and Smirnov's distance, below its 99.9 % quantile.
    """
    target = mixture()
    score = gradient(target.log_prob)
    x = target.sample((count,))
    for step_size in (0.4, 1.2):
        end = langevin_samples(score, x, num_steps, step_size, log_density=target.log_prob)
        assert (end != x).double().mean() > 0.02
        uniform = torch.stack(
            [w * Normal(m, s).cdf(end) for w, m, s in [(0.3, -1.0, 0.5), (0.7, 1.5, 0.8)]]
        ).sum(0)
        ordered = uniform.sort().values
        above = torch.arange(1, count + 1) / count
        distance = torch.maximum(above - ordered, ordered - above + 1 / count).max()
        require_within(f"distribution after steps of {step_size}", distance, 1.95 / count**0.5)


def check_acceptance(count: int = 40_000) -> None:
    """The share of accepted steps on a Gaussian is the closed form, in equilibrium."""
    for step_size in (0.5, STEP_SIZE, 2.0):
        x = torch.randn(count)
        end = langevin_samples(torch.neg, x, 1, step_size, log_density=lambda x: -0.5 * x.square())
        share = (end != x).double()
        error = (share.mean() - acceptance(step_size)).abs()
        require_within(f"acceptance of steps of {step_size}", error, 3 * share.std() / count**0.5)


def check_kernel_acceptance(num_samples: int = 3000) -> None:
    """As above, by the kernel."""
    torch.manual_seed(2)
    kernel = MALA(
        potential_fn=half_square, step_size=2.0, adapt_step_size=False, adapt_mass_matrix=False
    )
    x = chain(kernel, num_samples, x=torch.zeros(1))["x"].squeeze(-1)
    share = (x[1:] != x[:-1]).double()
    require_mean("acceptance of the kernel", share, acceptance(2.0))
    require_mean("variance under the kernel", x.square(), 1.0)


def constrained() -> None:
    """Sites on the positive half line and on the unit interval, and a mixture, by a factor."""
    pyro.sample("rate", Gamma(3.0, 2.0))
    pyro.sample("share", Beta(2.0, 3.0))
    x = pyro.sample("x", Normal(0.0, 2.0))
    pyro.factor("mixture", mixture().log_prob(x) - Normal(0.0, 2.0).log_prob(x))


def check_constrained(num_samples: int = 2000) -> None:
    """The kernel's samples of a Pyro model have the moments of its sites."""
    torch.manual_seed(3)
    samples = chain(MALA(constrained), num_samples, 300)
    assert (samples["rate"] > 0).all()
    moments = {"rate": (1.5, 0.75), "share": (0.4, 0.04)}
    moments["x"] = (mixture().mean.item(), mixture().variance.item())
    for site, (mean, variance) in moments.items():
        require_mean(f"mean of {site}", samples[site], mean)
        require_mean(f"variance of {site}", (samples[site] - mean).square(), variance)
