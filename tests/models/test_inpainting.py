"""A VAE as the prior in somebody's Pyro program: the rest of a data point given a part of it."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor

from pyro_genmodels import data
from pyro_genmodels.models import (
    NVAE,
    VAE,
    ELBOLoss,
    FactorAnalysis,
    GaussianLikelihood,
    NVAENetwork,
    NVAEObjective,
    VAENetwork,
)
from tests.grouped import grouped


def linear() -> tuple[VAE, FactorAnalysis]:
    """A linear VAE and the factor analysis that is the same model."""
    torch.manual_seed(0)
    likelihood = GaussianLikelihood((5,), scale=0.4)
    vae = VAE((5,), latent_dim=2, network=VAENetwork(hidden=()), likelihood=likelihood).double()
    oracle = FactorAnalysis((5,), latent_dim=2, noise="shared").double()
    decoder = vae.decoder.mlp.layers[0]
    with torch.no_grad():
        oracle.loading.normal_()
        oracle.loc.normal_()
        oracle.log_scale.fill_(0.4).log_()
        decoder.weight.copy_(oracle.loading)
        decoder.bias.copy_(oracle.loc)
    return vae.eval().requires_grad_(False), oracle.requires_grad_(False)


def partly_seen(vae: VAE, x: Tensor, seen: Tensor) -> None:
    """The user's program: the VAE's prior and decoder, and a likelihood of what is seen."""
    z = pyro.sample("z", vae.prior_law())
    elements = vae.decode(z).base_dist
    pyro.sample("x", elements.mask(seen).to_event(len(vae.event_shape)), obs=x)


def exact_latent(oracle: FactorAnalysis, x: Tensor, seen: Tensor) -> Any:
    part = FactorAnalysis((int(seen.sum()),), latent_dim=2, noise="shared").double()
    with torch.no_grad():
        part.loading.copy_(oracle.loading[seen])
        part.loc.copy_(oracle.loc[seen])
        part.log_scale.copy_(oracle.log_scale)
    return part.posterior(x[seen])


@pytest.mark.parametrize("method", ["nuts", "svi"])
def test_the_posterior_given_a_part_is_the_exact_one(method: str) -> None:
    vae, oracle = linear()
    x, seen = oracle.sample(1)[0], torch.tensor([True, False, True, True, False])
    exact = exact_latent(oracle, x, seen)
    torch.manual_seed(1)
    if method == "nuts":
        mcmc = MCMC(NUTS(partly_seen), num_samples=250, warmup_steps=60, disable_progbar=True)
        mcmc.run(vae, x, seen)
        z = mcmc.get_samples()["z"]
    else:
        guide = AutoMultivariateNormal(partly_seen)
        elbo = Trace_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=0)
        svi = SVI(partly_seen, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.992}), elbo)
        for _ in range(500):
            svi.step(vae, x, seen)
        z = guide.get_posterior().sample((2000,))
    torch.testing.assert_close(z.mean(0), exact.mean, atol=0.15, rtol=0)
    torch.testing.assert_close(z.mT.cov(), exact.covariance_matrix, atol=0.08, rtol=0.3)
    filled = vae.decode(z).mean.mean(0)[~seen]
    expected = (oracle.loc + oracle.loading @ exact.mean)[~seen]
    torch.testing.assert_close(filled, expected, atol=0.2, rtol=0)


UPPER = (torch.arange(8) < 4)[:, None].expand(8, 8)  # what is seen of a digit


def train(model: VAE | NVAE, x: Tensor, optimizer: torch.optim.Optimizer, *, steps: int) -> None:
    """Train on real digits, and freeze."""
    loss = ELBOLoss(model)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(x[torch.randint(len(x), (64,))]).backward()
        optimizer.step()
    model.eval().requires_grad_(False)


def assert_nearer(filled: Tensor, mean: Tensor, test: Tensor) -> None:
    """A fifth less squared error than the mean digit in what was not seen."""
    errors = [(guess - test)[..., ~UPPER].square().mean() for guess in (filled, mean)]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.slow
def test_the_lower_half_of_real_digits_by_a_hierarchy() -> None:
    """NVAE as the prior: SVI over all its groups, nearer than the mean of all digits."""
    torch.manual_seed(0)
    digits = data.Digits()
    x = digits.train.tensors[0].float()
    sizes: dict[str, Any] = {"num_groups": (2,), "latent_channels": 2, "channels": 8}
    nvae = NVAE(
        (1, 8, 8),
        num_levels=17,
        network=NVAENetwork(cells_per_block=1),
        objective=NVAEObjective(warmup_steps=200),
        **grouped(NVAE, sizes),
    )
    train(nvae, x, torch.optim.Adamax(nvae.parameters(), lr=1e-2), steps=800)
    test = digits.test.tensors[0][:20].float()

    def program() -> None:
        with pyro.plate("data", 20):
            pixels = dist.Normal(nvae.draw_latents().mean, 1.0)
            pyro.sample("x", pixels.mask(UPPER).to_event(3), obs=test)

    guide = AutoNormal(program, init_scale=0.1)
    svi = SVI(program, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(300):
        svi.step()
    median = guide.median()
    filled = nvae.decode([median[name] for name in nvae.site_names]).mean
    assert_nearer(filled, x.mean(0), test)


@pytest.mark.slow
def test_the_lower_half_of_real_digits() -> None:
    """Nearer than the mean of all digits, by SVI over the latents of each."""
    torch.manual_seed(0)
    digits = data.Digits()
    x = digits.train.tensors[0].float()
    vae = VAE((1, 8, 8), num_levels=17, latent_dim=10, network=VAENetwork(hidden=(200,)))
    train(vae, x, torch.optim.Adam(vae.parameters(), lr=2e-3), steps=1500)
    test = digits.test.tensors[0][:40].float()

    def program() -> None:
        with pyro.plate("data", 40):
            z = pyro.sample("z", vae.prior_law())
            elements = vae.decode(z).base_dist
            pyro.sample("x", elements.mask(UPPER).to_event(3), obs=test)

    def guide() -> None:
        loc = pyro.param("loc", torch.zeros(40, 10))
        scale = pyro.param("scale", torch.full((40, 10), 0.3), dist.constraints.positive)
        with pyro.plate("data", 40):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    svi = SVI(program, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(300):
        svi.step()
    filled = vae.decode(pyro.param("loc")).mean
    assert_nearer(filled, x.mean(0), test)
