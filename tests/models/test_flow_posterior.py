"""Flows on the encoder's Gaussian: a tighter bound, and all that a VAE does with a Gaussian."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions.transforms as pt
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.distributions import Normal
from torch.distributions.transforms import ComposeTransform

from pyro_genmodels import testing, transforms
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.distributions.gaussian import DiagonalNormal
from pyro_genmodels.models import (
    VAE,
    BetaVAE,
    ELBOLoss,
    GaussianLikelihood,
    GaussianPosterior,
    VAENetwork,
)
from tests.grouped import grouped

PLAIN: dict[str, Callable[[], Any]] = {
    "iaf": lambda: pt.affine_autoregressive(3, [8]),
    "inverse of a composition": lambda: ComposeTransform([pt.spline(3), pt.permute(3)]).inv,
    "neural autoregressive": lambda: pt.neural_autoregressive(3, [12]),
    "ours": lambda: transforms.affine_coupling(3, hidden=(5,)),
    "several": lambda: [pt.planar(3), pt.permute(3), pt.radial(3), pt.leaky_relu()],
}
CONDITIONAL: dict[str, Callable[[], Any]] = {
    "iaf": lambda: pt.conditional_affine_autoregressive(3, 2, hidden_dims=[8]),
    "mixed": lambda: [pt.conditional_planar(3, 2, [8]), pt.spline(3)],
    "ours": lambda: transforms.conditional_affine_coupling(3, 2, hidden=(5,)),
}
KINDS = [
    *(pytest.param(make, 0, id=name) for name, make in PLAIN.items()),
    *(pytest.param(make, 2, id=f"conditional {name}") for name, make in CONDITIONAL.items()),
]
every_kind = pytest.mark.parametrize(("make", "num_features"), KINDS)


def small(make: Callable[[], Any], num_features: int = 0, cls: Any = VAE, **options: Any) -> Any:
    options = {"num_levels": 4, "latent_dim": 3, "hidden": (6,)} | options
    posterior = GaussianPosterior(transforms=make(), features=num_features)
    return cls((5,), posterior=posterior, **grouped(cls, options))


def data(*batch: int) -> Tensor:
    return torch.randint(4, (*batch, 5)).float()


@every_kind
def test_every_parameter_trains_and_copies_keep_the_model(make, num_features) -> None:
    testing.check_trains(lambda: small(make, num_features), data(8))
    loss = ELBOLoss(small(make, num_features))
    loss(data(8)).backward()
    assert loss.unreached_parameters() == []


@every_kind
def test_nothing_stale_after_any_optimizer(make, num_features) -> None:
    vae = testing.randomize_parameters(small(make, num_features).double(), 0.3)
    testing.check_no_stale_weights(vae, data(4).double())


@every_kind
def test_bounds_and_shapes(make, num_features) -> None:
    vae = testing.randomize_parameters(small(make, num_features).double(), 0.1).eval()
    testing.check_bounds(vae, data(3).double())
    testing.check_model_shapes(vae, data().double())


@every_kind
def test_many_batch_dimensions_and_float64(make, num_features) -> None:
    vae, x = small(make, num_features).double().eval(), data(2, 3).double()
    assert vae.encode(x).rsample((4,)).shape == (4, 2, 3, 3)
    assert vae.reconstruct(x).shape == x.shape
    weights = vae.log_weights(x, num_particles=2)
    assert weights.shape == (2, 2, 3)
    assert weights.dtype == torch.float64
    elbo = TraceMeanField_ELBO(max_plate_nesting=2, num_particles=4, vectorize_particles=True)
    assert math.isfinite(elbo.loss(vae.model, vae.guide, x))


@pytest.mark.parametrize(("make", "num_features"), KINDS[:1] + KINDS[-1:])
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_estimators_agree(make, num_features, beta) -> None:
    vae = small(make, num_features, BetaVAE, beta=beta)
    vae = testing.randomize_parameters(vae.double(), 0.3).eval()
    testing.check_estimators_agree(vae, data(3).double(), num_runs=50)


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO])
def test_trains_by_each_estimator_on_labels(elbo) -> None:
    vae = small(CONDITIONAL["mixed"], 2, num_classes=3)
    x, labels = data(16), torch.randint(3, (16,))
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), elbo())
    losses = [svi.step(x, labels) for _ in range(40)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert vae.reconstruct(x, labels).shape == x.shape


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(parallel) -> None:
    vae = small(CONDITIONAL["iaf"], 2)
    draws = Predictive(vae.model, guide=vae.guide, num_samples=7, parallel=parallel)(data(2))
    assert draws["z"].shape == (7, 2, 3)


def test_loss_equals_the_formula() -> None:
    """Kingma et al. (2016), eq. 11: log q is that of the noise less the log-scales' sum."""
    vae = small(CONDITIONAL["iaf"], 2, BetaVAE, num_levels=2, beta=3.0).double()
    x = torch.randint(2, (4, 5)).double()
    torch.manual_seed(3)
    loss = ELBOLoss(vae)(x)
    torch.manual_seed(3)
    loc, log_scale, h = vae.encoder(2 * x - 1).split([3, 3, 2], -1)
    noise = torch.randn(4, 3, dtype=torch.double)
    start = loc + log_scale.exp() * noise
    (flow,) = vae.flow_posterior.transforms
    mean, log_step = flow.nn(start, context=h)
    z = start * log_step.clamp(-5, 3).exp() + mean
    log_q = (Normal(0, 1).log_prob(noise) - log_scale - log_step.clamp(-5, 3)).sum()
    log_p = Normal(0, 1).log_prob(z).sum()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(vae.decoder(z), x, reduction="sum")
    torch.testing.assert_close(loss, (bce + 3 * (log_q - log_p)) / 4)


