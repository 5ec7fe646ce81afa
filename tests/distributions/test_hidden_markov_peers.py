"""Hidden Markov models against hmmlearn and Pyro's, and inside Pyro's programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import Tensor

from pyro_genmodels import distributions
from tests.distributions.hidden_markov_oracles import factors, left_to_right

pytestmark = pytest.mark.usefixtures("double")


def series(duration: int = 30, *, sparse: bool = False) -> distributions.HiddenMarkov:
    initial, transition, _ = factors(states=4)
    if sparse:
        initial, transition = left_to_right(4)
    noise = dist.Normal(torch.tensor([-2.0, 0.0, 1.0, 3.0]), torch.tensor([0.5, 1.0, 0.7, 0.3]))
    return distributions.HiddenMarkov(initial, transition, noise, duration=duration)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("duration", [30, 200])
def test_hmmlearn(sparse: bool, duration: int) -> None:
    hmm = pytest.importorskip("hmmlearn.hmm")
    torch.manual_seed(0)
    ours = series(duration, sparse=sparse)
    peer = hmm.GaussianHMM(4, covariance_type="diag")
    normals = ours.components.distribution
    peer.startprob_, peer.transmat_ = (
        x.exp().numpy() for x in (ours.initial_logits, ours.transition_logits)
    )
    peer.means_, peer.covars_ = (x[:, None].numpy() for x in (normals.loc, normals.variance))
    for x in ours.sample((3,)):
        score, posteriors = peer.score_samples(x[:, None].numpy())
        assert float(ours.log_prob(x)) == pytest.approx(score, abs=1e-8)
        np.testing.assert_allclose(ours.marginals(x).numpy(), posteriors, atol=1e-8)
        nats, path = peer.decode(x[:, None].numpy())
        states, ours_nats = ours.viterbi(x)
        assert float(ours_nats) == pytest.approx(nats, abs=1e-8)
        assert states.tolist() == path.tolist()


def law_of_pyro_shift() -> None:
    """Pyro's model is ours if its first transition is to our first state, whatever came before."""
    ours = series(6)
    x = ours.sample((3,))
    first = ours.initial_logits.expand(1, 4, 4)
    steps = torch.cat([first, ours.transition_logits.expand(5, 4, 4)])
    theirs = dist.DiscreteHMM(torch.zeros(4), steps, ours.components.distribution)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.filter(x)[:, -1], theirs.filter(x).probs)


def test_pyro_after_the_shift() -> None:
    law_of_pyro_shift()


def sticky(stay: Tensor, loc: Tensor) -> distributions.HiddenMarkov:
    move = (1 - stay).unsqueeze(-1)
    rows = torch.stack(
        [torch.cat([stay.unsqueeze(-1), move], -1), torch.cat([move, stay.unsqueeze(-1)], -1)], -2
    )
    noise = dist.Normal(torch.stack([-loc, loc], -1), 0.5)
    return distributions.HiddenMarkov(torch.zeros(2), rows.log(), noise, duration=20)


def test_nuts_over_its_parameters() -> None:
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    x = sticky(torch.tensor(0.9), torch.tensor(1.0)).sample((4,))

    def program() -> None:
        stay = pyro.sample("stay", dist.Beta(2.0, 2.0))
        loc = pyro.sample("loc", dist.LogNormal(0.0, 1.0))
        with pyro.plate("series", 4):
            pyro.sample("x", sticky(stay, loc), obs=x)

    mcmc = MCMC(NUTS(program), num_samples=30, warmup_steps=30, disable_progbar=True)
    mcmc.run()
    samples = mcmc.get_samples()
    assert abs(float(samples["loc"].mean()) - 1) < 0.2
    assert abs(float(samples["stay"].mean()) - 0.9) < 0.1


def test_beside_enumeration() -> None:
    """A latent label enumerated by Pyro has batch dimensions on the left of the series'."""
    locs, x = torch.tensor([0.5, 2.0]), torch.randn(3, 20)

    @config_enumerate
    def model() -> None:
        label = pyro.sample("label", dist.Categorical(torch.ones(2)))
        with pyro.plate("series", 3):
            pyro.sample("x", sticky(torch.tensor(0.8), locs[label]), obs=x)

    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
    each = torch.stack([sticky(torch.tensor(0.8), loc).log_prob(x).sum() for loc in locs])
    assert -loss == pytest.approx(float((each - torch.log(torch.tensor(2.0))).logsumexp(0)))


def test_a_prior_with_a_guide_masks_scales_and_prediction() -> None:
    prior = sticky(torch.tensor(0.8), torch.tensor(1.0))

    def model(observed: Tensor | None = None) -> Any:
        with pyro.plate("series", 3), poutine.scale(scale=0.5):
            level = pyro.sample("level", prior)
            return pyro.sample("x", dist.Normal(level, 0.1).to_event(1), obs=observed)

    def guide(observed: Tensor | None = None) -> None:
        loc = pyro.param("loc", lambda: torch.zeros(3, 20))
        with pyro.plate("series", 3), poutine.scale(scale=0.5):
            pyro.sample("level", dist.Normal(loc, 0.1).to_event(1))

    observed = prior.sample((3,))
    pyro.clear_param_store()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    losses = [svi.step(observed) for _ in range(60)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    drawn = Predictive(model, guide=guide, num_samples=5)()
    assert drawn["x"].shape == (5, 3, 20)
    seen = torch.tensor([True, False, True])
    with poutine.mask(mask=seen):
        trace = poutine.trace(model).get_trace(observed)
    trace.compute_log_prob()
    site = trace.nodes["level"]
    torch.testing.assert_close(site["log_prob"], 0.5 * prior.log_prob(site["value"]) * seen)
