"""Laws of the VAE and the beta-VAE: true bounds, agreeing estimators, a sound life cycle."""

from __future__ import annotations

import copy
import io
import pickle
from functools import partial

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn

from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data import PPCA
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal
from pyro_genmodels.models import (
    VAE,
    BetaVAE,
    DeltaVAE,
    ELBOLoss,
    GaussianLikelihood,
    KLObjective,
    VAENetwork,
)
from pyro_genmodels.nets.autoencoders import ConvEncoder, MLPEncoder
from tests.grouped import grouped

CONTEXTS = {
    "labels": ({"num_classes": 4}, torch.tensor([1, 3, 0])),
    "vectors": ({"context_shape": (6,)}, torch.randn(3, 6)),
    "maps": ({"context_shape": (2, 4, 3)}, torch.randn(3, 2, 4, 3)),
}
KINDS = {
    "binary": {"num_levels": 2},
    "levels": {"num_levels": 5},
    "categorical": {"num_levels": 5, "likelihood": "categorical"},
    "continuous": {},
}
FALLING = {"beta": 4.0, "first_beta": 8.0, "warmup_steps": 10}


def small(event_shape=(1, 5, 4), kind: str = "levels", **options) -> VAE:
    network = "conv" if len(event_shape) == 3 else "mlp"
    return VAE(
        event_shape,
        latent_dim=3,
        network=VAENetwork(network, hidden=(6,)),
        **grouped(VAE, KINDS[kind]),
        **grouped(VAE, options),
    )


def data(*batch: int, event_shape=(1, 5, 4), num_levels: int = 2) -> torch.Tensor:
    return torch.randint(num_levels, (*batch, *event_shape)).float()


def linear(**options) -> VAE:
    likelihood = GaussianLikelihood((4,), scale=0.5)
    vae = VAE(
        (4,),
        latent_dim=2,
        network=VAENetwork(hidden=()),
        likelihood=likelihood,
        **grouped(VAE, options),
    ).double()
    for parameter in vae.parameters():
        nn.init.normal_(parameter, std=0.5)
    return vae


def evidence(vae: VAE, x: torch.Tensor) -> torch.Tensor:
    """Exact log-density of a linear Gaussian VAE: its marginal is Gaussian."""
    layer = vae.decoder.mlp.layers[0]
    noise = vae.likelihood.log_scale.exp().square() * torch.eye(4, dtype=x.dtype)
    covariance = layer.weight @ layer.weight.T + noise
    return torch.distributions.MultivariateNormal(layer.bias, covariance).log_prob(x)


def set_exact_posterior(vae: VAE) -> None:
    """Make the decoder's columns orthogonal, and give the encoder their exact posterior."""
    decoder, encoder = vae.decoder.mlp.layers[0], vae.encoder.mlp.layers[0]
    with torch.no_grad():
        decoder.weight.copy_(torch.linalg.qr(decoder.weight).Q * torch.tensor([1.5, 0.5]))
        precision = 1 + decoder.weight.square().sum(0) / 0.25
        encoder.weight.zero_()
        encoder.weight[:2] = decoder.weight.T / 0.25 / precision[:, None]
        encoder.bias[:2] = -encoder.weight[:2] @ decoder.bias
        encoder.bias[2:] = -0.5 * precision.log()


def test_bounds_are_ordered_and_tighten() -> None:
    vae, x = linear(), torch.randn(50, 4, dtype=torch.float64)
    with torch.no_grad():
        log_weights, exact = vae.log_weights(x, num_particles=4000), evidence(vae, x)
    # Mean and 3 standard errors over examples of what each bound lacks.
    gaps = []
    for k in (1, 10, 1000):
        bound = log_weights.reshape(-1, k, 50).logsumexp(1) - torch.tensor(float(k)).log()
        gaps.append(exact - bound.mean(0))
        assert gaps[-1].mean() > -3 * bound.std(0).mean() / (50 * bound.shape[0]) ** 0.5
    assert gaps[0].mean() > gaps[1].mean() > gaps[2].mean()
    assert gaps[2].mean() < 0.1 * gaps[0].mean()


