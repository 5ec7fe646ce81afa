"""Autoregressive distributions as parts of a user's Pyro program."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
    infer_discrete,
)
from torch import Tensor

from pyro_genmodels import distributions as pgd
from pyro_genmodels.nets import GatedPixelCNNNet
from tests.distributions.families import NETWORKS, make

each_family = pytest.mark.parametrize("name", NETWORKS)
SHAPE = (1, 2, 3)


def labelled(name: str) -> pgd.AutoregressiveDistribution:
    """Return the laws of three labels, ``batch_shape`` (3,)."""
    law = make(name, SHAPE, 3, num_classes=3)
    return type(law)(law.net, torch.arange(3))


@each_family
@torch.no_grad()
def test_as_a_likelihood_every_estimator_gives_the_exact_score(name: str) -> None:
    law = labelled(name)
    x = law.sample((2,)).flatten(0, 1)
    label = torch.arange(6) % 3

    def model(x: Tensor) -> None:
        pyro.module("net", law.net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", type(law)(law.net, label), obs=x)

    exact = -float(type(law)(law.net, label).log_prob(x).sum())
    for estimator in (Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO):
        assert estimator().loss(model, lambda x: None, x) == pytest.approx(exact, rel=1e-10)


@each_family
def test_a_label_is_enumerated_out_and_inferred(name: str) -> None:
    law = labelled(name)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    x = law.sample((2,)).flatten(0, 1)

    @config_enumerate
    def model(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(weights))
            pyro.sample("x", type(law)(law.net, label), obs=x)
        return label

    joint = law.log_prob(x[:, None]).detach() + weights.log()
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda x: None, x)
    assert loss == pytest.approx(-float(joint.logsumexp(-1).sum()), rel=1e-10)
    likeliest = infer_discrete(model, temperature=0, first_available_dim=-2)(x)
    assert torch.equal(likeliest, joint.argmax(-1))


@each_family
def test_predictive_in_parallel_and_a_conditioned_program(name: str) -> None:
    law = labelled(name)

    def model() -> Tensor:
        with pyro.plate("data", 4):
            label = pyro.sample("label", dist.Categorical(torch.ones(3)))
            return pyro.sample("x", type(law)(law.net, label))

    draws = Predictive(model, num_samples=5, parallel=True)()
    assert draws["x"].shape == (5, 4, *SHAPE)
    given = poutine.condition(model, {"x": draws["x"][0], "label": draws["label"][0, 0]})
    trace = poutine.trace(given).get_trace()
    expected = type(law)(law.net, draws["label"][0, 0]).log_prob(draws["x"][0])
    assert torch.equal(trace.nodes["x"]["fn"].log_prob(draws["x"][0]), expected)
    assert torch.equal(given(), draws["x"][0])


@each_family
def test_contexts_of_two_plates(name: str) -> None:
    law = labelled(name)
    label = torch.tensor([[0, 2], [1, 0], [2, 2]])
    x = type(law)(law.net, label).sample()

    def model(x: Tensor) -> None:
        with pyro.plate("columns", 2), pyro.plate("rows", 3), poutine.scale(scale=0.5):
            pyro.sample("x", type(law)(law.net, label), obs=x)

    total = poutine.trace(model).get_trace(x).log_prob_sum()
    each = [law.log_prob(v)[k] for v, k in zip(x.flatten(0, 1), label.flatten(), strict=True)]
    assert float(total) == pytest.approx(0.5 * float(sum(each)), rel=1e-10)


@each_family
def test_as_a_prior_over_discrete_latents(name: str) -> None:
    """Importance sampling finds the evidence of a datum with 16 hypotheses."""
    prior = make(name, (1, 2, 2), 2)
    x = torch.tensor([0.9, 0.2, 0.4, 1.1], dtype=torch.float64)

    def model() -> None:
        with pyro.plate("particles", 2000):
            codes = pyro.sample("codes", type(prior)(prior.net)).double()
            pyro.sample("x", dist.Normal(codes.flatten(-3), 0.7).to_event(1), obs=x)

    with torch.no_grad():
        trace = poutine.trace(model).get_trace()
        trace.compute_log_prob()
        weights = trace.nodes["x"]["log_prob"].exp()
        every = torch.cartesian_prod(*[torch.arange(2.0)] * 4).double()
        joint = prior.log_prob(every.view(-1, 1, 2, 2))
        joint = joint + dist.Normal(every, 0.7).to_event(1).log_prob(x)
    error = float(weights.std()) / 2000**0.5
    assert abs(float(weights.mean() - joint.exp().sum())) < 5 * error


def test_semi_supervised_classification_with_a_class_conditional_model() -> None:
    """Six labelled images, many without: the label is enumerated out of the latter."""
    pyro.set_rng_seed(0)
    kinds = torch.tensor([[[1.0, 1, 1], [0, 0, 0], [0, 0, 0]], [[1, 0, 0], [1, 0, 0], [1, 0, 0]]])
    truth = torch.arange(200) % 2
    flips = (torch.rand(200, 3, 3) < 0.1).float()
    x = (kinds[truth] - flips).abs()[:, None]
    net = GatedPixelCNNNet((1, 3, 3), 2, hidden_channels=8, num_layers=2, num_classes=2)

    @config_enumerate
    def part(name: str, x: Tensor, label: Tensor | None = None) -> Tensor:
        with pyro.plate(f"{name} data", len(x)):
            label = pyro.sample(f"{name} label", dist.Categorical(torch.ones(2)), obs=label)
            pyro.sample(f"{name} x", pgd.GatedPixelCNN(net, label), obs=x)
        return label

    def program(x: Tensor, known: Tensor) -> None:
        pyro.module("net", net)
        part("labelled", x[: len(known)], known)
        part("unlabelled", x[len(known) :])

    svi = SVI(program, lambda *_: None, pyro.optim.Adam({"lr": 1e-2}), TraceEnum_ELBO(1))
    for _ in range(60):
        svi.step(x, truth[:6])
    inferred = infer_discrete(part, temperature=0, first_available_dim=-2)("all", x)
    assert (inferred == truth).float().mean() > 0.95
