"""Data with missing elements: the marginal, the bound on it, and what refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor, nn

from pyro_genmodels import data, distributions, metrics, models, nets, testing, training
from pyro_genmodels.models import VAE, ELBOLoss, FactorAnalysis, VAENetwork
from pyro_genmodels.nets.autoencoders import MLPEncoder

pytestmark = pytest.mark.usefixtures("double")


def holed(*shape: int, share: float = 0.4, seed: int = 0) -> Tensor:
    """Data with holes; of the first example nothing was observed, and all of the last."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    gone = torch.rand(*shape, generator=generator) < share
    gone[0], gone[-1] = True, False
    return torch.where(gone, torch.nan, x)


def factors(*shape: int, standardized: bool, **options: Any) -> FactorAnalysis:
    torch.manual_seed(0)
    model = FactorAnalysis(shape, latent_dim=2, missing=True, **options)
    testing.randomize_parameters(model, 0.5).eval()
    return model.standardize(7 * holed(50, *shape) + 1000) if standardized else model


@pytest.mark.parametrize("shape", [(5,), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("noise", ["per_dimension", "shared"])
@pytest.mark.parametrize("standardized", [False, True])
def test_factor_analysis_is_exact(shape: Any, noise: Any, standardized: bool) -> None:
    """Density and posterior, against dense Gaussians of the observed elements."""
    model = factors(*shape, standardized=standardized, noise=noise)
    x = holed(9, *shape)
    x = 7 * x + 1000 if standardized else x
    units = model.standardization
    scale = torch.ones(shape) if units.scale is None else units.scale.expand(shape)
    shift = torch.zeros(shape) if units.shift is None else units.shift.expand(shape)
    loading, rows = scale.flatten()[:, None] * model.loading, x.flatten(1)
    mean = shift.flatten() + scale.flatten() * model.loc
    variances = (scale.flatten() * model._scale).square()
    scores, posterior = model.log_prob(x), model.posterior(x)
    weights = model.log_weights(x, num_particles=2)
    for i, row in enumerate(rows):
        seen = ~row.isnan()
        part = loading[seen]
        covariance = part @ part.mT + variances[seen].diag()
        expected, centre = torch.zeros(()), torch.zeros(2)
        gain = part.mT @ covariance.inverse()
        if seen.any():
            law = torch.distributions.MultivariateNormal(mean[seen], covariance)
            expected, centre = law.log_prob(row[seen]), gain @ (row - mean)[seen]
        near = {"atol": 1e-9, "rtol": 1e-9}
        torch.testing.assert_close(scores[i], expected, **near)
        torch.testing.assert_close(weights[:, i], expected.expand(2), **near)
        torch.testing.assert_close(posterior.loc[i], centre, **near)
        spread = torch.eye(2) - gain @ part
        torch.testing.assert_close(posterior.covariance_matrix[i], spread, **near)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 3)], ids=str)
def test_factor_analysis_of_whole_data_is_that_without(shape: Any) -> None:
    model = factors(*shape, standardized=True)
    plain = FactorAnalysis(shape, latent_dim=2)
    plain.load_state_dict(model.state_dict())
    x = 7 * torch.randn(6, *shape) + 1000
    torch.testing.assert_close(model.log_prob(x), plain.log_prob(x))
    torch.testing.assert_close(model.posterior(x).loc, plain.posterior(x).loc)


def test_the_closed_form_refuses_missing_elements() -> None:
    with pytest.raises(ValueError, match=r"`x` must be finite.*missing=True.*got \d+ NaN"):
        FactorAnalysis.fit_ppca(holed(20, 4), latent_dim=2)