def test_exact_posterior_leaves_no_gap() -> None:
    vae, x = linear(), torch.randn(7, 4, dtype=torch.float64)
    set_exact_posterior(vae)
    log_weights = vae.log_weights(x, num_particles=5)
    torch.testing.assert_close(log_weights, evidence(vae, x).expand(5, 7))


@pytest.mark.parametrize(
    "options", [{}, {"beta": 4.0}, {"beta": 4.0, "warmup_steps": 10}, FALLING, {"beta": 0.5}]
)
def test_estimators_agree(options: dict) -> None:
    """Under the same draws the paired differences of value and gradient are noise around zero."""
    torch.manual_seed(0)
    vae = BetaVAE(
        (1, 3, 3),
        latent_dim=2,
        network=VAENetwork(hidden=(5,)),
        num_levels=3,
        **grouped(BetaVAE, {"beta": 1.0} | options),
    )
    vae.double().eval()
    if options.get("warmup_steps"):
        vae.latent_scale.step += 5
    x = torch.randint(3, (4, 1, 3, 3))
    direction = [torch.randn_like(p) for p in vae.parameters()]

    def estimate(make, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        vae.zero_grad()
        elbo = make(max_plate_nesting=1, num_particles=1000, vectorize_particles=True)
        loss = elbo.loss_and_grads(vae.model, vae.guide, x)
        slope = sum((p.grad * d).sum() for p, d in zip(vae.parameters(), direction, strict=True))
        return torch.stack([torch.as_tensor(loss, dtype=torch.double), slope])

    draws = {
        make: torch.stack([estimate(make, seed) for seed in range(20)])
        for make in (Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO)
    }
    for make in (Trace_ELBO, TraceGraph_ELBO):
        difference = draws[make] - draws[TraceMeanField_ELBO]
        error = difference.std(0) / 20**0.5
        assert (difference.mean(0).abs() <= 3 * error + 1e-9).all()
        assert (error < 0.02 * draws[make].mean(0).abs() + 0.5).all()  # the noise hides nothing


def test_beta_leaves_the_bounds_alone() -> None:
    plain, weighted = (
        linear(),
        BetaVAE(
            (4,),
            objective=KLObjective(beta=7.0),
            network=VAENetwork(hidden=()),
            latent_dim=2,
            likelihood=GaussianLikelihood((4,), scale=0.5),
        ),
    )
    weighted.double().load_state_dict(plain.state_dict())
    x = torch.randn(6, 4, dtype=torch.float64)
    torch.manual_seed(1)
    expected = plain.log_weights(x, num_particles=3)
    torch.manual_seed(1)
    torch.testing.assert_close(weighted.log_weights(x, num_particles=3), expected)


def test_beta_falls_from_its_first_value() -> None:
    """By one step's share at each training loss, in the loss itself; evaluation counts nothing."""
    make = partial(BetaVAE, (6,), latent_dim=2, network=VAENetwork(hidden=(5,)), num_levels=2)
    plain, falling = make(), make(objective=KLObjective(**FALLING))
    falling.load_state_dict({**plain.state_dict(), "latent_scale.step": torch.tensor(0)})
    x = data(5, event_shape=(6,))
    for step in range(1, 13):
        weight = max(8.0 - 0.4 * step, 4.0)
        plain.latent_scale.beta = weight
        losses = []
        for model in (plain.train(), falling.train()):
            torch.manual_seed(2)
            losses.append(ELBOLoss(model)(x))
        torch.testing.assert_close(*losses)
        with torch.no_grad():
            ELBOLoss(falling.eval())(x)
        assert float(falling.beta) == pytest.approx(weight)
    again = build(configuration(falling))
    assert float(again.beta) == FALLING["first_beta"]
    again.load_state_dict(falling.state_dict())
    assert float(again.beta) == 4.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_beta": 8.0}, "`first_beta` must be None without warmup_steps"),
        ({"first_beta": 0.0, "warmup_steps": 9}, "`first_beta` must be positive"),
    ],
)
def test_first_beta_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BetaVAE((6,), latent_dim=2, **grouped(BetaVAE, options))


