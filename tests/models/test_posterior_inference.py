"""Real digits with a part unseen, or noisy: posterior inference over a trained VAE's latents.

Two latent variables and a decoder learned in seconds, so that importance sampling from the prior is
an oracle for what SVI and NUTS find.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from torch import Tensor

from pyro_genmodels import data
from pyro_genmodels.models import VAE, ELBOLoss, VAENetwork
from pyro_genmodels.training.random import seeded

COUNT, NOISE, LEVELS = 60, 0.25, 17
SEEN = torch.zeros(8, 8, dtype=torch.bool)
SEEN[::2] = True  # every other row


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    return data.Digits()


@pytest.fixture(scope="module")
def vae(digits: data.Digits) -> VAE:
    with seeded(0):
        model = VAE((1, 8, 8), num_levels=LEVELS, latent_dim=2, network=VAENetwork(hidden=(128,)))
        x, loss = digits.train.tensors[0].float(), ELBOLoss(model)
        optimizer = torch.optim.Adam(loss.parameters(), lr=4e-3)
        for _ in range(800):
            optimizer.zero_grad()
            loss(x[torch.randint(len(x), (64,))]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def x(digits: data.Digits) -> Tensor:
    return digits.test.tensors[0][:COUNT].float()


def some_rows(vae: VAE, image: Tensor) -> None:
    """The user's program: the VAE's prior and decoder, and a likelihood of what is seen."""
    z = pyro.sample("z", vae.prior_law())
    pixels = vae.decode(z).base_dist
    pyro.sample("x", pixels.mask(SEEN).to_event(3), obs=image)


def noisy(vae: VAE, image: Tensor) -> None:
    """Some pixels, nobody knows which, have any level at all."""
    z = pyro.sample("z", vae.prior_law())
    pyro.factor("x", noisy_log_prob(vae, z, image))


def noisy_log_prob(vae: VAE, z: Tensor, image: Tensor) -> Tensor:
    clean = vae.decode(z).base_dist.log_prob(image) + math.log1p(-NOISE)
    any_level = torch.tensor(math.log(NOISE / LEVELS))
    return torch.logaddexp(clean, any_level).sum((-3, -2, -1))


def log_prob_of(vae: VAE, z: Tensor, image: Tensor, pixels: Tensor) -> Tensor:
    return vae.decode(z).base_dist.log_prob(image)[..., pixels].sum((-2, -1))


def predictive(log_probs: Tensor) -> Tensor:
    """Log of the mean probability over draws along the first dimension."""
    return log_probs.logsumexp(0) - math.log(len(log_probs))


def prior_draws(vae: VAE, count: int = 20_000) -> Tensor:
    with seeded(3):
        return vae.prior_law().sample((count, 1))  # type: ignore[no-any-return]


def by_svi(program: Callable[[VAE, Tensor], None], vae: VAE, x: Tensor, draws: int) -> Tensor:
    """Fit a Gaussian to each image's posterior, and draw from it ``(draws, images, 2)``."""

    def many(vae: VAE, x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            program(vae, x)

    def guide(vae: VAE, x: Tensor) -> None:
        start = vae.encode(x).mean  # of a whole image: near enough to start from
        loc = pyro.param("loc", start)
        scale = pyro.param("scale", torch.full_like(start, 0.2), dist.constraints.positive)
        with pyro.plate("images", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    elbo = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(many, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), elbo)
    with seeded(4):
        for _ in range(200):
            svi.step(vae, x)
        loc, scale = pyro.param("loc").detach(), pyro.param("scale").detach()
        return dist.Normal(loc, scale).sample((draws,))  # type: ignore[no-any-return]


def by_nuts(
    program: Callable[[VAE, Tensor], None], vae: VAE, image: Tensor, start: Tensor
) -> Tensor:
    mcmc = MCMC(
        NUTS(program),
        num_samples=150,
        warmup_steps=50,
        initial_params={"z": start},
        disable_progbar=True,
    )
    with seeded(5):
        mcmc.run(vae, image)
    return mcmc.get_samples()["z"]  # type: ignore[no-any-return]


def test_missing_rows_by_svi(vae: VAE, x: Tensor) -> None:
    """Far likelier than before the others were seen, and as likely as the oracle has it."""
    z = by_svi(some_rows, vae, x, 100)
    prior = prior_draws(vae, 4000)
    posterior, unseen = (predictive(log_prob_of(vae, draws, x, ~SEEN)) for draws in (z, prior))
    seen = predictive(log_prob_of(vae, prior, x, SEEN))
    oracle = predictive(vae.decode(prior).log_prob(x)) - seen
    assert (posterior - unseen).mean() > 2
    # A Gaussian is not the posterior, and 4000 draws are few for some.
    assert (posterior - oracle).mean().abs() < 0.4


def resampled(prior: Tensor, log_weights: Tensor, count: int = 4000) -> Tensor:
    """Draws from the posterior by importance sampling from the prior."""
    shares = log_weights.softmax(0)
    assert 1 / shares.square().sum() > 200, "enough effective draws to be an oracle"
    return prior[torch.multinomial(shares, count, replacement=True), 0]


@pytest.mark.parametrize("program", [some_rows, noisy], ids=["inpainting", "denoising"])
def test_nuts_is_the_oracle(program: Callable[[VAE, Tensor], None], vae: VAE, x: Tensor) -> None:
    prior, image = prior_draws(vae), x[0]
    if program is noisy:
        image = with_noise(image)
    weights = noisy_log_prob(vae, prior, image)
    if program is some_rows:
        weights = log_prob_of(vae, prior, image, SEEN)
    with seeded(6):
        exact = resampled(prior, weights.squeeze(1))
    z = by_nuts(program, vae, image, vae.encode(x[0]).mean)
    torch.testing.assert_close(z.mean(0), exact.mean(0), atol=0.12, rtol=0)
    torch.testing.assert_close(z.std(0), exact.std(0), atol=0.06, rtol=0.25)
    pixels = [vae.decode(draws).mean.mean(0) for draws in (z, exact)]
    torch.testing.assert_close(*pixels, atol=0.6, rtol=0)


def with_noise(images: Tensor) -> Tensor:
    with seeded(7):
        hit = torch.rand(images.shape) < NOISE
        return torch.where(hit, torch.randint(LEVELS, images.shape).to(images), images)


def test_denoising_by_svi(vae: VAE, x: Tensor) -> None:
    """Nearer to the clean digits than the noisy ones are, and these likelier than a priori."""
    seen = with_noise(x)
    z = by_svi(noisy, vae, seen, 100)
    denoised, prior = vae.decode(z).mean.mean(0), prior_draws(vae, 4000)
    assert (denoised - x).square().mean() < 0.75 * (seen - x).square().mean()
    clean, unseen = (predictive(vae.decode(draws).log_prob(x)) for draws in (z, prior))
    assert (clean - unseen).mean() > 2