def test_the_features_are_used() -> None:
    vae, x = small(CONDITIONAL["ours"], 2).double().eval(), data(4).double()
    testing.randomize_parameters(vae)
    layer = vae.encoder.mlp.layers[-1]
    assert layer.out_features == 3 + 3 + 2
    torch.manual_seed(0)
    before = vae.encode(x).sample()
    with torch.no_grad():
        layer.bias[-2:] += 1
    torch.manual_seed(0)
    assert not torch.allclose(vae.encode(x).sample(), before)


def test_encode_gives_a_distribution_that_scores_any_latents() -> None:
    posterior = small(PLAIN["iaf"]).encode(data(4))
    z = posterior.rsample()
    torch.testing.assert_close(posterior.log_prob(z), posterior.log_prob(z.clone()))
    assert isinstance(small(tuple).encode(data(4)), DiagonalNormal)


def test_a_draw_of_one_way_transforms_is_scored_from_its_noise() -> None:
    """Where a transform that remembers nothing follows one that must."""
    vae = testing.randomize_parameters(small(PLAIN["several"]).double())
    posterior = vae.encode(data().double()).expand((7,))
    z = posterior.rsample()
    noise, flow = posterior._drawn[0], ComposeTransform(posterior.transforms)
    rows = [torch.autograd.functional.jacobian(flow, row, create_graph=True) for row in noise]
    jacobian = torch.stack(rows)
    expected = posterior.base_dist.log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(posterior.log_prob(z), expected)
    weights = list(vae.encoder.parameters())
    gradient = torch.autograd.grad(posterior.log_prob(z).sum(), weights, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), weights))


def test_no_old_draw_is_scored() -> None:
    vae = small(PLAIN["several"])
    posterior = vae.encode(data(4))
    z = posterior.rsample()
    with pytest.raises(ValueError, match=r"go from data to noise, to score data .*; got Radial"):
        posterior.log_prob(z.clone())
    vae.flow_posterior.parts[0].bias.data.add_(1.0)
    with pytest.raises(ValueError, match=r"go from data to noise, to score data .*; got Radial"):
        posterior.log_prob(z)


def test_a_gaussian_posterior_has_nothing_new() -> None:
    """Nor do its checkpoints."""
    vae = small(tuple)
    assert vae.flow_posterior is None
    assert not any("posterior" in name for name in vae.state_dict())


@pytest.mark.parametrize("cls", [VAE, BetaVAE])
def test_configuration_rebuilds_our_transforms(cls) -> None:
    mask = transforms.HalfMask()
    vae = small(lambda: [transforms.Reverse(1), transforms.affine_coupling(3, mask=mask)], 0, cls)
    again = build(configuration(vae))
    again.load_state_dict(vae.state_dict())
    torch.manual_seed(0)
    expected = vae.eval().log_weights(data(3))
    torch.manual_seed(0)
    assert torch.equal(again.eval().log_weights(data(3)), expected)