class WithoutMask(nn.Module):
    """Gives an encoder that expects a mask one of ones."""

    def __init__(self, encoder: nn.Module, rank: int) -> None:
        super().__init__()
        self.encoder, self.rank = encoder, rank

    def forward(self, x: Tensor, *context: Tensor) -> Any:
        return self.encoder(torch.cat([x, torch.ones_like(x)], -self.rank), *context)


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "vectors": {"event_shape": (4,)},
    "images": {"event_shape": (2, 4, 4), "network": VAENetwork("conv", hidden=(4,))},
    "levels": {"event_shape": (4,), "num_levels": 3},
    "categories": {"event_shape": (4,), "num_levels": 3, "likelihood": "categorical"},
    "labels": {"event_shape": (4,), "num_levels": 2, "num_classes": 3},
    "full covariance": {"event_shape": (4,), "posterior": "full"},
}


def options_of(name: str) -> dict[str, Any]:
    return {"latent_dim": 2, "network": VAENetwork(hidden=(6,)), **CONFIGURATIONS[name]}


def data_of(model: VAE, batch: int) -> tuple[Tensor, Tensor | None]:
    labels = None if model.num_classes is None else torch.arange(batch) % model.num_classes
    shape = (batch, *model.event_shape)
    levels = model.num_levels
    return (torch.randn(shape) if levels is None else torch.randint(levels, shape)).double(), labels


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_vae_of_whole_data_is_that_without(name: str) -> None:
    torch.manual_seed(0)
    options = options_of(name)
    model = testing.randomize_parameters(VAE(**options, missing=True), 0.2).eval()
    rank = len(model.event_shape)
    own = VAENetwork(
        encoder=WithoutMask(copy.deepcopy(model.encoder), rank),
        decoder=copy.deepcopy(model.decoder),
    )
    twin = VAE(**{**options, "network": own}).eval()
    x, labels = data_of(model, 5)
    weights = []
    for each in (model, twin):
        torch.manual_seed(1)
        weights.append(each.log_weights(x, labels, num_particles=3))
    torch.testing.assert_close(*weights)


def test_a_linear_vae_is_below_the_evidence_of_the_observed_part() -> None:
    torch.manual_seed(0)
    likelihood = models.GaussianLikelihood((3,), scale="shared")
    vae = VAE(
        (3,), latent_dim=2, network=VAENetwork(hidden=()), likelihood=likelihood, missing=True
    )
    testing.randomize_parameters(vae, 0.1).eval()
    exact = FactorAnalysis((3,), latent_dim=2, noise="shared", missing=True)
    with torch.no_grad():
        base = vae.decode(torch.zeros(2))
        exact.loading.copy_(torch.stack([vae.decode(z).mean - base.mean for z in torch.eye(2)], 1))
        exact.loc.copy_(base.mean)
        exact.log_scale.copy_(base.variance[0].log() / 2)
        x = holed(5, 3)
        evidence = exact.log_prob(x)
    testing.check_bounds(vae, x, log_evidence=evidence, num_particles=20_000)
    with pytest.raises(AssertionError, match="log-evidence"):
        testing.check_bounds(vae, x, log_evidence=evidence - 0.5)


class Own(models.Likelihood):
    """A caller's, with an event that is not made of independent elements."""

    def __init__(self, event_shape: Any) -> None:
        super().__init__(event_shape, 1, num_levels=None, validate_args=None)

    def _distribution(self, decoded: Tensor) -> Any:
        return pyro.distributions.MultivariateNormal(decoded, torch.eye(2).to(decoded))

    def _elementwise(self, decoded: Tensor) -> Any:
        raise NotImplementedError


LINKED: dict[str, Any] = {
    "AutoregressiveLikelihood": lambda: models.AutoregressiveLikelihood(
        nets.PixelCNNNet((1, 2, 2), 3, hidden_channels=4, context_shape=(2, 2, 2))
    ),
    "Own": lambda: Own((2,)),
}


@pytest.mark.parametrize("name", LINKED)
def test_a_likelihood_without_marginals_is_refused(name: str) -> None:
    likelihood = LINKED[name]()
    rule = f"`likelihood` must have independent elements with missing=True; got {name}"
    with pytest.raises(ValueError, match=rule):
        VAE(
            likelihood.event_shape,
            num_levels=likelihood.num_levels,
            likelihood=likelihood,
            missing=True,
        )