def test_loss_equals_the_formula() -> None:
    """Closed forms by hand: reconstruction plus beta times KL, per example."""
    vae = BetaVAE(
        (6,),
        num_levels=2,
        objective=KLObjective(beta=3.0),
        network=VAENetwork(hidden=(5,)),
        latent_dim=2,
    ).double()
    x = torch.randint(2, (4, 6)).double()
    torch.manual_seed(3)
    loss = ELBOLoss(vae)(x)
    torch.manual_seed(3)
    posterior = vae.encode(x)
    decoded = vae.decoder(posterior.rsample())
    bce = nn.functional.binary_cross_entropy_with_logits(decoded, x, reduction="sum")
    variance = posterior.variance
    kl = 0.5 * (posterior.mean.square() + variance - 1 - variance.log()).sum()
    torch.testing.assert_close(loss, (bce + 3 * kl) / 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event_shape", [(5,), (1, 5, 4), (3, 8, 8)])
def test_every_kind_of_data(kind: str, event_shape: tuple[int, ...]) -> None:
    vae = small(event_shape, kind)
    x = data(6, event_shape=event_shape)
    loss = ELBOLoss(vae)
    loss(x).backward()
    assert not loss.unreached_parameters()
    assert vae.sample(4).shape == (4, *event_shape)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.log_weights(x, num_particles=3).shape == (3, 6)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("event_shape", [(5,), (1, 5, 4)])
def test_conditional(context: str, event_shape: tuple[int, ...]) -> None:
    options, value = CONTEXTS[context]
    vae = small(event_shape, **options)
    x = data(3, event_shape=event_shape)
    loss = ELBOLoss(vae)
    loss(x, value).backward()
    assert not loss.unreached_parameters()
    assert vae.sample(4, value).shape == (4, 3, *event_shape)
    assert vae.reconstruct(x, value).shape == x.shape
    weights = vae.log_weights(x, value, num_particles=5)
    assert weights.shape == (5, 3)
    torch.manual_seed(0)
    here = vae.log_weights(x, value)
    torch.manual_seed(0)
    assert not torch.allclose(here, vae.log_weights(x, value.flip(0)))
    with pytest.raises(ValueError, match="`context` must be given to a conditional model"):
        vae.model(x)


def test_many_batch_dimensions() -> None:
    """5-D images: two plates, or a plate and vectorised particles, score as one flat batch."""
    vae, x = small().double(), data(2, 3, num_levels=5).double()
    elbo = TraceMeanField_ELBO(max_plate_nesting=2, num_particles=4, vectorize_particles=True)
    assert torch.isfinite(torch.as_tensor(elbo.loss(vae.model, vae.guide, x)))
    torch.manual_seed(0)
    nested = vae.log_weights(x, num_particles=2)
    torch.manual_seed(0)
    flat = vae.log_weights(x.flatten(0, 1), num_particles=2)
    torch.testing.assert_close(nested.flatten(1), flat)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(parallel: bool) -> None:
    vae = small()
    draws = Predictive(vae.model, num_samples=7, parallel=parallel)()
    assert draws["x"].reshape(7, 1, 5, 4).shape == (7, 1, 5, 4)
    x = data(2, num_levels=5)
    given = Predictive(vae.model, guide=vae.guide, num_samples=7, parallel=parallel)(x)
    assert given["z"].shape == (7, 2, 3)


def moved_by_svi(vae: VAE) -> list[bool]:
    before = [p.detach().clone() for p in vae.parameters()]
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(data(8))
    return [not torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True)]


def test_life_cycle() -> None:
    """Second instances and copies train; pickle and torch.save work after a step."""
    vae = small()
    assert all(moved_by_svi(vae))
    assert all(moved_by_svi(small()))
    assert all(moved_by_svi(copy.deepcopy(vae)))
    x = data(2)
    file = io.BytesIO()
    torch.save(vae, file)
    file.seek(0)
    for again in (pickle.loads(pickle.dumps(vae)), torch.load(file, weights_only=False)):
        torch.manual_seed(0)
        expected = vae.log_weights(x)
        torch.manual_seed(0)
        torch.testing.assert_close(again.log_weights(x), expected)
        assert all(moved_by_svi(again))


def test_float64_throughout() -> None:
    vae = small().double()
    x = data(2, num_levels=5)
    assert vae.dtype == torch.float64
    assert ELBOLoss(vae)(x).dtype == torch.float64
    assert vae.sample(2).dtype == vae.reconstruct(x).dtype == torch.float64