def test_copies_after_a_step_with_transforms_that_remember() -> None:
    """A permutation is no module, but remembers its latest value, with the graph behind it."""
    vae = small(lambda: [pt.affine_autoregressive(3, [8]), pt.permute(3)])
    ELBOLoss(vae)(data(4)).backward()
    for again in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        ELBOLoss(again)(data(4)).backward()


@pytest.mark.parametrize(
    ("make", "num_features", "message"),
    [
        (CONDITIONAL["iaf"], 0, "`posterior.features` must be positive .*; got 0"),
        (PLAIN["iaf"], 2, "`posterior.features` must be 0 .*; got 2"),
        (tuple, 2, "`posterior.features` must be 0 .*; got 2"),
        (CONDITIONAL["iaf"], -1, "`posterior.features` must be positive .*; got -1"),
        (lambda: transforms.Squeeze(), 0, "`posterior.transforms` must be of vectors"),
    ],
)
def test_mistakes_are_named(make, num_features, message) -> None:
    with pytest.raises(ValueError, match=message):
        small(make, num_features)


def test_an_own_encoder_of_the_wrong_size_is_named() -> None:
    encoder = torch.nn.Linear(5, 6)
    vae = small(CONDITIONAL["iaf"], 2, encoder=encoder)
    with pytest.raises(ValueError, match=r"`encoder\(x\)` must have trailing shape \(8,\)"):
        vae.guide(data(4))


def test_a_transform_that_cannot_draw_is_named() -> None:
    vae = small(lambda: pt.planar(3).inv)
    with pytest.raises(ValueError, match="must go from noise to data, to be sampled"):
        vae.guide(data(4))


# A linear model: its posterior is a Gaussian of known covariance, here far from diagonal.
WEIGHT = torch.tensor([[1.0, 0.9], [0.9, 1.0], [1.0, 1.0], [0.5, 0.6]])
NOISE = 0.5


def correlated(posterior_transforms: Any = ()) -> VAE:
    """The model, with the best Gaussian of independent entries for its encoder."""
    likelihood = GaussianLikelihood((4,), scale=NOISE)
    vae = VAE(
        (4,),
        latent_dim=2,
        network=VAENetwork(hidden=()),
        posterior=GaussianPosterior(transforms=posterior_transforms),
        likelihood=likelihood,
    )
    precision = torch.eye(2) + WEIGHT.T @ WEIGHT / NOISE**2
    encoder, decoder = vae.encoder.mlp.layers[0], vae.decoder.mlp.layers[0]
    with torch.no_grad():
        decoder.weight.copy_(WEIGHT)
        decoder.bias.zero_()
        encoder.weight.zero_()
        encoder.weight[:2] = torch.linalg.solve(precision, WEIGHT.T / NOISE**2)
        encoder.bias.zero_()
        encoder.bias[2:] = -0.5 * precision.diagonal().log()
    for parameter in (*vae.decoder.parameters(), *vae.likelihood.parameters()):
        parameter.requires_grad_(False)
    return vae


def gap(vae: VAE, x: Tensor) -> Tensor:
    """Nats that the ELBO lacks, by each example."""
    covariance = WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(4)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(4), covariance).log_prob(x)
    with torch.no_grad():
        return evidence - vae.log_weights(x, num_particles=64).mean(0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pt.affine_autoregressive(2, [16]),
        lambda: transforms.affine_coupling(2, hidden=(16,)),
    ],
    ids=["iaf", "ours"],
)
def test_a_flow_tightens_the_bound_on_a_correlated_posterior(make) -> None:
    """The best Gaussian of independent entries lacks a known number of nats, a flow few."""
    torch.manual_seed(0)
    x = torch.randn(200, 2) @ WEIGHT.T + NOISE * torch.randn(200, 4)
    precision = torch.eye(2) + WEIGHT.T @ WEIGHT / NOISE**2
    lacking = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    torch.testing.assert_close(gap(correlated(), x).mean(), lacking, atol=0.03, rtol=0)
    vae = correlated(make())
    loss = ELBOLoss(vae)
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=2e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    assert gap(vae, x).mean() < 0.1 * lacking
