"""Wake-sleep, and other programs in whose plates a model runs."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, ReweightedWakeSleep, Trace_ELBO
from torch import Tensor

from pyro_genmodels import models
from tests import cases
from tests.test_laws import batch_for, prepared_model

pytestmark = [pytest.mark.usefixtures("double"), pytest.mark.one_each]

INSOMNIA = [0.0, 0.5, 1.0]
# Their guides have a density for what the model draws: no codes, which are certain given the data,
# no values that must round down to them, and no planar flow, which goes one way only.
LATENT = {
    name: make
    for name, make in cases.MODELS.items()
    if getattr(make().part, "latent_dim", None) or name.startswith(("NVAE", "Semi"))
    if name != "VAE/planar"
}


def programs(model: Any) -> tuple[Any, Any]:
    """Model and guide as Pyro's wake-sleep calls them: the guide sees what the model dreams."""

    def program(x: Tensor, context: Tensor | None, observations: Any = None) -> Any:
        return model.model(x, context)

    def guide(x: Tensor, context: Tensor | None, observations: Any = None) -> Any:
        return model.guide(observations["x"] if observations else x, context)

    return program, guide


@pytest.mark.parametrize("name", LATENT)
@pytest.mark.parametrize("insomnia", INSOMNIA)
@pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])
def test_every_model(name: str, insomnia: float, vectorize: bool) -> None:
    case = prepared_model(LATENT[name])
    x, context = batch_for(case, 3)
    options = {"num_particles": 2, "num_sleep_particles": 4, "vectorize_particles": vectorize}
    elbo = ReweightedWakeSleep(insomnia=insomnia, **options)
    losses = elbo.loss_and_grads(*programs(case.part), x, context)
    assert bool(torch.tensor(losses).isfinite().all())
    grads = [p.grad for p in case.part.parameters() if p.grad is not None]
    assert any(bool(grad.any()) for grad in grads)
    assert all(bool(grad.isfinite().all()) for grad in grads)


def linear_vae() -> models.VAE:
    torch.manual_seed(0)
    likelihood = models.GaussianLikelihood((3,), scale=0.5)
    return models.VAE(
        (3,), latent_dim=2, network=models.VAENetwork(hidden=()), likelihood=likelihood
    ).double()


def by_hand(vae: models.VAE) -> tuple[Any, Any]:
    """The same in plain Pyro."""

    def program(x: Tensor, context: None, observations: Any = None) -> None:
        with pyro.plate("data", 5, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", vae.decode(z), obs=x)

    def guide(x: Tensor, context: None, observations: Any = None) -> None:
        x = observations["x"] if observations else x
        with pyro.plate("data", 5, dim=-1):
            q = vae.encode(x)
            pyro.sample("z", dist.Normal(q.loc, q.scale).to_event(1))

    return program, guide


@pytest.mark.parametrize("insomnia", INSOMNIA)
@pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])
def test_losses_are_those_of_plain_pyro(insomnia: float, vectorize: bool) -> None:
    vae, x, found = linear_vae(), torch.randn(5, 3), []
    for pair in (programs(vae), by_hand(vae)):
        torch.manual_seed(0)
        elbo = ReweightedWakeSleep(3, insomnia, vectorize_particles=vectorize)
        with pyro.poutine.block():
            found.append(torch.tensor(elbo.loss(*pair, x, None)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", cases.MODELS)
def test_a_plate_around_a_model_is_its_plate(name: str) -> None:
    case = prepared_model(cases.MODELS[name])
    x, context = batch_for(case, 3)
    expected = poutine.trace(case.part.guide).get_trace(x, context)
    torch.manual_seed(0)
    alone = poutine.trace(poutine.replay(case.part.model, trace=expected)).get_trace(x, context)
    with pyro.plate("mine", 3, dim=-1):
        guided = poutine.trace(poutine.replay(case.part.guide, trace=expected))
        guided = guided.get_trace(x, context)
        model = poutine.trace(poutine.replay(case.part.model, trace=guided)).get_trace(x, context)
    assert {frame.name for frame in model.nodes["x"]["cond_indep_stack"]} == {"mine"}
    torch.testing.assert_close(model.log_prob_sum(), alone.log_prob_sum())


def test_plates_at_other_dimensions_and_sizes() -> None:
    vae, x = linear_vae(), torch.randn(2, 5, 3)
    with pyro.plate("rows", 2, dim=-2):
        site = poutine.trace(vae.model).get_trace(x).nodes["x"]
    assert {frame.name for frame in site["cond_indep_stack"]} == {"rows", "data"}
    with pyro.plate("subset", 100, subsample_size=5, dim=-1):
        trace = poutine.trace(vae.model).get_trace(x[0])
    site = trace.nodes["x"]
    assert [frame.name for frame in site["cond_indep_stack"]] == ["subset"]
    assert site["scale"] == 20
    with pyro.plate("other", 4, dim=-1), pytest.raises(ValueError, match="collide"):
        vae.model(x)


@pytest.mark.parametrize("name", cases.MODELS)
def test_methods_do_not_see_a_plate_around_them(name: str) -> None:
    case = prepared_model(cases.MODELS[name])
    x, context = batch_for(case, 3)
    one = None if context is None else context[0]
    with pyro.plate("mine", 7, dim=-1):
        assert case.part.sample(2, one).shape == (2, *case.part.event_shape)
        assert case.part.log_weights(x, context).shape == (1, 3)


def test_training_in_a_plate_of_the_users_own() -> None:
    vae, x = linear_vae().float(), torch.randn(5, 3).float()

    def within(program: Any) -> Any:
        def run(x: Tensor) -> None:
            with pyro.plate("data", 5):
                program(x)

        return run

    svi = SVI(within(vae.model), within(vae.guide), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(3)]
    assert bool(torch.tensor(losses).isfinite().all())


@pytest.mark.parametrize("insomnia", INSOMNIA)
@pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])
def test_model_and_guide_are_taken_as_they_are(insomnia: float, vectorize: bool) -> None:
    """Pyro gives both the keyword ``observations``."""
    vae = models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(4,)))
    estimator = ReweightedWakeSleep(
        num_particles=2, vectorize_particles=vectorize, insomnia=insomnia, num_sleep_particles=3
    )
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), estimator)
    assert all(torch.tensor(svi.step(torch.randn(5, 3))).isfinite())
