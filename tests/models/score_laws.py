"""Laws of score matching losses, on a mixture whose score is known, before and after noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyro_genmodels import models
from pyro_genmodels.models import ScoreMatchingLoss
from pyro_genmodels.testing.report import require_within

NOISE_SCALE = 0.6
MAKERS: dict[str, Callable[..., ScoreMatchingLoss]] = {
    "denoising": lambda score, **options: models.DenoisingScoreMatching(
        score, NOISE_SCALE, **options
    ),
    "sliced": models.SlicedScoreMatching,
    "several projections": lambda score, **options: models.SlicedScoreMatching(
        score, num_projections=3, **options
    ),
    "exact": models.ExactScoreMatching,
}


def mixture(noise_scale: float = 0.0) -> MixtureSameFamily:
    """Three Gaussians in the plane, with Gaussian noise added."""
    loc = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, -1.5]])
    scale = torch.tensor([[0.5, 0.8], [0.7, 0.4], [0.6, 0.6]])
    parts = Independent(Normal(loc, (scale**2 + noise_scale**2).sqrt()), 1)
    return MixtureSameFamily(Categorical(torch.tensor([0.5, 0.3, 0.2])), parts)


def score_of(distribution: Any, x: Tensor) -> Tensor:
    """The true score; `x` may be part of a graph."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        nats = distribution.log_prob(x).sum()
        return torch.autograd.grad(nats, x, create_graph=True)[0]


class Perturbed(nn.Module):
    """The true score plus a known error, which depends on parameters (one set per example)."""

    def __init__(self, distribution: Any, parameters: Tensor) -> None:
        super().__init__()
        self.distribution, self.free = distribution, parameters

    def error(self, x: Tensor) -> Tensor:
        first, second = self.free[..., :1], self.free[..., 1:]
        return first * (x.flip(-1).sin() + 0.5 * x) + second * (2 * x).tanh()

    def forward(self, x: Tensor) -> Tensor:
        return score_of(self.distribution, x) + self.error(x)


def noise_of(name: str) -> float:
    return NOISE_SCALE if name == "denoising" else 0.0


def fisher(name: str, parameters: Tensor, count: int) -> Tensor:
    """Terms of the Fisher divergence, on samples of their own."""
    distribution = mixture(noise_of(name))
    x = distribution.sample((count,))
    return 0.5 * Perturbed(distribution, parameters).error(x).square().sum(-1)


def constant(name: str, count: int) -> Tensor:
    """Terms of the constant between loss and divergence, on samples of their own."""
    distribution = mixture(noise_of(name))
    half_norm = 0.5 * score_of(distribution, distribution.sample((count,))).square().sum(-1)
    return (2 / (2 * NOISE_SCALE**2) if name == "denoising" else 0.0) - half_norm.detach()


def require_mean_zero(law: str, *terms: Tensor) -> None:
    """Terms from independent samples, whose means add up to zero, to three standard errors."""
    total = torch.stack([t.mean(0) for t in terms]).sum(0)
    variance = torch.stack([t.var(0) / len(t) for t in terms]).sum(0)
    require_within(law, total.abs(), 3 * variance.sqrt())


def check_score_matching(name: str, *, count: int = 40_000) -> None:
    """A loss is the Fisher divergence but for its constant, and has its gradient."""
    loss_of = MAKERS[name]
    torch.manual_seed(1)
    x = mixture().sample((count,))
    target = mixture(noise_of(name))
    for values in ([0.0, 0.0], [0.4, -0.2], [-0.3, 0.7]):
        parameters = torch.tensor(values).expand(count, 2).clone().requires_grad_()
        losses = loss_of(Perturbed(target, parameters))(x)
        terms = fisher(name, parameters, count)
        law = f"{name}: loss = Fisher divergence + constant at {values}"
        require_mean_zero(law, losses.detach(), -terms.detach(), -constant(name, count))
        (gradients,) = torch.autograd.grad(losses.sum(), parameters)
        (due,) = torch.autograd.grad(terms.sum(), parameters)
        require_mean_zero(f"{name}: gradients at {values}", gradients, -due)


def check_sliced_is_exact(*, count: int = 400, repetitions: int = 400) -> None:
    """The mean over directions is the exact loss, of each example on its own."""
    torch.manual_seed(2)
    x = mixture().sample((count,))
    score = Perturbed(mixture(), torch.tensor([0.4, -0.2]))
    exact = models.ExactScoreMatching(score)(x).detach()
    sliced = models.SlicedScoreMatching(score)
    draws = torch.stack([sliced(x).detach() for _ in range(repetitions)])
    require_mean_zero("sliced = exact, summed over examples", (draws - exact).sum(-1))
    error = (draws.mean(0) - exact).abs()
    # Among hundreds of examples some are beyond three standard errors; none is beyond five.
    spread = 5 * draws.std(0) / repetitions**0.5 + 1e-9
    require_within("sliced = exact, of each example", error, spread)
