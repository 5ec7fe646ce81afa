"""Mixtures of any exact model: exact likelihood and posterior, in every form of the program."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    MCMC,
    NUTS,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceTMC_ELBO,
)
from torch import Tensor

from pyro_genmodels import models, nets, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.distributions import Mixture
from pyro_genmodels.models import ELBOLoss, MixtureModel
from pyro_genmodels.testing.sampling import all_levels
from tests import cases
from tests.cases.models import mixture
from tests.test_laws import batch_for, prepared_model

pytestmark = pytest.mark.usefixtures("double")

X = all_levels("x", 2, torch.Size((3,)))
KNOWN = torch.tensor([0, 2, 1, -1, -1, 2, 0, -1])
NAMES = [name for name in cases.MODELS if name.startswith("MixtureModel")]
DISCRETE = [name for name in NAMES if "dequantized" not in name and "continuous" not in name]


def small(**options: Any) -> MixtureModel:
    torch.manual_seed(0)
    return testing.randomize_parameters(mixture(**options).double(), 0.7).eval()


def elbo(make: Any, model: Any, *arguments: Any, **options: Any) -> float:
    rank = arguments[0].dim() - len(model.event_shape)
    estimator = make(max_plate_nesting=rank, **options)
    return -float(estimator.loss(model.model, model.guide, *arguments))


def components_of(model: Any) -> Tensor:
    """Log-probabilities of all data under each component, one label at a time."""
    labels = range(model.conditional.num_classes)
    laws = [model.conditional.distribution(torch.tensor(label)) for label in labels]
    return torch.stack([law.log_prob(X) for law in laws], -1)


@pytest.mark.parametrize("weights", ["learned", "uniform", "dirichlet", (0.2, 0.8, 0.0)])
def test_the_mixture_is_the_formula(weights: Any) -> None:
    model = small(weights=weights)
    table = dict(model.named_parameters()).get("weights.table")
    if table is None:
        w = torch.full((3,), 1 / 3) if weights == "uniform" else torch.tensor(weights)
    else:
        w = table[0].softmax(-1)
    joint = components_of(model) + w.log()
    torch.testing.assert_close(model.log_prob(X), joint.logsumexp(-1))
    torch.testing.assert_close(model.posterior(X).probs, joint.softmax(-1))
    torch.testing.assert_close(model.log_prob(X).exp().sum(), torch.tensor(1.0))
    gradients = torch.autograd.grad(model.log_prob(X).sum(), list(model.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_one_component_is_the_conditional_model() -> None:
    model = small(num_labels=1)
    expected = model.conditional.distribution(torch.tensor(0)).log_prob(X)
    torch.testing.assert_close(model.log_prob(X), expected)
    torch.testing.assert_close(
        torch.tensor(elbo(TraceEnum_ELBO, model, X)), expected.sum().detach()
    )


def data_of(name: str) -> tuple[Any, Tensor, Tensor | None]:
    case = prepared_model(cases.MODELS[name])
    x, context = batch_for(case, 4)
    return case.part, x, context


@pytest.mark.parametrize("name", [name for name in NAMES if "dequantized" not in name])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_elbo_is_the_evidence(name: str, mode: str) -> None:
    """In value and gradient, without noise; also over two batch dimensions."""
    model, x, context = data_of(name)
    getattr(model, mode)()
    batches = [
        (x, context),
        (x.reshape(2, 2, 3), None if context is None else context.reshape(2, 2)),
    ]
    for data, given in batches:
        evidence = model.log_prob(data, given).sum()
        rank = data.dim() - 1
        prior = model.weights.concentration is not None and mode == "train"
        objective = evidence + (model.weights.log_prior() if prior else 0)
        expected = torch.autograd.grad(objective, list(model.parameters()), allow_unused=True)
        model.zero_grad()
        loss = TraceEnum_ELBO(max_plate_nesting=rank).loss_and_grads(
            model.model, model.guide, data, given
        )
        assert -loss == pytest.approx(float(objective), abs=1e-9)
        for parameter, slope in zip(model.parameters(), expected, strict=True):
            found = parameter.grad
            zero = torch.zeros_like(parameter)
            torch.testing.assert_close(
                zero if found is None else found, zero if slope is None else -slope
            )


@pytest.mark.parametrize("context", [None, KNOWN, KNOWN.clamp_min(0)], ids=["no", "some", "all"])
@pytest.mark.parametrize(
    "make", [Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, RenyiELBO, TraceTMC_ELBO]
)
def test_each_estimator_gives_the_evidence(make: Any, context: Tensor | None) -> None:
    """Whatever component is drawn: the guide is the posterior."""
    model = small()
    expected = float(model.log_prob(X, context).sum())
    if make is TraceTMC_ELBO and context is KNOWN:
        with pytest.raises(ValueError, match=r"`make_elbo` must not divide .* got TraceTMC_ELBO"):
            elbo(make, model, X, context)
        return
    options = [{}] if make is RenyiELBO else [{}, {"num_particles": 3, "vectorize_particles": True}]
    for option in options:
        assert elbo(make, model, X, context, **option) == pytest.approx(expected, abs=1e-8)


def test_a_known_label_is_scored_and_an_unknown_one_is_not() -> None:
    model = small()
    joint = components_of(model) + model.label_distribution().logits
    rows = torch.arange(8)
    expected = torch.where(KNOWN >= 0, joint[rows, KNOWN.clamp_min(0)], joint.logsumexp(-1))
    torch.testing.assert_close(model.log_prob(X, KNOWN), expected)
    torch.testing.assert_close(model.log_prob(X, -torch.ones(8).long()), model.log_prob(X))
    probs = model.posterior(X, KNOWN).probs
    torch.testing.assert_close(probs[KNOWN < 0], joint.softmax(-1)[KNOWN < 0])
    assert (probs[KNOWN >= 0, KNOWN[KNOWN >= 0]] == 1).all()


def test_labels_that_do_not_fit_are_named() -> None:
    model = small()
    rule = "`context` must be labels from 0 to 2, or -1 where unknown; got values"
    for label, found in ((3, "from 3 to 3"), (-2, "from -2 to -2")):
        with pytest.raises(ValueError, match=f"{rule} {found}"):
            model.log_prob(X, torch.full((8,), label))
    with pytest.raises(ValueError, match="`context` must be labels from 0 to 2; got"):
        small(num_labels=6, num_groups=3).log_prob(X, torch.full((8,), -1))
    with pytest.raises(ValueError, match=r"MixtureModel given components"):
        model.distribution(torch.tensor([1]))


def test_chunks_change_nothing() -> None:
    """Whatever their size; also gradients, for which they are evaluated again."""
    whole = small(num_labels=5)
    slopes = torch.autograd.grad(whole.log_prob(X).sum(), list(whole.parameters()))
    for size in (1, 2, 3, 4, 5, 9):
        model = mixture(num_labels=5, chunk_size=size).double().eval()
        model.load_state_dict(whole.state_dict())
        torch.testing.assert_close(model.log_prob(X), whole.log_prob(X))
        found = torch.autograd.grad(model.log_prob(X).sum(), list(model.parameters()))
        for slope, expected in zip(found, slopes, strict=True):
            torch.testing.assert_close(slope, expected)


def test_components_are_evaluated_once_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's evaluation serves the model: with dropout they would have other masks."""
    model, calls = small(), []
    original = type(model.conditional).distribution

    def distribution(self: Any, context: Any = None) -> Any:
        calls.append(context)
        return original(self, context)

    monkeypatch.setattr(type(model.conditional), "distribution", distribution)
    ELBOLoss(model)(X).backward()
    assert len(calls) == 1