def linked() -> VAE:
    torch.manual_seed(0)
    likelihood = models.LogisticMixtureLikelihood((2, 1, 2), 2, num_mixtures=2)
    options: dict[str, Any] = {"latent_dim": 1, "network": VAENetwork(hidden=(6,))}
    vae = VAE((2, 1, 2), num_levels=2, likelihood=likelihood, missing=True, **options)
    return testing.randomize_parameters(vae, 0.2).eval()


def test_linked_channels_may_miss_whole_pixels() -> None:
    nan = torch.nan
    x = torch.tensor([[1, nan, 0, nan], [nan, 1, nan, 0], [nan, nan, nan, nan], [1, 1, 0, 0]])
    x = x.double().reshape(4, 2, 1, 2)
    testing.check_missing(linked(), x)
    testing.check_marginal(linked(), x)


@pytest.mark.parametrize("validates", [False, True])
def test_a_part_of_a_pixel_of_linked_channels_may_not_be_missing(validates: bool) -> None:
    x = torch.ones(3, 2, 1, 2)
    x[1, 0, 0, 0] = torch.nan
    rule = r"`x` must miss whole pixels under mixtures .* got 1 with a part missing"
    with pyro.validation_enabled(validates), pytest.raises(ValueError, match=rule):
        linked().log_weights(x)


CALLS: dict[str, Callable[[VAE, Tensor], Any]] = {
    "log_weights": VAE.log_weights,
    "elbo": metrics.elbo,
    "loss": lambda vae, x: ELBOLoss(vae)(x),
    "encode": VAE.encode,
    "impute": VAE.impute,
    "reconstruct": VAE.reconstruct,
    "evaluate": lambda vae, x: training.evaluate(vae, data.InMemory(x, num_levels=2, missing=True)),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_part_of_a_pixel_that_is_missing_is_one_line(call: str) -> None:
    x = torch.ones(20, 2, 1, 2)
    x[:, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="must miss whole pixels under mixtures") as error:
        CALLS[call](linked(), x)
    assert "\n" not in str(error.value)


def test_missing_elements_are_zero_to_the_encoder_with_their_mask() -> None:
    seen: list[Tensor] = []

    class Encoder(MLPEncoder):
        def forward(self, x: Tensor, *context: Any) -> Tensor:
            seen.append(x.detach())
            return super().forward(x, *context)

    x = torch.tensor([[110.0, torch.nan, 90.0]])
    data = torch.tensor([[90.0, 0.0, torch.nan], [110.0, 2.0, 80.0], [torch.nan, 1.0, 100.0]])
    network = VAENetwork(encoder=Encoder((6,), 4))
    vae = VAE((3,), latent_dim=2, network=network, missing=True).standardize(data)
    assert vae.standardization.shift.tolist() == [100, 1, 90]
    vae.encode(x)
    torch.testing.assert_close(seen[-1], torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0, 1.0]]))
    vae = VAE((3,), num_levels=3, latent_dim=2, network=network, missing=True)
    vae.encode(torch.tensor([0.0, torch.nan, 2.0]))
    torch.testing.assert_close(seen[-1], torch.tensor([-1.0, 0.0, 1.0, 1.0, 0.0, 1.0]))


def test_moments_are_those_of_what_was_observed() -> None:
    """Over chunks, some with nothing of a column, also far from zero."""
    x = 1e6 + holed(900, 3) * torch.tensor([1.0, 10.0, 1e-3])
    x[:300, 1] = torch.nan
    for given in (x, [x[:300], x[300:310], x[310:]]):
        model = FactorAnalysis((3,), latent_dim=1, missing=True).standardize(given)
        for i in range(3):
            column = x[~x[:, i].isnan(), i]
            units = model.standardization
            torch.testing.assert_close(units.shift[i], column.mean())
            torch.testing.assert_close(units.scale[i], column.std(correction=0))
    images = holed(30, 2, 3, 3)
    shift = VAE((2, 3, 3), missing=True).standardize(images).standardization.shift
    torch.testing.assert_close(shift.flatten(), images.nanmean((0, 2, 3)))


