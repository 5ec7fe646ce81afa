"""Priors by composition: they are what their formula says, and train with the model."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pyro.distributions.transforms as pt
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from pyro_genmodels import metrics, testing, transforms
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.models import (
    VAE,
    AR1Prior,
    BetaVAE,
    Columns,
    ELBOLoss,
    FlowPrior,
    GaussianLikelihood,
    KLObjective,
    NegativeBinomialLikelihood,
    VampPrior,
)
from tests.grouped import grouped

PRIORS: dict[str, Any] = {
    "vamp": lambda: VampPrior((4,), num_components=5),
    "coupling": lambda: FlowPrior(transforms.affine_coupling(2, hidden=(5,))),
    "pyro's": lambda: FlowPrior([pt.spline(2), pt.permute(2), pt.affine_coupling(2, [6])]),
    "sequence": lambda: AR1Prior(0.8, num_steps=2),
}


def small(prior: str, cls: Any = VAE, **options: Any) -> Any:
    options = {"num_levels": 3, "latent_dim": 2, "hidden": (6,)} | options
    return cls((4,), prior=PRIORS[prior](), **grouped(cls, options))


def data(*batch: int) -> Tensor:
    return torch.randint(3, (*batch, 4)).float()


@pytest.mark.parametrize("prior", PRIORS)
def test_life_cycle(prior: str) -> None:
    testing.check_trains(lambda: small(prior), data(8))
    vae = testing.randomize_parameters(small(prior).double(), 0.3).eval()
    testing.check_no_stale_weights(vae, data(3).double())
    testing.check_bounds(vae, data(3).double())
    ELBOLoss(vae)(data(3).double()).backward()
    for again in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        ELBOLoss(again)(data(3).double()).backward()
    z = vae.prior_law().sample((2, 3))
    assert z.shape == (2, 3, 2)
    assert z.dtype == torch.float64


@pytest.mark.parametrize("prior", ["vamp", "coupling"])
@pytest.mark.parametrize("options", [{"beta": 4.0, "rate": 0.5}])
def test_estimators_agree(prior: str, options: dict[str, Any]) -> None:
    vae = small(prior, BetaVAE, **options).double()
    vae = testing.randomize_parameters(vae, 0.3).eval()
    testing.check_estimators_agree(vae, data(3).double(), num_runs=30)


def test_vamp_prior_is_the_mixture_of_posteriors() -> None:
    vae = small("vamp").double()
    z, inputs = torch.randn(7, 2).double(), vae.prior.pseudo_inputs
    loc, log_scale = vae.encoder(inputs).chunk(2, -1)
    each = Normal(loc, log_scale.exp()).log_prob(z[:, None]).sum(-1)
    torch.testing.assert_close(vae.prior_law().log_prob(z), each.logsumexp(1) - math.log(5))


def test_each_context_has_its_own_mixture() -> None:
    vae, labels = small("vamp", num_classes=3).double(), torch.tensor([2, 0])
    z = torch.randn(2).double()
    both = vae.prior_law(labels).log_prob(z)
    assert both.shape == (2,)
    torch.testing.assert_close(both[1], vae.prior_law(labels[1]).log_prob(z))
    assert both[0] != both[1]


def test_pseudo_inputs_from_data() -> None:
    prior, x = VampPrior((4,), num_components=5), data(3)
    prior.initialize(x, num_levels=3)
    torch.testing.assert_close(prior.pseudo_inputs[:3], x - 1)
    torch.testing.assert_close(prior.pseudo_inputs[3], x[0] - 1)


COUNTS = torch.tensor([[0.0, 3, 7], [5, 1, 40], [2, 2, 2]])
TABLE = torch.tensor([[-90.0, 2, 7], [50, 0, 40], [20, 1, 0]])
SIZES = torch.tensor([[0.5], [4.0], [1.0]])
SEEN: dict[str, tuple[dict[str, Any], torch.Tensor]] = {
    "real": ({}, 9 + 5 * TABLE),
    "levels": ({"num_levels": 50}, COUNTS),
    "poisson": ({"likelihood": "poisson"}, COUNTS),
    "negative binomial": ({"likelihood": "zero_inflated_negative_binomial"}, COUNTS),
    "size factors": (
        {"likelihood": NegativeBinomialLikelihood((3,), size_factors=True), "context_shape": (1,)},
        COUNTS,
    ),
    "columns": ({"likelihood": Columns(["gaussian", 3, "count"])}, TABLE),
    "labels": ({"likelihood": "poisson", "num_classes": 2}, COUNTS),
}


@pytest.mark.parametrize("kind", SEEN)
@pytest.mark.parametrize("missing", [False, True])
def test_pseudo_inputs_are_what_the_encoder_sees(kind: str, missing: bool) -> None:
    options, x = copy.deepcopy(SEEN[kind])
    shape = (5,) if kind == "columns" else (3,)
    prior = VampPrior(shape, num_components=4)
    vae = VAE((3,), latent_dim=2, prior=prior, missing=missing, **options)
    vae.standardize(x.repeat(3, 1))
    context = SIZES if kind == "size factors" else None
    prior.initialize(x, vae=vae, context=context)
    seen: list[torch.Tensor] = []
    vae.encoder.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    labels = torch.tensor([0, 1, 0]) if kind == "labels" else context
    vae.encode(x, labels)
    torch.testing.assert_close(prior.pseudo_inputs[:3], seen[0][:, : shape[0]])
    torch.testing.assert_close(prior.pseudo_inputs[3], prior.pseudo_inputs[0])
    assert prior.pseudo_inputs.abs().max() < 5
    assert vae.log_weights(x, labels).isfinite().all()


def test_pseudo_inputs_of_missing_elements_are_zero() -> None:
    prior = VampPrior((5,), num_components=3)
    likelihood = Columns(["gaussian", 3, "count"])
    vae = VAE((3,), latent_dim=2, prior=prior, missing=True, likelihood=likelihood)
    vae.standardize(TABLE)
    x = TABLE.where(torch.eye(3) == 0, torch.nan)
    prior.initialize(x, vae=vae)
    expected, _ = vae.observed_input(vae.standardization.standardized(x, vae.dtype))
    torch.testing.assert_close(prior.pseudo_inputs.detach(), expected)
    assert (prior.pseudo_inputs == 0).sum() >= 5


def test_pseudo_inputs_that_do_not_fit_are_named() -> None:
    options, x = copy.deepcopy(SEEN["size factors"])
    prior = VampPrior((3,), num_components=4)
    vae = VAE((3,), latent_dim=2, prior=prior, **options)
    with pytest.raises(ValueError, match="`context` must begin with a size factor; got None"):
        prior.initialize(x, vae=vae)
    with pytest.raises(ValueError, match=r"`context` must have a batch shape .*got \(2,\)"):
        prior.initialize(x, vae=vae, context=SIZES[:2])
    with pytest.raises(ValueError, match="`x` must hold counts, whole numbers from 0"):
        prior.initialize(-x, vae=vae, context=SIZES)
    with pytest.raises(ValueError, match="`num_levels` must be left out with vae"):
        prior.initialize(x, 50, vae=vae, context=SIZES)
    with pytest.raises(ValueError, match="`context` must be left out without vae"):
        prior.initialize(x, context=SIZES)
    with pytest.raises(ValueError, match=r"`prior` must have pseudo-inputs of shape \(3,\)"):
        VampPrior((4,)).initialize(x, vae=vae, context=SIZES)


@pytest.mark.parametrize("kind", ["vamp", pytest.param("coupling", marks=pytest.mark.slow)])
def test_a_learned_prior_raises_the_bound(kind: str) -> None:
    """Two far clusters on a line: no linear map makes them of one Gaussian."""
    torch.manual_seed(0)
    x = torch.randint(2, (400, 1)) * 4.0 - 2 + 0.2 * torch.randn(400, 2)

    def bound(prior: Any) -> float:
        torch.manual_seed(1)
        likelihood = GaussianLikelihood((2,), scale=0.2)
        options: dict[str, Any] = {"hidden": (), "likelihood": likelihood, "prior": prior}
        vae = VAE((2,), latent_dim=2, **grouped(VAE, options))
        optimizer, loss = torch.optim.Adam(vae.parameters(), lr=3e-2), ELBOLoss(vae)
        for _ in range(200):
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
        return float(metrics.elbo(vae, x, num_particles=10).mean())

    vamp = VampPrior((2,), num_components=2)
    vamp.initialize(x)
    prior = vamp if kind == "vamp" else FlowPrior([pt.spline(2, count_bins=8, bound=4.0)])
    assert bound(prior) > bound(None) + 0.2


def test_configuration_rebuilds() -> None:
    vae = small("vamp")
    again = build(configuration(vae))
    again.load_state_dict(vae.state_dict())
    nn.init.zeros_(again.prior.pseudo_inputs)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"`prior` must have pseudo-inputs of shape \(5,\)"):
        VAE((5,), latent_dim=2, prior=PRIORS["vamp"]()).sample()
    with pytest.raises(ValueError, match="`transforms` must be one transform or more"):
        FlowPrior([])
    with pytest.raises(ValueError, match="`num_components` must be positive"):
        VampPrior((4,), num_components=0)
    with pytest.raises(ValueError, match="`latent_dim` must be divisible by the 2 steps"):
        VAE((5,), latent_dim=3, prior=AR1Prior(0.5, num_steps=2)).sample()
    with pytest.raises(ValueError, match="`free_bits_per` must be 'group'"):
        VAE((4,), latent_dim=2, prior=PRIORS["vamp"](), objective=KLObjective(free_bits=0.1))
