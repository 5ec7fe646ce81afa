"""The semi-supervised VAE: labels enumerated, drawn or observed give one objective."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import (
    SVI,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from torch import Tensor

from pyro_genmodels import testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.models import VAE, BetaVAE, ELBOLoss, SemiSupervisedVAE, VAENetwork
from tests import cases
from tests.grouped import grouped

LABELS = torch.tensor([0, 2, 1, 2])


PRIOR = (0.2, 0.7, 0.1)


def small(cls: Any = VAE, label_prior: Any = "uniform", **options: Any) -> SemiSupervisedVAE:
    torch.manual_seed(0)
    sizes = {"num_levels": 2, "latent_dim": 2, "hidden": (6,), "num_classes": 3}
    conditional = cls((4,), **grouped(cls, {**sizes, **options}))
    model = SemiSupervisedVAE(conditional, hidden=(5,), label_prior=label_prior)
    return testing.randomize_parameters(model.double(), 0.4)


def data(*batch: int) -> Tensor:
    return torch.randint(2, (*batch, 4)).double()


def estimate(make: Any, model: Any, *arguments: Any, particles: int = 400) -> Tensor:
    """Value and gradients' sum along a direction."""
    torch.manual_seed(0)
    direction = [torch.randn_like(p) for p in model.parameters()]
    rows = []
    for seed in range(8):
        torch.manual_seed(seed)
        model.zero_grad()
        elbo = make(max_plate_nesting=1, num_particles=particles, vectorize_particles=True)
        loss = elbo.loss_and_grads(model.model, model.guide, *arguments)
        pairs = zip(model.parameters(), direction, strict=True)
        slope = sum((p.grad * d).sum() for p, d in pairs if p.grad is not None)
        rows.append(torch.tensor([float(loss), float(slope)]))
    return torch.stack(rows)


def assert_same_mean(first: Tensor, second: Tensor) -> None:
    error = ((first.var(0) + second.var(0)) / len(first)).sqrt()
    assert ((first.mean(0) - second.mean(0)).abs() <= 3.5 * error + 1e-6).all()


BETA: dict[str, Any] = {"cls": BetaVAE, "beta": 3.0}


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({}, 0),
        ({"label_prior": PRIOR}, 0),
        ({"label_prior": "learned"}, 0),
        (BETA, 0),
        *((BETA | {"warmup_steps": 9}, step) for step in (0, 5, 9)),
    ],
)
def test_enumerated_equals_drawn(options: dict[str, Any], step: int) -> None:
    """By score function gradients in Trace and TraceGraph, exactly in TraceEnum."""
    model, x = small(**options).eval(), data(4)
    model.latent_scale.step.fill_(step)
    enumerated = estimate(TraceEnum_ELBO, model, x)
    for make in (Trace_ELBO, TraceGraph_ELBO):
        drawn = estimate(make, model, x, particles=3000)
        assert_same_mean(enumerated, drawn)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_observed_labels(mode: str) -> None:
    model, x = getattr(small(), mode)(), data(4)
    first, *others = (
        estimate(make, model, x, LABELS)
        for make in (TraceMeanField_ELBO, Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO)
    )
    for other in others:
        assert_same_mean(first, other)


@pytest.mark.parametrize("label_prior", ["uniform", "learned", PRIOR])
def test_the_enumerated_loss_is_the_formula(label_prior: Any) -> None:
    """Kingma et al. (2014), eq. 7: the labelled bounds under q(y | x), and its entropy."""
    model, x = small(label_prior=label_prior).eval(), data(4)
    with torch.no_grad():
        bounds = [
            model.log_weights(x, torch.full((4,), label), num_particles=4000).mean(0)
            for label in range(3)
        ]
        q = model.classify(x)
        expected = (q.probs * torch.stack(bounds, 1)).sum(1) + q.entropy()
    found = -ELBOLoss(model, num_particles=4000)(x).detach()
    torch.testing.assert_close(found, expected.mean(), atol=0.05, rtol=0)


