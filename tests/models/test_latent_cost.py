"""Laws of objectives beyond beta: one objective in all estimators, honest bounds, a held rate."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_genmodels import testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.distributions.gaussian import StandardNormal
from pyro_genmodels.models import (
    VAE,
    BetaVAE,
    ELBOLoss,
    GaussianLikelihood,
    GaussianPosterior,
    KLObjective,
    VAENetwork,
)
from pyro_genmodels.models.vae.objectives import LatentCost
from pyro_genmodels.models.vae.posteriors import GaussianHead
from tests.grouped import grouped

FORMS: dict[str, dict[str, Any]] = {
    "capacity": {"beta": 5.0, "capacity": 1.5},
    "capacity, rising": {"beta": 5.0, "capacity": 3.0, "capacity_steps": 20},
    "rate": {"beta": 2.0, "rate": 1.5},
    "free bits": {"beta": 1.0, "free_bits": 0.7},
    "free bits of the group": {"beta": 3.0, "free_bits": 2.0, "free_bits_per": "group"},
    "free bits and a rate": {"beta": 2.0, "rate": 1.5, "free_bits": 0.1},
}
POSTERIORS: dict[str, dict[str, Any]] = {
    "diagonal": {},
    "full": {"posterior": "full"},
    "low_rank": {"posterior": "low_rank", "rank": 2},
}


def small(**options: Any) -> BetaVAE:
    options = {"latent_dim": 2, "hidden": (5,), "num_levels": 3} | options
    vae = BetaVAE((4,), **grouped(BetaVAE, options)).double()
    for parameter in vae.parameters():
        nn.init.normal_(parameter, std=0.5)
    return vae


def data(*batch: int) -> Tensor:
    return torch.randint(3, (*batch, 4)).double()


def with_state(vae: BetaVAE) -> BetaVAE:
    """Somewhere within every schedule."""
    for name, buffer in vae.named_buffers():
        if name.endswith("step"):
            buffer += 5
        if name.endswith("log_multiplier"):
            buffer -= 0.4
    return vae.eval()


@pytest.mark.parametrize("warmup_steps", [0, 10])
@pytest.mark.parametrize("form", FORMS)
def test_estimators_agree(form: str, warmup_steps: int) -> None:
    """In value and gradient: paired differences are noise around zero."""
    torch.manual_seed(0)
    vae = with_state(small(**FORMS[form], warmup_steps=warmup_steps))
    x = data(4)
    direction = [torch.randn_like(p) for p in vae.parameters()]

    def estimate(make: Any, seed: int) -> Tensor:
        torch.manual_seed(seed)
        vae.zero_grad()
        elbo = make(max_plate_nesting=1, num_particles=100, vectorize_particles=True)
        loss = elbo.loss_and_grads(vae.model, vae.guide, x)
        slope = sum((p.grad * d).sum() for p, d in zip(vae.parameters(), direction, strict=True))
        return torch.stack([torch.as_tensor(loss, dtype=torch.double), slope])

    makes = (TraceMeanField_ELBO, Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO)
    first, *others = (torch.stack([estimate(make, s) for s in range(8)]) for make in makes)
    for other in others:
        difference = other - first
        error = difference.std(0) / 8**0.5
        assert (difference.mean(0).abs() <= 3 * error + 1e-9).all()
        assert (error < 0.02 * first.mean(0).abs() + 0.5).all()  # the noise hides nothing


@pytest.mark.parametrize("form", FORMS)
def test_loss_equals_the_formula(form: str) -> None:
    vae, x = with_state(small(**FORMS[form])), data(6)
    torch.manual_seed(3)
    loss = ELBOLoss(vae)(x)
    torch.manual_seed(3)
    posterior = vae.encode(x)
    reconstruction = vae.decode(posterior.rsample()).log_prob(x).mean()
    kl = 0.5 * (posterior.mean**2 + posterior.variance - 1 - posterior.variance.log())
    options = FORMS[form]
    if "free_bits" in options:
        kl = kl if options.get("free_bits_per") is None else kl.sum(-1, keepdim=True)
        kl = kl.mean(0, keepdim=True).clamp(min=options["free_bits"])
    kl, cost = kl.sum(-1), kl.sum(-1)
    if "capacity" in options:
        now = 0.75 if "capacity_steps" in options else 1.5
        cost = (kl - now).abs()
    if "rate" in options:
        cost = torch.tensor(-0.4).double().exp() * (kl - 1.5)
    torch.testing.assert_close(loss, options["beta"] * cost.mean() - reconstruction)


@pytest.mark.parametrize("form", FORMS)
def test_bounds_are_honest(form: str) -> None:
    """Whatever training asks for, and in the middle of it."""
    plain, vae, x = small(beta=1.0), small(**FORMS[form]), data(5)
    vae.load_state_dict(plain.state_dict(), strict=False)
    torch.manual_seed(1)
    expected = plain.log_weights(x, num_particles=3)
    torch.manual_seed(1)
    torch.testing.assert_close(with_state(vae).log_weights(x, num_particles=3), expected)
    with vae.bounding():
        torch.manual_seed(1)
        elbo = -Trace_ELBO(max_plate_nesting=1).loss(vae.model, vae.guide, x)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.tensor(elbo).double(), plain.log_weights(x).sum())


def test_free_bits_silence_the_units_below() -> None:
    vae, x = small(beta=1.0, free_bits=1e3), data(5)
    torch.manual_seed(0)
    ELBOLoss(vae)(x).backward()
    gradient = vae.encoder.mlp.layers[-1].weight.grad.clone()
    vae.zero_grad()
    torch.manual_seed(0)
    posterior = vae.encode(x)
    (-vae.decode(posterior.rsample()).log_prob(x).mean()).backward()
    torch.testing.assert_close(gradient, vae.encoder.mlp.layers[-1].weight.grad)


def pca_data(count: int) -> Tensor:
    return torch.randn(count, 3) @ torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


def mean_kl(vae: BetaVAE, x: Tensor) -> float:
    prior = StandardNormal(torch.zeros(()), vae.latent_dim)
    with torch.no_grad():
        return float(torch.distributions.kl_divergence(vae.encode(x), prior).mean())


def trained(**options: Any) -> tuple[BetaVAE, Tensor]:
    torch.manual_seed(0)
    likelihood = GaussianLikelihood((8,), scale=0.5)
    vae, x = (
        BetaVAE(
            (8,),
            latent_dim=3,
            network=VAENetwork(hidden=()),
            likelihood=likelihood,
            **grouped(BetaVAE, options),
        ),
        pca_data(500),
    )
    loss = ELBOLoss(vae)
    optimizer = torch.optim.Adam(loss.parameters(), lr=2e-2)
    for _ in range(400):
        optimizer.zero_grad()
        loss(x[torch.randint(500, (64,))]).backward()
        optimizer.step()
    return vae, x


@pytest.mark.parametrize("rate", [1.5, pytest.param(4.0, marks=pytest.mark.slow)])
def test_the_multiplier_holds_the_rate(rate: float) -> None:
    """Without it the KL ends above six nats; the same multiplier, fixed, ends at the same rate."""
    vae, x = trained(beta=1.0, rate=rate, rate_step=0.05)
    assert abs(mean_kl(vae, x) - rate) < 0.1 * rate
    assert float(vae.beta) > 1.2
    fixed, _ = trained(beta=float(vae.beta))
    assert abs(mean_kl(fixed, x) - rate) < 0.25 * rate


@pytest.mark.slow
def test_a_slack_constraint_leaves_no_multiplier() -> None:
    """A rate above what the data can use: complementary slackness."""
    vae, x = trained(beta=1.0, rate=500.0, rate_step=0.05)
    assert float(vae.beta) < 1e-3
    assert mean_kl(vae, x) < 500


def test_capacity_is_reached() -> None:
    vae, x = trained(beta=20.0, capacity=3.0, capacity_steps=200)
    assert abs(mean_kl(vae, x) - 3.0) < 0.3
    assert int(vae.latent_cost.step) == 400


def test_nothing_moves_outside_of_training() -> None:
    vae, x = small(rate=1.0), data(3)
    before = copy.deepcopy(vae.state_dict())
    vae.log_weights(x)
    with torch.no_grad():
        Trace_ELBO().loss(vae.model, vae.guide, x)
    vae.eval()
    ELBOLoss(vae)(x).backward()
    assert_equal(before, vae.state_dict())
    vae.train()
    ELBOLoss(vae)(x).backward()
    assert float(vae.latent_cost.log_multiplier) != 0


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("form", FORMS)
def test_life_cycle(form: str) -> None:
    """State is saved; plain SVI trains, a copy too."""
    vae, x = small(**FORMS[form]), data(6)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), TraceMeanField_ELBO())
    svi.step(x)
    again = build(configuration(vae)).double()
    again.load_state_dict(vae.state_dict())
    assert_equal(again.state_dict(), vae.state_dict())
    state = vae.state_dict()
    assert ("latent_cost.log_multiplier" in state) == ("rate" in FORMS[form])
    testing.check_trains(lambda: small(**FORMS[form]).float(), x.float())


def test_no_cost_changes_no_checkpoint() -> None:
    assert not any("cost" in name for name in small().state_dict())
    assert small().latent_cost is None


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_heads_equal_their_covariances(posterior: str) -> None:
    options = POSTERIORS[posterior]
    head = GaussianHead(4, GaussianPosterior(posterior, rank=options.get("rank", 1)))
    features = torch.randn(3, head.num_features).double()
    law, prior = head(features), StandardNormal(torch.zeros(()).double(), 4)
    covariance = torch.diag_embed(features[:, 4:8].mul(2).exp())
    if posterior == "low_rank":
        factor = features[:, 8:].reshape(3, 4, 2)
        covariance = covariance + factor @ factor.mT
    if posterior == "full":
        lower = torch.diag_embed(features[:, 4:8].exp())
        place = 8
        for row in range(4):
            for column in range(row):
                lower[:, row, column] = features[:, place]
                place += 1
        covariance = lower @ lower.mT
    expected = torch.distributions.MultivariateNormal(features[:, :4], covariance)
    z = torch.randn(5, 3, 4).double()
    torch.testing.assert_close(law.log_prob(z), expected.log_prob(z))
    unit = torch.distributions.MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double())
    torch.testing.assert_close(
        torch.distributions.kl_divergence(law, prior.expand((3,))),
        torch.distributions.kl_divergence(expected, unit),
    )
    torch.testing.assert_close(
        law.rsample((40_000,)).movedim(0, -1)[0].cov(), covariance[0], atol=0.2, rtol=0.1
    )


@pytest.mark.parametrize("posterior", ["full", pytest.param("low_rank", marks=pytest.mark.slow)])
def test_a_correlated_posterior_is_found(posterior: str) -> None:
    """A linear model's posterior is correlated: a diagonal guide lacks nats, these do not."""
    torch.manual_seed(0)
    weight = torch.tensor([[1.0, 0.9], [0.9, 1.0], [1.0, 1.0], [0.5, 0.6]])
    x = torch.randn(300, 2) @ weight.T + 0.5 * torch.randn(300, 4)
    covariance = weight @ weight.T + 0.25 * torch.eye(4)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(4), covariance).log_prob(x)

    def gap(kind: str) -> float:
        likelihood = GaussianLikelihood((4,), scale=0.5)
        options: dict[str, Any] = {"posterior": kind, "likelihood": likelihood}
        vae = VAE((4,), latent_dim=2, network=VAENetwork(hidden=()), **grouped(VAE, options))
        layer = vae.decoder.mlp.layers[0]
        layer.weight.data.copy_(weight)
        layer.bias.data.zero_()
        optimizer = torch.optim.Adam(vae.encoder.parameters(), lr=6e-2)
        loss = ELBOLoss(vae)
        for _ in range(200):
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
        return float((evidence - vae.log_weights(x, num_particles=50).mean(0)).mean())

    assert gap("diagonal") > 0.8
    assert gap(posterior) < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.0, "capacity": 2.0}, "`rate` must be None with a capacity; got 1.0"),
        ({"rate": -1.0}, "`rate` must be positive; got -1.0"),
        ({"capacity": -1.0}, "`capacity` must be at least 0"),
        ({"free_bits": -1.0}, "`free_bits` must be at least 0"),
        ({"free_bits": 1.0, "posterior": "full"}, "`free_bits_per` must be 'group' unless"),
        ({"rank": 3}, "`posterior.rank` must lie between 1 and 2; got 3"),
        ({"rate": 1.0, "rate_step": 0.0}, "`rate_step` must lie above 0"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize("bad", ["model", "guide"])
def test_the_law_bites(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask on one side only makes the estimators disagree."""
    method = "generate" if bad == "model" else "infer"
    original = getattr(BetaVAE, method)

    def unmasked(self: Any, *arguments: Any) -> Any:
        self._masked = nullcontext
        try:
            return original(self, *arguments)
        finally:
            del self._masked

    torch.manual_seed(1)
    vae, x = with_state(small(capacity=1.0)), data(3)
    testing.check_estimators_agree(vae, x, num_runs=30)
    monkeypatch.setattr(BetaVAE, method, unmasked)
    with pytest.raises(AssertionError, match="Trace_ELBO = TraceMeanField_ELBO"):
        testing.check_estimators_agree(vae, x, num_runs=30)


def test_cost_alone() -> None:
    # A ValueError, or by the tests' type checker its own.
    with pytest.raises((ValueError, TypeError), match="free_bits_per"):
        KLObjective(free_bits_per="pixel")
    with pytest.raises((ValueError, TypeError), match="banded"):
        GaussianPosterior("banded")
    kl = torch.tensor([[0.1, 2.0], [0.5, 1.0]])
    torch.testing.assert_close(LatentCost(KLObjective(free_bits=0.5))(kl), torch.tensor([2.0, 2.0]))
    group = LatentCost(KLObjective(free_bits=3.0, free_bits_per="group"))
    torch.testing.assert_close(group(kl), torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(LatentCost(KLObjective(free_bits=0.5))(kl[0]), torch.tensor(2.5))


@pytest.mark.parametrize("options", [{}, {"posterior": "full"}, {"rate": 1.0, "num_classes": 3}])
def test_rates_are_kl_divergences(options: dict[str, Any]) -> None:
    vae, x = small(**options), data(2, 5)
    labels = torch.zeros(2, 5, dtype=torch.long) if "num_classes" in options else None
    rates = vae.rates(x, labels)
    assert list(rates) == ["z"]
    assert rates["z"].shape == (2, 5, 1 if "posterior" in options else 2)
    posterior = vae.encode(x, labels)
    expected = torch.distributions.kl_divergence(posterior, vae.prior_law())
    torch.testing.assert_close(rates["z"].sum(-1), expected)