def test_dropout_leaves_the_elbo_the_evidence() -> None:
    torch.manual_seed(0)
    net = nets.MADENet((3,), 2, hidden=(32,), dropout=0.5, num_classes=3)
    model = MixtureModel(models.AutoregressiveModel(net), chunk_size=2).double().train()
    testing.randomize_parameters(model, 0.5)
    torch.manual_seed(1)
    expected = model.log_prob(X).mean()
    torch.manual_seed(1)
    torch.testing.assert_close(-ELBOLoss(model)(X), expected)


def test_features_change_components_and_weights() -> None:
    torch.manual_seed(0)
    model = testing.randomize_parameters(mixture(context_shape=(2,)).double(), 0.7).eval()
    features = torch.randn(8, 2)
    weights = model.label_distribution(features)
    assert weights.batch_shape == (8,)
    assert not torch.allclose(weights.probs[0], weights.probs[1])
    joint = components_of(model) + weights.logits
    torch.testing.assert_close(model.log_prob(X, features), joint.logsumexp(-1))
    assert elbo(TraceEnum_ELBO, model, X, features) == pytest.approx(
        float(joint.logsumexp(-1).sum())
    )
    pair = KNOWN, features
    torch.testing.assert_close(
        torch.tensor(elbo(TraceEnum_ELBO, model, X, pair)), model.log_prob(X, pair).sum().detach()
    )
    torch.testing.assert_close(model.posterior(X, pair).probs[0], torch.tensor([1.0, 0.0, 0.0]))