@pytest.mark.parametrize("label_prior", ["uniform", "learned", PRIOR])
def test_labels_are_observed_data(label_prior: Any) -> None:
    """The joint bound is the conditional model's less the label's cost under the label prior."""
    model, x = small(label_prior=label_prior).eval(), data(4)
    logits = dict(model.named_parameters()).get("label_logits")
    probabilities = torch.tensor(PRIOR if label_prior == PRIOR else (1 / 3,) * 3).double()
    probabilities = probabilities if logits is None else logits.softmax(-1)
    torch.manual_seed(1)
    joint = model.log_weights(x, LABELS, num_particles=3)
    torch.manual_seed(1)
    given = model.conditional.log_weights(x, LABELS, num_particles=3)
    torch.testing.assert_close(joint, given + probabilities.log()[LABELS], rtol=0, atol=1e-6)


def test_a_learned_prior_rests_at_the_label_frequencies() -> None:
    """Of a batch: those given, and of unlabelled data the classifier's mean probabilities."""
    model, x = small(label_prior="learned").eval(), data(4)
    frequencies = torch.bincount(LABELS, minlength=3).double() / 4
    for labels, expected in ((LABELS, frequencies), (None, model.classify(x).probs.mean(0))):
        model.label_logits.data = expected.clamp_min(1e-30).log().detach()
        model.zero_grad()
        ELBOLoss(model)(x, labels).backward()
        assert model.label_logits.grad is not None
        assert model.label_logits.grad.abs().max() < 1e-9
        model.label_logits.data[1] += 1  # away from there it is drawn back
        model.zero_grad()
        ELBOLoss(model)(x, labels).backward()
        moved = model.label_distribution().probs - expected
        torch.testing.assert_close(model.label_logits.grad, moved.detach())


def test_labels_are_drawn_from_their_prior() -> None:
    model = small(label_prior=PRIOR).eval()
    torch.manual_seed(0)
    trace = pyro.poutine.trace(model.model).get_trace(None, None)
    assert trace.nodes["y"]["fn"].probs.tolist() == pytest.approx(PRIOR)
    drawn = model.sample(4000).double()
    by_label = torch.stack([model.sample(4000, torch.tensor(y)).double().mean(0) for y in range(3)])
    expected = torch.tensor(PRIOR).double() @ by_label
    torch.testing.assert_close(drawn.mean(0), expected, rtol=0, atol=0.04)


def test_the_prior_leaves_the_classifier_alone() -> None:
    x = data(4)
    first, *others = (small(label_prior=prior).eval() for prior in ("uniform", "learned", PRIOR))
    for other in others:
        state = {**other.state_dict(), **first.state_dict()}
        other.load_state_dict(state)
        assert torch.equal(other.classify(x).probs, first.classify(x).probs)


@pytest.mark.parametrize("label_prior", ["uniform", PRIOR])
def test_a_prior_that_is_given_is_no_state(label_prior: Any) -> None:
    """Files of before load; the configuration knows the probabilities, in any dtype."""
    model = small(label_prior=label_prior)
    assert not any("label" in name for name in model.state_dict())
    again = build(configuration(model))
    expected = PRIOR if label_prior == PRIOR else (1 / 3,) * 3
    assert again.label_distribution().probs.tolist() == pytest.approx(expected)
    assert again.double().label_distribution().probs.tolist() == pytest.approx(expected)


def test_the_classifier_learns_from_labels_in_training_only() -> None:
    model, x = small().train(), data(4)
    torch.manual_seed(0)
    with_loss = ELBOLoss(model)(x, LABELS)
    torch.manual_seed(0)
    without = ELBOLoss(model.eval())(x, LABELS)
    expected = -30 * model.classify(x).log_prob(LABELS).mean()
    torch.testing.assert_close(with_loss - without, expected)


def clusters(count: int) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (count,))
    centres = torch.tensor([[2.0, 0, 0, 1], [0, 2, 1, 0], [-2, 0, 0, -1]])
    return centres[labels] + 0.3 * torch.randn(count, 4), labels


