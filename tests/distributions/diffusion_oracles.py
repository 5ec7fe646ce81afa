"""Exact denoisers of known data, and what a chain's likelihood and bound are under them."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from pyro_genmodels.distributions import Denoised, step_between
from pyro_genmodels.distributions.diffusion.reverse import Denoise
from pyro_genmodels.distributions.diffusion.steps import log_variance_of
from pyro_genmodels.models import DiffusionModel
from pyro_genmodels.nets import signal_and_noise


class MixtureDenoiser(nn.Module):
    r"""The conditional mean :math:`E[x \mid z]` of a mixture of diagonal Gaussians.

    One component is Gaussian data; components without variance are a finite data set.

    Args:
        means: ``(N, D)``.
        variances: ``(N, D)``, or what broadcasts to it.
        weights: ``(N)``, equal by default.
    """

    means: Tensor
    variances: Tensor
    log_weights: Tensor

    def __init__(self, means: Tensor, variances: Tensor, weights: Tensor | None = None) -> None:
        super().__init__()
        if weights is None:
            weights = torch.full(means.shape[:1], 1 / len(means), dtype=means.dtype)
        self.register_buffer("means", means)
        self.register_buffer("variances", variances.expand_as(means))
        self.register_buffer("log_weights", weights.log())
        self.calls = 0
        # What a model asks of its estimator.
        self.self_conditioning, self.learns_variance = False, False

    def forward(
        self, z: Tensor, level: Tensor, context: Tensor | None = None, keep: Tensor | None = None
    ) -> Denoised:
        self.calls += 1
        alpha, sigma = (f[..., None, None] for f in signal_and_noise(level))
        residual = z.unsqueeze(-2) - alpha * self.means
        variance = alpha**2 * self.variances + sigma**2
        fit = -0.5 * (residual**2 / variance + variance.log()).sum(-1)
        share = (fit + self.log_weights).softmax(-1)
        means = self.means + alpha * self.variances / variance * residual
        return Denoised((share[..., None] * means).sum(-2))

    def log_prob(self, x: Tensor, extra: Tensor | float = 0.0) -> Tensor:
        """Log-density of the data, with Gaussian noise of variance ``extra`` added."""
        variance = self.variances + extra
        residual = x.unsqueeze(-2) - self.means
        nats = -0.5 * (residual**2 / variance + (2 * math.pi * variance).log()).sum(-1)
        return (nats + self.log_weights).logsumexp(-1)

    def sample(self, number: int) -> Tensor:
        """Draw data."""
        index = torch.multinomial(self.log_weights.exp(), number, replacement=True)
        noise = torch.randn(number, self.means.shape[1], dtype=self.means.dtype)
        return self.means[index] + self.variances[index].sqrt() * noise


def gaussian(dims: int = 3) -> MixtureDenoiser:
    """Gaussian data of unequal scales, in float64."""
    double = torch.float64
    means = torch.linspace(-1, 1, dims, dtype=double)[None]
    return MixtureDenoiser(means, torch.linspace(0.4, 1.5, dims, dtype=double)[None] ** 2)


def two_modes() -> MixtureDenoiser:
    """Two unequal modes on a line, in float64."""
    double = torch.float64
    means, scales = torch.tensor([[-1.0], [0.8]], dtype=double), torch.tensor([[0.3], [0.5]])
    return MixtureDenoiser(means, scales.double() ** 2, torch.tensor([0.3, 0.7], dtype=double))


def gaussian_evidence(data: MixtureDenoiser, levels: Tensor, x: Tensor) -> Tensor:
    """Log p(x) of the chain of these very steps, with Gaussian data and decoder: one recursion.

    It is another one than the data's: each step has too small a variance, by what is not known of
    the data.
    """
    (mean,), (variance,) = data.means, data.variances
    loc, spread = torch.zeros_like(mean), torch.ones_like(mean)
    for low, high in zip(levels[:-1].flip(0), levels[1:].flip(0), strict=True):
        step, (alpha, sigma) = step_between(low, high), signal_and_noise(high)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        slope = step.noise_factor + step.data_factor * gain
        loc = slope * loc + step.data_factor * (mean - gain * alpha * mean)
        spread = slope**2 * spread + step.log_variance.exp()
    alpha, _ = signal_and_noise(levels[0])
    scale = (spread / alpha**2 + levels[0].exp()).sqrt()
    return torch.distributions.Normal(loc / alpha, scale).log_prob(x).sum(-1)


def expected_error(data: MixtureDenoiser, x: Tensor, level: Tensor) -> Tensor:
    r"""E :math:`|x - \hat x(z)|^2` over the noise, of one point, by its variance or quadrature."""
    alpha, sigma = signal_and_noise(level)
    if len(data.means) == 1:
        (mean,), (variance,) = data.means, data.variances
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return ((1 - gain * alpha) ** 2 * (x - mean) ** 2 + (gain * sigma) ** 2).sum(-1)
    grid, weights = normal_quadrature()
    z = alpha * x + sigma * grid[:, None]
    return (weights * (x - data(z, level.expand(len(z))).x).square().sum(-1)).sum()


def normal_quadrature() -> tuple[Tensor, Tensor]:
    """Points and weights that integrate smooth functions of a standard normal variable."""
    grid = torch.linspace(-9, 9, 401, dtype=torch.float64)
    weights = (-0.5 * grid**2).exp()
    return grid, weights / weights.sum()


def step_costs(data: MixtureDenoiser, levels: Tensor, x: Tensor) -> Tensor:
    """Mean KL divergence of each step, least noise first, with the posterior's variance."""
    return torch.stack(
        [
            0.5 * ((-a).exp() - (-b).exp()) * expected_error(data, x, b)
            for a, b in itertools.pairwise(levels)
        ]
    )


