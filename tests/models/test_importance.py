"""Factor analysis is exact, and with it as an oracle importance-weighted bounds are bounds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_genmodels import data, metrics, testing
from pyro_genmodels.models import (
    VAE,
    BetaVAE,
    ELBOLoss,
    FactorAnalysis,
    GaussianLikelihood,
    VAENetwork,
)
from tests.grouped import grouped


def analysis(noise: str = "per_dimension", event_shape: tuple[int, ...] = (4,)) -> FactorAnalysis:
    torch.manual_seed(0)
    model = FactorAnalysis(event_shape, latent_dim=2, noise=noise).double()
    return testing.randomize_parameters(model, 0.5)


def linear_vae(likelihood_scale: float = 0.5) -> tuple[VAE, Any]:
    """A linear VAE with a good, but wrong posterior, and its exact evidence."""
    torch.manual_seed(0)
    likelihood = GaussianLikelihood((4,), scale=likelihood_scale)
    vae = VAE((4,), latent_dim=2, network=VAENetwork(hidden=()), likelihood=likelihood).double()
    oracle = analysis("shared")
    encoder, decoder = vae.encoder.mlp.layers[0], vae.decoder.mlp.layers[0]
    with torch.no_grad():
        oracle.log_scale.fill_(math.log(likelihood_scale))
        decoder.weight.copy_(oracle.loading)
        decoder.bias.copy_(oracle.loc)
        origin = oracle.posterior(torch.zeros(4).double())
        columns = oracle.posterior(torch.eye(4).double()).mean - origin.mean
        encoder.weight.zero_()
        encoder.weight[:2] = columns.mT
        encoder.bias[:2] = origin.mean + 0.1
        encoder.bias[2:] = 0.5 * origin.variance.log() + 0.2
    return vae, oracle


@pytest.mark.parametrize("noise", ["per_dimension", "shared"])
@pytest.mark.parametrize("event_shape", [(4,), (1, 2, 2)])
def test_every_weight_is_the_evidence(noise: str, event_shape: tuple[int, ...]) -> None:
    model = analysis(noise, event_shape)
    x = model.sample(7)
    weights, exact = model.log_weights(x, num_particles=5), model.log_prob(x)
    torch.testing.assert_close(weights, exact.expand(5, 7))
    variance = model.log_scale.exp().square() * torch.ones(4).double()
    covariance = model.loading @ model.loading.mT + variance.diag()
    law = torch.distributions.MultivariateNormal(model.loc, covariance)
    torch.testing.assert_close(exact, law.log_prob(x.flatten(1)))


def test_data_may_have_another_precision_than_the_model() -> None:
    model = FactorAnalysis((4,), latent_dim=2)
    x = torch.randn(3, 4, dtype=torch.float64)
    assert model.posterior(x).mean.dtype == torch.float32
    torch.testing.assert_close(model.posterior(x).mean, model.posterior(x.float()).mean)


def test_gradients_are_those_of_the_evidence() -> None:
    """The guide moves with the model, but to first order that costs nothing."""
    model = analysis()
    x = model.sample(5)
    expected = torch.autograd.grad(-model.log_prob(x).mean(), list(model.parameters()))
    loss = ELBOLoss(model, TraceMeanField_ELBO, num_particles=20_000)(x)
    found = torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)


def test_ppca_is_the_maximum() -> None:
    """No gradient is left, and the truth is found."""
    truth = data.PPCA(6, latent_dim=2)
    torch.manual_seed(0)
    x = truth.sample((5000,)).double()
    model = FactorAnalysis.fit_ppca(x, latent_dim=2)
    (-model.log_prob(x).mean()).backward()
    assert all(p.grad.abs().max() < 1e-5 for p in model.parameters())
    gap = metrics.paired_gap(truth.log_prob(x), model.log_prob(x))
    assert -0.01 < gap.mean < 0
    with pytest.raises(ValueError, match="`latent_dim` must be at most 5 for these data; got 6"):
        FactorAnalysis.fit_ppca(x, latent_dim=6)


def test_bounds_converge_to_the_exact_evidence() -> None:
    """ELBO below the importance-weighted bounds below the evidence, 0.01 nats at 1000."""
    vae, oracle = linear_vae()
    x = oracle.sample(200)
    exact = oracle.log_prob(x).detach()
    gaps = [metrics.paired_gap(exact, metrics.elbo(vae, x, num_particles=200))]
    for k in (10, 100, 1000):
        bound = metrics.importance_weighted_bound(vae, x, num_particles=k, chunk_size=20_000)
        gaps.append(metrics.paired_gap(exact, bound))
    for looser, tighter in itertools.pairwise(gaps):
        assert looser.mean > tighter.mean - 3 * tighter.standard_error
    assert gaps[0].mean > 0.05
    assert -3 * gaps[-1].standard_error < gaps[-1].mean < 0.01


def test_the_loss_is_the_bound() -> None:
    vae, oracle = linear_vae()
    x = oracle.sample(6)
    torch.manual_seed(1)
    loss = ELBOLoss(vae, num_particles=7, importance=True)(x)
    torch.manual_seed(1)
    weights = vae.log_weights(x, num_particles=7)
    torch.testing.assert_close(loss, -(weights.logsumexp(0) - math.log(7)).mean())
    torch.manual_seed(1)
    one = ELBOLoss(vae, importance=True)(x)
    torch.manual_seed(1)
    torch.testing.assert_close(one, ELBOLoss(vae, Trace_ELBO)(x))


def test_pyros_renyi_elbo_is_the_same_objective() -> None:
    """``RenyiELBO(alpha=0)`` serves plain SVI, in value and in gradient."""
    vae, oracle = linear_vae()
    x, parameters = oracle.sample(4), list(linear_vae()[0].parameters())
    parameters = list(vae.parameters())
    renyi = RenyiELBO(alpha=0, num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    loss = ELBOLoss(vae, num_particles=8, importance=True)
    ours, theirs = [], []
    for seed in range(120):
        torch.manual_seed(seed)
        ours.append(_with_gradient(loss(x) * 4, parameters))
        for parameter in parameters:
            parameter.grad = None
        torch.manual_seed(seed)
        value = renyi.loss_and_grads(vae.model, vae.guide, x)
        theirs.append(torch.cat([torch.tensor([value]), *(p.grad.flatten() for p in parameters)]))
    difference = torch.stack(ours) - torch.stack(theirs)
    error = difference.std(0) / 120**0.5
    assert (difference.mean(0).abs() <= 4.5 * error + 1e-9).all()


def _with_gradient(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    gradients = torch.autograd.grad(loss, parameters)
    return torch.cat([loss.detach()[None], *(g.flatten() for g in gradients)])


def test_training_by_the_bound_tightens_it() -> None:
    """From one start at equal steps: the bound it trains ends higher than under the ELBO."""
    truth = data.PPCA(6, latent_dim=2)
    torch.manual_seed(0)
    x = truth.sample((512,)).float()

    def bound(**options: Any) -> float:
        torch.manual_seed(1)
        # Blind to the data, the posterior is far off: there the bounds differ.
        encoder = nn.Sequential(nn.Linear(6, 4))
        encoder[0].weight.data.zero_()
        encoder[0].weight.requires_grad_(False)
        likelihood = GaussianLikelihood((6,), scale="shared")
        vae = VAE(
            (6,),
            latent_dim=2,
            network=VAENetwork(hidden=(), encoder=encoder),
            likelihood=likelihood,
        )
        loss = ELBOLoss(vae, **options)
        optimizer = torch.optim.Adam([p for p in vae.parameters() if p.requires_grad], lr=2e-2)
        for _ in range(120):
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
        return float(metrics.importance_weighted_bound(vae, x, num_particles=20).mean())

    assert bound(num_particles=20, importance=True) > bound() + 0.3


@pytest.mark.slow
def test_svi_trains_by_renyi() -> None:
    vae, oracle = linear_vae()
    x = oracle.sample(64)
    elbo = RenyiELBO(alpha=0, num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    nn.init.normal_(vae.decoder.mlp.layers[0].weight)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [svi.step(x) for _ in range(100)]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_several_particles_average_the_elbo() -> None:
    vae, oracle = linear_vae()
    x = oracle.sample(3)
    many = ELBOLoss(vae, num_particles=2000)(x)
    torch.testing.assert_close(
        many, -metrics.elbo(vae, x, num_particles=2000).mean(), atol=0.1, rtol=0
    )


@pytest.mark.parametrize("options", [{"beta": 2.0}, {"beta": 1.0, "warmup_steps": 3}])
def test_another_objective_is_refused(options: dict[str, Any]) -> None:
    vae = BetaVAE((3,), latent_dim=2, network=VAENetwork(hidden=(4,)), **grouped(BetaVAE, options))
    with pytest.raises(ValueError, match="`model` must have beta 1 and no warm-up"):
        ELBOLoss(vae, num_particles=5, importance=True)
    with pytest.raises(ValueError, match="`num_particles` must be positive"):
        ELBOLoss(vae, num_particles=0)