@pytest.mark.parametrize("how", [pytest.param("loss", marks=pytest.mark.slow), "svi"])
def test_few_labels_name_the_clusters(how: str) -> None:
    torch.manual_seed(0)
    vae = VAE((4,), latent_dim=2, network=VAENetwork(hidden=(16,)), num_classes=3)
    model, (x, labels) = SemiSupervisedVAE(vae, hidden=(16,)), clusters(300)
    # Pyro's own: site "y" says by itself that it is enumerated, the decorator says it again.
    guide = config_enumerate(model.guide) if how == "svi" else model.guide
    optimizer = pyro.optim.Adam({"lr": 1e-2})
    svi = SVI(model.model, guide, optimizer, TraceEnum_ELBO(max_plate_nesting=1))
    loss, adam = ELBOLoss(model), torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        batch = torch.randint(300, (32,))
        if how == "svi":
            svi.step(x[batch])
            svi.step(x[:6], labels[:6])
            continue
        adam.zero_grad()
        (loss(x[batch]) + loss(x[:6], labels[:6])).backward()
        adam.step()
    test, expected = clusters(300)
    assert (model.classify(test).probs.argmax(1) == expected).float().mean() > 0.95
    drawn = model.sample(200, torch.tensor(2))
    assert (model.classify(drawn).probs.argmax(1) == 2).float().mean() > 0.9


def test_life_cycle() -> None:
    model = small()
    testing.check_trains(lambda: small().float(), data(8).float())
    again = build(configuration(model)).double()
    again.load_state_dict(model.state_dict())
    assert model.reconstruct(data(5)).shape == (5, 4)
    assert model.log_weights(data(2, 3), num_particles=4).shape == (4, 2, 3)
    assert model.sample(5).shape == (5, 4)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="`conditional` must be conditional on labels; got VAE"):
        SemiSupervisedVAE(VAE((4,), latent_dim=2))
    for prior in ((0.5, 0.5), (0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1)):
        with pytest.raises(ValueError, match=r"`label_prior` must be .* 3 positive"):
            small(label_prior=prior)
    with pytest.raises(ValueError, match="`label_prior` must be one of 'uniform'"):
        small(label_prior="flat")
    model = small()
    with pytest.raises(ValueError, match="`context` must"):
        ELBOLoss(model)(data(4), torch.tensor([0, 1, 2]))
    model.classifier = torch.nn.Linear(4, 2).double()
    with pytest.raises(ValueError, match=r"`classifier\(x\)` must have trailing shape \(3,\)"):
        model.classify(data(3))


# Without the low-rank VAE, the tails of whose weights are too heavy for a mean with an error, and
# without mixtures whose labels are inferred.
BY_LABELS = [
    name
    for name, make in cases.MODELS.items()
    if name not in ("SemiSupervisedVAE", "VAE/low-rank")
    and make().part.num_classes == 3
    and not getattr(make().part, "infers_label", False)
]


@pytest.mark.parametrize("make", [TraceEnum_ELBO, Trace_ELBO, TraceGraph_ELBO])
@pytest.mark.parametrize("name", BY_LABELS)
def test_any_model_conditional_on_labels_will_do(name: str, make: Any) -> None:
    """Its labels enumerated, or drawn: the expectation of the labelled bounds either way."""
    torch.manual_seed(0)
    conditional, particles = cases.MODELS[name]().part.double(), 400
    model = SemiSupervisedVAE(conditional, hidden=(4,)).double()
    shape = (2, *model.event_shape)
    x = torch.rand(shape).double() if model.num_levels is None else torch.ones(shape).double()
    ELBOLoss(conditional)(x, LABELS[:2])  # sets what is initialised by the first data
    q, model = model.eval().classify(x), model.eval()
    expected, variance = q.entropy().sum() - 2 * math.log(3), torch.zeros(())
    for label in range(3):
        weights = conditional.log_weights(x, torch.full((2,), label), num_particles=particles)
        expected = expected + (q.probs[:, label] * weights.mean(0)).sum()
        # A drawn label adds what the labels' bounds differ by.
        variance = variance + (q.probs[:, label] * weights.square().mean(0)).sum()
    elbo = make(num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    with model.bounding():
        found = -elbo.loss(model.model, model.guide, x)
    assert abs(found - expected) < 4 * (variance / particles).sqrt() + 1e-6
    assert model.log_weights(x, num_particles=3).shape == (3, 2)
    assert model.reconstruct(x).shape == model.sample(2).shape == shape