def test_autocast_keeps_the_densities_in_float32() -> None:
    vae, x = small((5,)), data(64, event_shape=(5,), num_levels=5)
    torch.manual_seed(0)
    expected = ELBOLoss(vae)(x)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert vae.encode(x).scale.dtype == torch.float32
        torch.manual_seed(0)
        loss = ELBOLoss(vae)(x)
    assert loss.dtype == torch.float32
    assert (loss - expected).abs() < 0.05


def test_own_networks() -> None:
    encoder = nn.Sequential(nn.Flatten(-3), nn.Linear(20, 6))
    decoder = nn.Sequential(nn.Linear(3, 40), nn.Unflatten(-1, (2, 5, 4)))
    network = VAENetwork(encoder=encoder, decoder=decoder)
    vae = VAE((1, 5, 4), num_levels=5, latent_dim=3, network=network)
    loss = ELBOLoss(vae)
    loss(data(4)).backward()
    assert not loss.unreached_parameters()
    wrong = VAE((1, 5, 4), num_levels=5, latent_dim=4, network=network)
    with pytest.raises(ValueError, match=r"`encoder\(x\)` must have trailing shape \(8,\)"):
        wrong.guide(data(4))


@pytest.mark.parametrize("make", [VAE, BetaVAE])
def test_configuration_rebuilds(make) -> None:
    vae = make(
        (5,),
        latent_dim=2,
        likelihood=GaussianLikelihood((5,), scale=0.3),
        network=VAENetwork(hidden=(4, 3)),
    )
    again = build(configuration(vae))
    again.load_state_dict(vae.state_dict())
    assert type(again) is make


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "`latent_dim` must be positive; got 0"),
        ({"hidden": (0,)}, "must be positive"),
        ({"num_levels": 1}, "`num_levels` must be a whole number of at least 2; got 1"),
        ({"activation": "swish2"}, "`activation` must be one of"),
        ({"warmup_steps": -1}, "`warmup_steps` must be at least 0"),
        ({"network": "conv"}, "`event_shape` must be positive sizes"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAE((5,), **grouped(VAE, options))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 6), r"`x` must have trailing shape \(5,\)"),
        (torch.full((3, 5), 9.0), "`x` must hold integers from 0 to 4"),
        (torch.full((3, 5), 0.5), "`x` must hold integers from 0 to 4"),
        (torch.full((3, 5), float("nan")), "`x` must hold integers from 0 to 4"),
    ],
)
def test_bad_data_are_named(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ELBOLoss(small((5,)))(x)


class TestLatentGaussians:
    """The lean Gaussians are the ones that torch has."""

    loc, log_scale = torch.randn(3, 1, 4).double(), torch.randn(3, 1, 4).double()

    def reference(self) -> torch.distributions.Distribution:
        normal = torch.distributions.Normal(self.loc, self.log_scale.exp())
        return torch.distributions.Independent(normal, 1)

    def test_density_entropy_and_moments(self) -> None:
        law, z = DiagonalNormal(self.loc, self.log_scale), torch.randn(2, 3, 5, 4).double()
        torch.testing.assert_close(law.log_prob(z), self.reference().log_prob(z))
        torch.testing.assert_close(law.entropy(), self.reference().entropy())
        assert law.expand((2, 3, 5)).log_prob(z).shape == (2, 3, 5)
        torch.manual_seed(0)
        draws = law.sample((20_000,))
        torch.testing.assert_close(draws.mean(0), law.mean, atol=0.1, rtol=0.1)
        torch.testing.assert_close(draws.var(0), law.variance, atol=0.1, rtol=0.1)

    def test_standard(self) -> None:
        law, z = StandardNormal(self.loc, 4).expand((3, 5)), torch.randn(2, 3, 5, 4).double()
        reference = torch.distributions.Normal(torch.zeros(4).double(), torch.ones(4).double())
        torch.testing.assert_close(law.log_prob(z), reference.log_prob(z).sum(-1))
        torch.testing.assert_close(law.entropy(), reference.entropy().sum().expand(3, 5))
        assert law.sample((2,)).shape == (2, 3, 5, 4)
        assert law.mean.shape == law.variance.shape == (3, 5, 4)
        assert law.to_event(1).log_prob(z).shape == (2, 3)

    def test_divergences(self) -> None:
        q, kl = DiagonalNormal(self.loc, self.log_scale), torch.distributions.kl_divergence
        other = DiagonalNormal(self.log_scale, self.loc)
        reference = torch.distributions.Normal(other.loc, other.scale)
        reference = torch.distributions.Independent(reference, 1)
        torch.testing.assert_close(kl(q, other), kl(self.reference(), reference))
        unit = torch.distributions.Normal(torch.zeros(4).double(), torch.ones(4).double())
        unit = torch.distributions.Independent(unit, 1).expand((3, 1))
        torch.testing.assert_close(
            kl(q, StandardNormal(self.loc, 4, (3, 1))), kl(self.reference(), unit)
        )

    def test_validation(self) -> None:
        bad = torch.tensor([float("nan")])
        with pytest.raises(ValueError, match="loc"):
            DiagonalNormal(bad, torch.zeros(1), validate_args=True)
        for law in (DiagonalNormal(torch.zeros(1), torch.zeros(1)), StandardNormal(bad, 1)):
            law._validate_args = True
            with pytest.raises(ValueError, match="support"):
                law.log_prob(bad)


@pytest.mark.slow
def test_linear_vae_reaches_ppca() -> None:
    """The evidence lower bound itself comes within 0.01 nats of the true density."""
    torch.manual_seed(0)
    truth = PPCA()
    likelihood = GaussianLikelihood(truth.event_shape, scale="shared")
    vae = VAE(truth.event_shape, latent_dim=8, network=VAENetwork(hidden=()), likelihood=likelihood)
    loss = ELBOLoss(vae)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4000, 1e-5)
    for _ in range(4000):
        optimizer.zero_grad()
        loss(truth.sample((512,)).float()).backward()
        optimizer.step()
        schedule.step()
    x = truth.sample((4000,)).float()
    with torch.no_grad():
        gap = truth.log_prob(x) - vae.log_weights(x, num_particles=8).mean(0)
    assert gap.mean() < 0.01