def test_a_label_and_features_of_the_components() -> None:
    torch.manual_seed(0)
    net = nets.MADENet((3,), 2, hidden=(8,), num_classes=3, context_shape=(2,))
    model = MixtureModel(models.AutoregressiveModel(net), chunk_size=2).double().eval()
    testing.randomize_parameters(model, 0.7)
    features = torch.randn(8, 2)
    scores = torch.stack(
        [
            model.conditional.distribution((torch.full((8,), label), features)).log_prob(X)
            for label in range(3)
        ],
        -1,
    )
    joint = scores + model.label_distribution(features).logits
    torch.testing.assert_close(model.log_prob(X, features), joint.logsumexp(-1))
    assert elbo(TraceEnum_ELBO, model, X, features) == pytest.approx(
        float(joint.logsumexp(-1).sum())
    )
    assert model.sample(4, features).shape == (4, 8, 3)
    assert model.sample(4, (KNOWN, features)).shape == (4, 8, 3)


def test_classes_have_components_of_their_own() -> None:
    model = small(num_labels=6, num_groups=3)
    parts, table = components_of(model).unflatten(-1, (3, 2)), model.weights.table
    expected = (parts + table.log_softmax(-1)).logsumexp(-1)
    torch.testing.assert_close(model.class_log_probs(X), expected)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    torch.testing.assert_close(model.log_prob(X, labels), expected[torch.arange(8), labels])
    outer = testing.randomize_parameters(MixtureModel(model).double(), 0.5)
    joint = outer.conditional.class_log_probs(X) + outer.label_distribution().logits
    torch.testing.assert_close(outer.log_prob(X), joint.logsumexp(-1))


def test_a_dequantised_mixture_has_one_noise() -> None:
    """The bound averages to the evidence of a grid, and the noise sees no label."""
    model, x, _ = data_of("MixtureModel/dequantized")
    testing.check_evidence_normalized(model, num_particles=1000)
    with pytest.raises(ValueError, match="MixtureModel of levels: its `density`"):
        model.distribution()
    trace = pyro.poutine.trace(model.guide).get_trace(x)
    assert list(trace.nodes["v"]["value"].shape) == [4, 3]
    torch.manual_seed(0)
    drawn = model.log_weights(x, num_particles=2000).mean(0).sum()
    found = elbo(TraceEnum_ELBO, model, x, num_particles=2000, vectorize_particles=True)
    assert found == pytest.approx(float(drawn), abs=0.3)
    assert model.posterior(x).probs.shape == (4, 2)