@pytest.mark.parametrize("noise", ["per_dimension", "shared"])
def test_a_column_of_which_nothing_was_observed_is_an_error(noise: Any) -> None:
    x = torch.randn(20, 3)
    x[:, 1] = torch.nan
    model = FactorAnalysis((3,), latent_dim=1, missing=True, noise=noise)
    with pytest.raises(ValueError, match=r"`x` must have an observed .* got nothing in column 1"):
        model.standardize(x)


def test_the_first_batch_is_judged_by_what_was_observed() -> None:
    x = holed(20, 3)
    x[:, 2] = torch.nan
    vae = VAE((3,), latent_dim=2, missing=True)
    ELBOLoss(vae)(x)
    vae = VAE((3,), latent_dim=2, missing=True)
    with pytest.raises(ValueError, match=r"scale near 1.*column 1"):
        ELBOLoss(vae)(x * torch.tensor([1.0, 1e3, 1.0]))


@pytest.mark.parametrize("make", [Trace_ELBO, pyro.infer.TraceMeanField_ELBO])
def test_pyro_takes_what_is_missing(make: Any) -> None:
    """Under its own validation, with its own estimators, and its predictive draws."""
    vae, x = VAE((3,), latent_dim=2, missing=True), holed(8, 3)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), make())
    losses = [svi.step(x) for _ in range(3)]
    assert all(torch.tensor(losses).isfinite())
    draws = Predictive(vae.model, guide=vae.guide, num_samples=4)(x)
    assert draws["z"].reshape(4, 8, 2).isfinite().all()


def test_imputations_keep_what_was_observed_and_vary_where_it_was_not() -> None:
    """With an exact posterior they are draws from the conditional Gaussian."""
    model, x = factors(3, standardized=True), 1000 + 7 * holed(4, 3)
    torch.manual_seed(0)
    drawn = model.impute(x, num_samples=20_000)
    assert drawn.shape == (20_000, 4, 3)
    seen = ~x.isnan()
    assert torch.equal(drawn[:, seen], x[seen].expand(20_000, -1))
    whole = model.impute(x[-1])
    assert torch.equal(whole[0], x[-1])
    units = model.standardization
    loading, noise = units.scale[:, None] * model.loading, (units.scale * model._scale).square()
    mean, covariance = units.shift + units.scale * model.loc, loading @ loading.mT + noise.diag()
    for i in range(1, 3):
        here, gone = seen[i], ~seen[i]
        gain = covariance[gone][:, here] @ covariance[here][:, here].inverse()
        expected = mean[gone] + gain @ (x[i] - mean)[here]
        spread = covariance[gone][:, gone] - gain @ covariance[here][:, gone]
        error = 5 * (spread.diagonal() / 20_000).sqrt()
        assert ((drawn[:, i, gone].mean(0) - expected).abs() < error).all()