@pytest.mark.parametrize("shape", [(2, 3), (2,), (4, 1, 1)])
def test_a_context_that_does_not_expand_to_the_data_is_refused(shape) -> None:
    """Two rows of labels would pass for two particles."""
    vae, x = (
        VAE((4,), latent_dim=2, network=VAENetwork(hidden=(4,)), num_classes=3),
        torch.randn(3, 4),
    )
    labels = torch.zeros(shape, dtype=torch.long)
    for run in (vae.reconstruct, partial(vae.log_weights, num_particles=2)):
        with pytest.raises(ValueError, match=r"`context` must have a batch shape that expands to"):
            run(x, labels)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3), (2, 1)])
def test_a_context_that_expands_to_the_data_is_taken(shape) -> None:
    vae, x = (
        VAE((4,), latent_dim=2, network=VAENetwork(hidden=(4,)), num_classes=3),
        torch.randn(2, 3, 4),
    )
    labels = torch.zeros(shape, dtype=torch.long)
    assert vae.reconstruct(x, labels).shape == x.shape
    assert vae.log_weights(x, labels, num_particles=5).shape == (5, 2, 3)


@pytest.mark.parametrize("cls", [VAE, BetaVAE, DeltaVAE])
@pytest.mark.parametrize(
    ("shape", "network", "kind"),
    [
        ((1, 8, 8), None, ConvEncoder),
        ((3, 4, 5), "auto", ConvEncoder),
        ((1, 8, 8), VAENetwork(activation="tanh"), ConvEncoder),
        ((1, 8, 8), VAENetwork(hidden=(6,)), MLPEncoder),
        ((1, 8, 8), "mlp", MLPEncoder),
        ((1, 3, 8), None, MLPEncoder),
        ((1, 2, 2), "conv", ConvEncoder),
        ((5,), None, MLPEncoder),
    ],
)
def test_networks_go_by_the_data(cls: Any, shape: Any, network: Any, kind: type) -> None:
    options = {} if network is None else {"network": network}
    vae = cls(shape, num_levels=5, **options)
    assert type(vae.encoder) is kind
    assert type(vae.decoder).__name__ == kind.__name__.replace("Encoder", "Decoder")
    again = build(configuration(vae))
    again.load_state_dict(vae.state_dict())
