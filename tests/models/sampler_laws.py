"""Laws of diffusion models' samplers, under exact estimates of Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels import models, nets
from pyro_genmodels.distributions import Denoised, ReverseDiffusion
from pyro_genmodels.models import Sampler
from pyro_genmodels.models.diffusion.samplers.choice import chosen
from pyro_genmodels.nets import signal_and_noise

MEAN, SCALE = torch.tensor([-0.8, 0.5, 1.0]), torch.tensor([0.2, 0.5, 1.3])


class Exact(nn.Module):
    """The best estimate of Gaussian data, or of classes of them, that counts its evaluations.

    Without context the data are an even mixture of the classes.
    """

    self_conditioning = False

    def __init__(self, model: models.DiffusionModel, means: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.data, self.schedule = model.data, model.schedule
        self.means, self.scale = means, scale
        self.evaluations: list[int] = []

    def of_classes(self, z: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return each class's estimate, and its log-density up to a constant, ``(K, *batch)``."""
        alpha, sigma = (each[..., None] for each in signal_and_noise(level))
        variance = alpha**2 * self.scale**2 + sigma**2
        means = self.means.reshape(-1, *(1,) * (z.dim() - 1), z.shape[-1])
        off = z - alpha * means
        nats = -0.5 * (off.square() / variance + variance.log()).sum(-1)
        return means + alpha * self.scale**2 / variance * off, nats

    def forward(
        self, z: Tensor, level: Tensor, context: Tensor | None = None, keep: Tensor | None = None
    ) -> Denoised:
        self.evaluations.append(math.prod(z.shape[:-1]))
        found, nats = self.of_classes(z, level)
        mixed = (nats.softmax(0)[..., None] * found).sum(0)
        if context is None:
            return Denoised(mixed)
        labels = context.expand(z.shape[:-1])
        own = torch.where(labels[..., None] == 0, found[0], found[1])
        return Denoised(own if keep is None else torch.where(keep[..., None], own, mixed))


def exact_model(means: Tensor = MEAN[None], scale: Tensor = SCALE, **options: Any) -> Any:
    """Return a model in eval mode whose estimates are exact for these data."""
    if len(means) > 1:
        options["num_classes"] = len(means)
        options["objective"] = models.DiffusionObjective(context_dropout=0.1)
    options = {"schedule": nets.LinearLogSNR(-8.0, 7.0), **options}
    network = models.DenoisingNetwork(hidden=(4,))
    model: Any = models.DiffusionModel((means.shape[1],), network=network, **options).eval()
    means, scale = means.to(model.dtype), scale.to(model.dtype)
    model.estimator = Exact(model, means, scale)
    return model