def end_costs(levels: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of a Gaussian decoder, and KL divergence of the noisiest state from pure noise."""
    decoder = 0.5 * x.shape[-1] * (math.log(2 * math.pi) + levels[0] + 1)
    alpha, sigma = signal_and_noise(levels[-1])
    prior = 0.5 * ((alpha * x) ** 2 + sigma**2 - 1 - 2 * sigma.log()).sum(-1)
    return decoder, prior


def exact_elbo(data: MixtureDenoiser, levels: Tensor, x: Tensor) -> Tensor:
    """The chain's ELBO of each row of continuous data, in closed form."""
    return torch.stack(
        [-step_costs(data, levels, row).sum() - sum(end_costs(levels, row)) for row in x]
    )


def last_state_density(
    denoise: Denoise, levels: Tensor, variance: str = "posterior", context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Points and p(z_0) times their distance, of a chain on a line: quadrature step by step."""
    z = torch.linspace(-6, 6, 1501, dtype=torch.float64)
    mass = (-0.5 * z**2).exp()
    mass = mass / mass.sum()
    given = None if context is None else context.expand(len(z), *context.shape)
    for low, high in zip(levels[:-1].flip(0), levels[1:].flip(0), strict=True):
        with torch.no_grad():
            found = denoise(z[:, None], high.expand(len(z)), given)
        step = step_between(low, high)
        mean = step.noise_factor * z + step.data_factor * found.x[:, 0]
        share = None if found.variance_share is None else found.variance_share[:, 0]
        log_variance = log_variance_of(step, variance, share).expand_as(mean)  # type: ignore[arg-type]
        exponent = -0.5 * (z[:, None] - mean).square() * (-log_variance).exp()
        kernel = (exponent - 0.5 * (2 * math.pi * log_variance.exp()).log()).exp()
        mass = kernel @ mass * (z[1] - z[0])
    return z, mass


def estimate_by(model: DiffusionModel, denoiser: nn.Module) -> None:
    """Put a denoiser in the place of a model's estimator, with its schedule and data."""
    denoiser.schedule, denoiser.data = model.schedule, model.data
    model.estimator = denoiser  # type: ignore[assignment]