def test_without_a_guide_there_is_the_data_alone() -> None:
    model = small()
    trace = pyro.poutine.trace(model.model).get_trace(X)
    assert trace.stochastic_nodes == []
    assert trace.observation_nodes == ["x"]
    assert float(trace.log_prob_sum()) == pytest.approx(float(model.log_prob(X).sum()))
    labelled = pyro.poutine.trace(model.model).get_trace(X, KNOWN)
    assert labelled.stochastic_nodes == []
    assert float(labelled.log_prob_sum()) == pytest.approx(float(model.log_prob(X, KNOWN).sum()))
    assert set(Predictive(model.model, num_samples=5)()) == {"x"}


def test_nuts_sees_no_component() -> None:
    model = small()

    def program() -> None:
        pyro.sample("shift", dist.Normal(0.0, 1.0))
        model.model(X)

    kernel = NUTS(program)
    chain = MCMC(kernel, num_samples=3, warmup_steps=2, disable_progbar=True)
    chain.run()
    assert set(chain.get_samples()) == {"shift"}


def test_samples_are_of_each_component_in_proportion() -> None:
    model = small(weights=[0.2, 0.8, 0.0])
    draws = model.sample(20_000)
    assert draws.shape == (20_000, 3)
    mean = (model.log_prob(X).exp()[:, None] * X).sum(0)
    torch.testing.assert_close(draws.mean(0), mean.detach(), atol=0.02, rtol=0)
    given = model.sample(20_000, torch.tensor(1))
    of_one = (components_of(model)[:, 1].exp()[:, None] * X).sum(0)
    torch.testing.assert_close(given.mean(0), of_one.detach(), atol=0.02, rtol=0)
    unknown = model.sample(20_000, torch.tensor([-1, 1])).mean(0)
    torch.testing.assert_close(unknown[0], mean.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(unknown[1], of_one.detach(), atol=0.02, rtol=0)


def test_a_dirichlet_prior_is_shared_by_the_examples() -> None:
    model = small(weights="dirichlet", concentration=3.0).train()
    law = dist.Dirichlet(torch.full((3,), 3.0))
    nats = law.log_prob(model.weights.table[0].softmax(-1))
    torch.testing.assert_close(model.weights.log_prior(), nats)
    torch.testing.assert_close(ELBOLoss(model)(X), -model.log_prob(X).mean() - nats / 8)
    model.expect_examples(100)
    torch.testing.assert_close(ELBOLoss(model)(X[:2]), -model.log_prob(X[:2]).mean() - nats / 100)
    assert model.beside_elbo() == ["Dirichlet weights of concentration 3"]
    with pytest.raises(ValueError, match=r"`model` must .* got Dirichlet weights"):
        ELBOLoss(model, importance=True, num_particles=2)
    with pytest.raises(ValueError, match=r"`concentration` must be at least 1"):
        small(weights="dirichlet", concentration=0.5)


def test_few_labels_name_the_clusters() -> None:
    """A classifier by Bayes' rule, from a quarter of the labels."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    labels = torch.randint(3, (300,))
    centres = torch.tensor([[3.0, 0], [-3, 0], [0, 3]])
    x = centres[labels] + 0.3 * torch.randn(300, 2)
    few = torch.where(torch.arange(300) % 4 == 0, labels, -1)
    flow = models.maf((2,), num_classes=3, hidden=(16,))
    model = MixtureModel(flow, observed_labels=True)
    model.standardize(x)
    loss = ELBOLoss(model)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss(x, few).backward()
        optimizer.step()
    assert (model.eval().posterior(x).probs.argmax(-1) == labels).double().mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_mixture_is_described_and_copied(name: str) -> None:
    model, x, context = data_of(name)
    again = build(configuration(model)).double().eval()
    again.load_state_dict(model.state_dict())
    copied = copy.deepcopy(model)
    for other in (again, copied):
        torch.manual_seed(0)
        expected = model.log_weights(x, context)
        torch.manual_seed(0)
        torch.testing.assert_close(other.log_weights(x, context), expected)


def test_what_cannot_be_mixed_is_named() -> None:
    vae = models.VAE((3,), num_classes=2)
    with pytest.raises(ValueError, match=r"`conditional` must have a .* got VAE"):
        MixtureModel(vae)
    plain = models.AutoregressiveModel(nets.MADENet((3,), 2))
    with pytest.raises(ValueError, match="`conditional` must be conditional on labels"):
        MixtureModel(plain)
    with pytest.raises(ValueError, match="`conditional` must be conditional on labels"):
        MixtureModel(mixture(observed_labels=True))
    with pytest.raises(ValueError, match="`num_groups` must divide"):
        mixture(num_groups=2)
    for weights in ([0.5, 0.5], [0.5, 0.6, -0.1], [0.5, 0.4, 0.2], "flat"):
        with pytest.raises(ValueError, match="`weights` must be one of"):
            mixture(weights=weights)


def test_a_component_without_weight_has_no_say() -> None:
    """Neither its values, infinite ones too, nor its gradients."""
    loc = torch.tensor([0.0, 5.0], requires_grad=True)
    parts = dist.Normal(loc, torch.tensor([1.0, 1e-100]), validate_args=False)
    law = Mixture(torch.tensor([0.0, -math.inf]), parts)
    x = torch.tensor([0.5, 5.0])
    torch.testing.assert_close(law.log_prob(x), dist.Normal(0.0, 1.0).log_prob(x))
    (slope,) = torch.autograd.grad(law.log_prob(x).sum(), loc)
    assert slope.isfinite().all()
    assert slope[1] == 0
    assert law.posterior(x).probs.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_data_that_no_component_gives() -> None:
    logits = torch.zeros(2, requires_grad=True)
    box = dist.Uniform(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), validate_args=False)
    law = Mixture(logits, box, validate_args=False)
    assert law.log_prob(torch.tensor(3.0)) == -math.inf
    (slope,) = torch.autograd.grad(law.log_prob(torch.tensor([0.5, 3.0])).sum(), logits)
    assert slope.isfinite().all()
    assert law.posterior(torch.tensor(3.0)).probs.tolist() == [0.5, 0.5]


def test_moments_of_a_mixture() -> None:
    law = Mixture(
        torch.tensor([0.3, 0.7]).log(),
        dist.Normal(torch.tensor([[0.0, 1], [4, 2]]), 0.5).to_event(1),
    )
    draws = law.sample((200_000,))
    torch.testing.assert_close(law.mean, draws.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(law.variance, draws.var(0), atol=0.05, rtol=0)


def clusters(rows: int = 600) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (rows,))
    centres = torch.tensor([[3.0, 0], [-3, 0], [0, 4]])
    return centres[labels] + 0.5 * torch.randn(rows, 2), labels


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_em_gives_what_sklearn_scores(covariance: Any) -> None:
    """Log-likelihood of the fitted parameters; a result that says what the model scores."""
    mixtures = pytest.importorskip("sklearn.mixture")
    torch.manual_seed(0)
    x, _ = clusters()
    model = models.gaussian_mixture((2,), 3, covariance=covariance).double().standardize(x)
    result = model.fit_em(x, num_starts=2)
    assert result.log_likelihood == pytest.approx(float(model.log_prob(x).sum()), abs=1e-6)
    means, covariances = (each.numpy() for each in model.conditional.moments())
    kind = {"diagonal": "diag"}.get(covariance, covariance)
    peer = mixtures.GaussianMixture(3, covariance_type=kind, reg_covar=0)
    peer.weights_, peer.means_ = model.weights.probabilities().numpy(), means
    peer.covariances_ = covariances
    from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

    peer.precisions_cholesky_ = _compute_precision_cholesky(covariances, kind)
    scores = torch.from_numpy(peer.score_samples(x.numpy()))
    torch.testing.assert_close(model.log_prob(x).detach(), scores, atol=1e-9, rtol=1e-9)
    shares = torch.from_numpy(peer.predict_proba(x.numpy()))
    torch.testing.assert_close(model.posterior(x).probs.detach(), shares, atol=1e-9, rtol=1e-7)


def test_em_takes_labels_and_weights() -> None:
    torch.manual_seed(0)
    x, labels = clusters()
    model = models.gaussian_mixture((2,), 3).double()
    few = torch.where(torch.arange(600) % 20 == 0, labels, -1)
    model.fit_em(x, labels=few, num_starts=1)
    assert (model.posterior(x).probs.argmax(-1) == labels).double().mean() > 0.98
    weights = torch.tensor([2.0, 1.0]).repeat(300)
    weighted = model.fit_em(x, weights=weights, num_starts=1)
    again = model.fit_em(torch.cat([x, x[::2]]), num_starts=0)
    assert weighted.log_likelihood == pytest.approx(again.log_likelihood, rel=1e-6)
    for wrong in ({"labels": few[:3]}, {"weights": weights[:3]}):
        with pytest.raises(ValueError, match=r"must have shape \(600,\)"):
            model.fit_em(x, **wrong)


def test_what_em_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="got MixtureModel of AutoregressiveModel"):
        small().fit_em(X)
    assert not small().fits_by_em
    assert models.gaussian_mixture((2,), 2).fits_by_em
    assert not models.gaussian_mixture((2,), 2, num_levels=4).fits_by_em
    assert models.categorical_mixture((2,), 2, num_levels=4).fits_by_em


@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
def test_imputations_are_of_the_exact_conditional(covariance: Any) -> None:
    torch.manual_seed(0)
    rank = {"rank": 1} if covariance == "low_rank" else {}
    model = models.gaussian_mixture((2,), 3, covariance=covariance, missing=True, **rank).double()
    testing.randomize_parameters(model, 1.0).eval()
    x = torch.tensor([0.3, torch.nan])
    drawn = model.impute(x, num_samples=4000)
    assert (drawn[:, 0] == 0.3).all()
    grid = torch.linspace(-15, 15, 3001)
    joint = model.log_prob(torch.stack([torch.full_like(grid, 0.3), grid], -1)).exp().detach()
    weights = joint / joint.sum()
    mean, spread = (weights * grid).sum(), (weights * grid.square()).sum().sqrt()
    error = 4 * spread / 4000**0.5
    assert abs(drawn[:, 1].mean() - mean) < error
    torch.testing.assert_close(model.log_prob(x).exp(), joint.sum() * 0.01, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("make", [models.gaussian_mixture, models.bernoulli_mixture])
def test_more_components_than_rows_are_named(make: Any) -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r"`num_components` must be at most .* rows, 3; got 4"):
        make((2,), 4).fit_em(x)
    # As many components as rows, of which two are the same, are a fit like any other.
    same = torch.cat([x[::2], x[:1]])
    assert math.isfinite(make((2,), 3).fit_em(same, num_starts=1).log_likelihood)


def test_known_labels_train_without_a_warning() -> None:
    loss = ELBOLoss(small().train())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(X, KNOWN.clamp_min(0)).backward()


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical", "low_rank"])
def test_a_fit_far_from_zero_is_kept_in_float32(covariance: str) -> None:
    """What expectation-maximisation fits in float64 the model holds in standardised units."""
    torch.manual_seed(0)
    x = 1e6 + 0.01 * torch.randn(200, 3, dtype=torch.float64)
    x[:100] += 0.2
    rank = {"rank": 1} if covariance == "low_rank" else {}
    model = models.gaussian_mixture((3,), 2, covariance=covariance, **rank).float()
    result = model.fit_em(x)
    found = float(model.log_prob(x).double().sum().detach())
    assert abs(found - result.log_likelihood) < 1e-3 * len(x)