@pytest.mark.parametrize(
    "options", [{}, {"importance": True}, {"importance": True, "doubly_reparameterized": True}]
)
def test_every_objective_has_finite_gradients(options: dict[str, bool]) -> None:
    vae, x = VAE((3,), latent_dim=2, missing=True), holed(8, 3).requires_grad_()
    ELBOLoss(vae, num_particles=3, **options)(x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    assert x.grad is not None
    assert torch.equal(x.grad[x.isnan()], torch.zeros(int(x.isnan().sum())))
    assert x.grad.isfinite().all()


def test_a_label_is_inferred_from_what_was_observed() -> None:
    vae = VAE((3,), latent_dim=2, num_classes=3, missing=True)
    model, x = models.SemiSupervisedVAE(vae).standardize(holed(30, 3)), holed(6, 3)
    loss = ELBOLoss(model)
    (loss(x) + loss(x, torch.arange(6) % 3)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.classify(x).probs.isfinite().all()
    assert model.impute(x).isfinite().all()


def test_imputing_needs_a_model_with_missing_elements() -> None:
    with pytest.raises(ValueError, match=r"`model` must be made with missing=True, .* got VAE"):
        VAE((3,)).impute(torch.randn(2, 3))


def test_pseudo_inputs_are_whole() -> None:
    prior = models.VampPrior((3,), num_components=4)
    vae = VAE((3,), latent_dim=2, prior=prior, missing=True)
    with pytest.raises(ValueError, match="`x` must be finite"):
        prior.initialize(holed(10, 3))
    prior.initialize(torch.randn(10, 3))
    assert vae.log_weights(holed(6, 3)).isfinite().all()


def test_a_loss_that_is_not_finite_is_not_blamed_on_what_is_missing() -> None:
    vae = VAE((3,), latent_dim=2, missing=True)
    with torch.no_grad():
        next(vae.decoder.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="log-density of site 'x'"):
        ELBOLoss(vae, validate=False)(holed(6, 3))


def test_observed_part_is_the_site() -> None:
    assert isinstance(VAE((3,), missing=True).decode(torch.zeros(32)), distributions.ObservedPart)
    assert not isinstance(VAE((3,)).decode(torch.zeros(32)), distributions.ObservedPart)


COUNTS = ["poisson", "negative_binomial", "zero_inflated_negative_binomial"]


@pytest.mark.parametrize("likelihood", COUNTS)
@pytest.mark.parametrize("size_factors", [False, True])
def test_counts_may_be_missing(likelihood: str, size_factors: bool) -> None:
    """Scored alone, what was observed has the same nats, whatever its place in the row."""
    torch.manual_seed(0)
    classes = {
        "poisson": models.PoissonLikelihood,
        "negative_binomial": models.NegativeBinomialLikelihood,
        "zero_inflated_negative_binomial": models.ZeroInflatedNegativeBinomialLikelihood,
    }
    law = classes[likelihood]((3,), size_factors=size_factors)
    shape = (1,) if size_factors else None
    model = VAE((3,), latent_dim=2, likelihood=law, context_shape=shape, missing=True)
    x = torch.tensor([[torch.nan] * 3, [4.0, torch.nan, 0.0], [1.0, 2.0, 30.0]])
    context = torch.tensor([[0.5], [2.0], [1.0]]) if size_factors else None
    z = torch.randn(3, 2)
    decoded = model.decode(z, context)
    elements = decoded.base.base_dist.log_prob(x.nan_to_num(0.0))
    expected = torch.where(x.isnan(), 0.0, elements).sum(-1)
    torch.testing.assert_close(decoded.log_prob(x), expected)
    ELBOLoss(model)(x, context).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    drawn = model.impute(x, context, num_samples=2)
    assert torch.equal(drawn[:, 2], x[2].expand(2, 3))
    assert not drawn.isnan().any()


@pytest.mark.parametrize("kinds", [["count", "gaussian"], [3, "gaussian", "count", 1, 3]], ids=str)
def test_an_encoder_of_columns_sees_all_that_was_observed(kinds: list[str | int]) -> None:
    """It has the columns in an order of its own, by kind."""
    model = VAE((len(kinds),), latent_dim=1, likelihood=models.Columns(kinds), missing=True)
    x = torch.ones(len(kinds)).where(torch.tensor([kind != 1 for kind in kinds]), 0.0)
    whole = model.encoder_input(x)
    for place in range(len(kinds)):
        holes = x.clone()
        holes[place] = torch.nan
        others = torch.full_like(x, torch.nan)
        others[place] = x[place]
        without, alone = model.observed_input(holes)[0], model.observed_input(others)[0]
        assert torch.equal(without + alone, whole)
        assert torch.equal(without * alone, torch.zeros_like(whole))
        assert alone.any()
