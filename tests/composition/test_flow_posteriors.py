"""Flows in inference: priors under HMC and NUTS, guides, NeuTra, amortised posteriors."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.conditional import ConditionalTransformedDistribution
from pyro.distributions.transforms import iterated
from pyro.infer import HMC, MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormalizingFlow
from pyro.infer.reparam import NeuTraReparam
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_genmodels import transforms
from tests.composition.flows import (
    AFFINE,
    FLOWS,
    VECTOR,
    check_moments,
    density,
    factory,
    make,
    make_affine,
    noise,
    only_fast,
)

pytestmark = pytest.mark.usefixtures("double")
each_flow = pytest.mark.parametrize("name", FLOWS)
KERNELS = {
    "NUTS": lambda model: NUTS(model, max_tree_depth=3),
    "HMC": lambda model: HMC(model, step_size=0.15, num_steps=6, adapt_step_size=False),
}
NUM_GROUPS = 200


class Groups(PyroModule):
    """Independent vectors from one flow, each seen through the same noise.

    A chain over all of them is as many independent chains over one.
    """

    def __init__(self, flow: nn.Module, x: Tensor, scale: float) -> None:
        super().__init__()
        self.flow, self.x, self.scale = flow, x, scale

    def forward(self) -> None:
        with pyro.plate("groups", NUM_GROUPS):
            z = pyro.sample("z", density(self.flow, VECTOR))
            pyro.sample("x", dist.Normal(z, self.scale).to_event(1), obs=self.x)


def draws(kernel, start: Tensor) -> Tensor:
    """Start where the chain should stay: what is then seen to drift is a wrong density."""
    chain = MCMC(kernel, 12, 10, initial_params={"z": start}, disable_progbar=True)
    chain.run()
    z: Tensor = chain.get_samples()["z"]
    return z


@pytest.mark.parametrize("kernel", KERNELS)
@only_fast(AFFINE, "real_nvp", "glow")
def test_an_affine_flow_as_prior_has_the_gaussian_posterior(name, kernel):
    flow, matrix, shift = make_affine(name, 2)
    x, scale = shift + torch.tensor([1.0, -0.5]), 0.7
    prior_precision = torch.linalg.inv(matrix @ matrix.T)
    covariance = torch.linalg.inv(prior_precision + torch.eye(2) / scale**2)
    mean = covariance @ (prior_precision @ shift + x / scale**2)
    groups = Groups(flow, x.expand(NUM_GROUPS, 2), scale)
    start = MultivariateNormal(mean, covariance).sample((NUM_GROUPS,))
    check_moments(draws(KERNELS[kernel](groups), start), mean, covariance)


@only_fast(FLOWS, "neural_spline_flow")
def test_a_curved_flow_as_prior_has_the_posterior_of_a_grid(name):
    flow, scale = make(name, VECTOR), 0.7
    x = flow(torch.tensor([0.5, -0.5])).detach()
    grid = x + 6 * scale * torch.cartesian_prod(*2 * [torch.linspace(-1, 1, 121)])
    log_weights = density(flow, VECTOR).log_prob(grid).detach()
    log_weights = log_weights + dist.Normal(x, scale).to_event(1).log_prob(grid)
    weights = log_weights.softmax(0)
    mean = weights @ grid
    covariance = (grid - mean).T @ (weights[:, None] * (grid - mean))
    groups = Groups(flow, x.expand(NUM_GROUPS, 2), scale)
    start = grid[weights.multinomial(NUM_GROUPS, replacement=True)]
    check_moments(draws(KERNELS["HMC"](groups), start), mean, covariance)


# -- guides. The model: two standard Gaussian numbers of which a noisy sum is seen.

MIX, SCALE, SEEN = torch.tensor([[1.0, 1.0], [0.0, 0.5]]).double(), 0.4, (1.5, -0.5)


def model():
    z = pyro.sample("z", noise(VECTOR))
    x = torch.tensor(SEEN)
    pyro.sample("x", dist.Normal(z @ MIX.T, SCALE).to_event(1), obs=x)


def evidence(x: Tensor) -> Tensor:
    covariance = MIX @ MIX.T + SCALE**2 * torch.eye(2)
    value: Tensor = MultivariateNormal(torch.zeros(2), covariance).log_prob(x)
    return value


def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
    covariance = torch.linalg.inv(torch.eye(2) + MIX.T @ MIX / SCALE**2)
    return covariance @ MIX.T @ x / SCALE**2, covariance


def ready(make_flow, size):
    """A flow that takes its first values from data, as Glow does, is shown noise."""
    flow = make_flow(size)
    flow.initialize(torch.randn(256, size))
    return flow


def trained_guide(name: str, steps: int = 100) -> AutoNormalizingFlow:
    guide = AutoNormalizingFlow(model, partial(iterated, 3, partial(ready, factory(name))))
    elbo = Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.97}), elbo)
    for _ in range(steps):
        svi.step()
    return guide


@only_fast(FLOWS, "real_nvp")
def test_an_automatic_guide_finds_the_posterior(name):
    guide = trained_guide(name)
    x = torch.tensor(SEEN)
    mean, covariance = posterior(x)
    with torch.no_grad():
        q, z = guide.get_posterior(), guide.get_posterior().sample((4000,))
        p = MultivariateNormal(mean, covariance)
        divergence = q.log_prob(z) - p.log_prob(z)
        elbo = -Trace_ELBO(4000, 0, vectorize_particles=True).loss(model, guide)
    error = divergence.std() / 4000**0.5
    assert -3 * error < divergence.mean() < 0.15
    assert abs(elbo - evidence(x) + divergence.mean()) < 6 * error  # two sets of draws


def neutra(name: str):
    """A guide that is hardly trained serves: it is no longer an approximation."""
    reparam = NeuTraReparam(trained_guide(name, steps=20).requires_grad_(False))
    return reparam, poutine.reparam(model, config=lambda _: reparam)


@each_flow
def test_neutra_has_the_density_of_the_straightened_posterior(name):
    reparam, straight = neutra(name)
    flow, x = reparam.guide.get_transform(), torch.tensor(SEEN)
    for noisy in torch.randn(3, 2):
        program = poutine.condition(straight, {"z_shared_latent": noisy})
        slope = torch.linalg.slogdet(torch.autograd.functional.jacobian(flow, noisy))[1]
        found = poutine.trace(program).get_trace().log_prob_sum()
        z = reparam.transform_sample(noisy)["z"]
        log_posterior = MultivariateNormal(*posterior(x)).log_prob(z)
        torch.testing.assert_close(found, log_posterior + evidence(x) + slope)


@only_fast(FLOWS)
def test_nuts_through_neutra(name):
    reparam, straight = neutra(name)
    kernel = NUTS(straight, step_size=0.6, adapt_step_size=False, max_tree_depth=2)
    chain = MCMC(kernel, num_samples=200, warmup_steps=10, disable_progbar=True)
    chain.run()
    z = reparam.transform_sample(chain.get_samples()["z_shared_latent"])["z"]
    blocks = z.reshape(25, 8, 2).transpose(0, 1)  # blocks of a chain are all but independent
    check_moments(blocks, *posterior(torch.tensor(SEEN)), largest_error=0.3)


@only_fast(FLOWS, "real_nvp", "nice")
def test_an_amortised_posterior_is_right_for_new_data(name):
    flow = transforms.ConditionalFlow(factory(name)(VECTOR, context_shape=(2,)))
    family = ConditionalTransformedDistribution(noise(VECTOR), [flow])

    def program(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", noise(VECTOR))
            pyro.sample("x", dist.Normal(z @ MIX.T, SCALE).to_event(1), obs=x)

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", family.condition(x))

    def simulate(size):
        return MultivariateNormal(torch.zeros(2), MIX @ MIX.T + SCALE**2 * torch.eye(2)).sample(
            (size,)
        )

    x = simulate(256)
    flow.flow.initialize(noise(VECTOR).sample((256,)), x)
    optimizer = pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.985})
    svi = SVI(program, guide, optimizer, Trace_ELBO())
    for _ in range(150):
        svi.step(simulate(256))
    flow.eval()
    with torch.no_grad():
        x = simulate(4000)
        z = family.condition(x).sample()
        mean, covariance = posterior(x.T)
        exact = MultivariateNormal(mean.T, covariance).log_prob(z)
        divergence = family.condition(x).log_prob(z) - exact
        elbo = -Trace_ELBO().loss(program, guide, x) / 4000
    error = divergence.std() / 4000**0.5
    assert -3 * error < divergence.mean() < 0.15
    assert abs(elbo - evidence(x).mean() + divergence.mean()) < 6 * error