def flow(z: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return where the probability-flow ODE of the Gaussian data leads."""
    mean, scale = MEAN.to(z), SCALE.to(z)
    (a, s), (b, t) = signal_and_noise(source), signal_and_noise(target)
    grown = ((b**2 * scale**2 + t**2) / (a**2 * scale**2 + s**2)).sqrt()
    return b * mean + grown * (z - a * mean)


def uneven(num_steps: int, kind: str) -> Tensor:
    """Return noise levels with steps of several sizes, the same in each halving."""
    u = torch.linspace(0, 1, num_steps + 1)
    if kind == "smooth":
        return -8 + 15 * (0.4 * u + 0.6 * u**2)
    short = torch.tensor([1.0, 2.5]).repeat(num_steps // 2)
    return torch.cat([torch.tensor([-8.0]), -8 + 15 * (short / short.sum()).cumsum(0)])


def walked(sampler: Sampler, levels: Tensor, *, upwards: bool = False) -> tuple[Tensor, Tensor]:
    """Return where a sampler leads on the Gaussian data, and where the ODE does."""
    exact = exact_model().estimator
    torch.manual_seed(0)
    start, end = (levels[0], levels[-1]) if upwards else (levels[-1], levels[0])
    z = torch.randn(50, 3)
    if upwards:
        z = flow(z, levels[-1], levels[0])
    chain = ReverseDiffusion(exact, levels, (3,))
    with torch.no_grad():
        *_, found = sampler.walk(chain, z, upwards=upwards)
    return found, flow(z, start, end)


def check_order(
    sampler: Sampler, order: int, kind: str = "smooth", *, upwards: bool = False
) -> list[float]:
    """Check that half the steps' size divides the error by two, or by four and more."""
    errors = []
    for num_steps in (40, 80, 160, 320):
        found, truth = walked(sampler, uneven(num_steps, kind), upwards=upwards)
        errors.append(float((found - truth).square().mean().sqrt()))
    factors = [a / b for a, b in pairwise(errors)]
    low, high = {1: (1.6, 2.4), 2: (3.0, 6.0)}[order]
    right = all(low < factor < high for factor in factors)
    assert right, f"errors per halving: factors {factors} of {errors}"
    return factors


def check_same_as_ancestral(schedule: nets.NoiseSchedule, num_steps: int) -> None:
    """Check that DDIM with all of the noise draws what the model's own chain does."""
    model = exact_model(schedule=schedule, num_steps=num_steps)
    chain = ReverseDiffusion(model.estimator, schedule.grid(num_steps), (3,))
    with torch.no_grad():
        z = torch.randn(20, 3)
        ways = []
        for sampler in (models.Ancestral(), models.DDIM(eta=1.0)):
            torch.manual_seed(1)
            ways.append(torch.stack([*sampler.walk(chain, z)]))
    error = (ways[0] - ways[1]).abs() / ways[0].abs().clamp_min(1)
    assert error.max() <= 1e-12, f"relative to the ancestral state: {float(error.max())}"


def check_guidance_ends(model: Any, label: Tensor, sampler: str) -> None:
    """Check that guidance 1 is the model and 0 the model without context, bit for bit."""

    def walked_with(context: Tensor | None) -> Tensor:
        torch.manual_seed(2)
        z = torch.randn(5, *label.shape, *model.data.shape)
        chain = model.reverse(context, num_steps=6)
        with torch.no_grad():
            *_, z = chosen(sampler).walk(chain, z)
        found: Tensor = model.decode(z).sample()
        return found

    for guidance, context in ((1.0, label), (0.0, None)):
        options = {"sampler": sampler, "num_steps": 6, "seed": 2}
        x = model.sample(5, label, guidance=guidance, **options)
        assert torch.equal(x, walked_with(context)), f"guidance {guidance:g} is the model's own"


def check_moments(
    model: Any, sampler: Any, mean: Tensor, variance: Tensor, bias: float, number: int = 20_000
) -> None:
    """Check mean and variance of samples within 4 standard errors and the bias allowed."""
    x = model.sample(number, sampler=sampler, seed=3)
    off = (x.mean(0) - mean).abs() / (variance / number).sqrt()
    spread = (x.var(0) / variance).log().abs() - bias
    assert off.max() < 4, f"mean: {off} standard errors"
    assert spread.max() < 4 * math.sqrt(2 / number), f"log-variance: off by {spread + bias}"


def check_neighbours_apart(model: Any, sampler: Any) -> None:
    """Check that a sample does not depend on the others of its batch."""
    one, other = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 0])
    first, second = (model.sample(9, c, sampler=sampler, num_steps=5, seed=0) for c in (one, other))
    assert torch.equal(first[:, 0], second[:, 0]), "samples depend on their batch"
    assert not torch.equal(first[:, 1], second[:, 1])


def check_classifier(sampler: str = "dpm") -> None:
    """Check that a classifier from the model's own estimates guides as the label does."""
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.2]])
    model = exact_model(means, torch.tensor([0.5, 0.7]))

    def log_prob(z: Tensor, level: Tensor) -> Tensor:
        _, nats = model.estimator.of_classes(z, level)
        return nats.log_softmax(0)[1]

    options: dict[str, Any] = {"sampler": sampler, "num_steps": 6, "seed": 0}
    for scale in (0.0, 0.5, 1.0, 3.0):
        by_label = model.sample(40, torch.tensor(1), guidance=scale, **options)
        led = models.ClassifierGuidance(log_prob, scale)
        by_classifier = model.sample(40, guidance=led, **options)
        error = (by_label - by_classifier).abs().max()
        assert error < 1e-8, f"by classifier and by label at {scale}: {float(error)}"
