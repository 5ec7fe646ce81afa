"""The estimator that leaves out needless work is Pyro's own in value and gradient."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceMeanField_ELBO

from pyro_genmodels.models import BetaVAE, KLObjective, VAENetwork
from pyro_genmodels.models.base.mean_field_elbo import MeanFieldELBO
from tests.models.toys import Ladder

MODELS = {
    "vae": lambda: BetaVAE(
        (3,), objective=KLObjective(beta=3.0), network=VAENetwork(hidden=(4,)), latent_dim=2
    ),
    "warm-up": lambda: BetaVAE(
        (3,),
        objective=KLObjective(beta=3.0, warmup_steps=9),
        network=VAENetwork(hidden=(4,)),
        latent_dim=2,
    ),
    "ladder": lambda: Ladder(),
    "auxiliary": lambda: Ladder(auxiliary=True),
}


def model_without_kl(x: torch.Tensor) -> None:
    """A Laplace prior under a Gaussian posterior, partly masked, in a subsampled plate."""
    with pyro.plate("data", 10, subsample=torch.arange(len(x))):
        with pyro.poutine.mask(mask=torch.arange(len(x)) > 0):
            z = pyro.sample("z", dist.Laplace(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


def guide_without_kl(x: torch.Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.3))
    with pyro.plate("data", 10, subsample=torch.arange(len(x))):
        pyro.factor("auxiliary", 0.1 * loc * torch.ones(len(x)), has_rsample=True)
        with pyro.poutine.mask(mask=torch.arange(len(x)) > 0):
            pyro.sample("z", dist.Normal(loc, 0.7))


def results(make, model, guide, parameters, seed: int, **kwargs):
    """Loss and gradients by each of the estimator's entrances, under the same draws."""
    out, x = [], torch.linspace(-1, 1, 15).reshape(5, 3)
    for entrance in ("differentiable_loss", "loss_and_grads", "loss"):
        elbo = make(max_plate_nesting=1, **kwargs)
        torch.manual_seed(seed)
        value = getattr(elbo, entrance)(model, guide, x)
        if entrance == "differentiable_loss":
            value.backward()
        gradients = [p.grad for p in parameters() if p.grad is not None]
        out += [torch.as_tensor(value).detach(), *(g.clone() for g in gradients)]
        for p in parameters():
            p.grad = None
    return out


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("name", [*MODELS, "no KL"])
def test_equals_pyros_own(name: str, vectorize: bool, particles: int) -> None:
    if name == "no KL":
        model, guide = model_without_kl, guide_without_kl
        pyro.param("loc", torch.tensor(0.3))

        def parameters():
            return [pyro.param("loc")]
    else:
        instance = MODELS[name]().eval()
        model, guide = instance.model, instance.guide

        def parameters():
            return list(instance.parameters())

    kwargs = {"num_particles": particles, "vectorize_particles": vectorize}
    with pyro.validation_enabled(False):
        found = results(MeanFieldELBO, model, guide, parameters, 1, **kwargs)
        expected = results(TraceMeanField_ELBO, model, guide, parameters, 1, **kwargs)
    assert len(found) == len(expected) > 3
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_validation_runs_pyros_own_checks() -> None:
    def guide(x: torch.Tensor) -> None:
        pyro.sample("z", dist.Categorical(torch.ones(3)))

    def model(x: torch.Tensor) -> None:
        pyro.sample("z", dist.Categorical(torch.ones(3)))

    with pyro.validation_enabled(True), pytest.raises(NotImplementedError, match="reparam"):
        MeanFieldELBO().differentiable_loss(model, guide, torch.zeros(1))


def test_plain_svi_takes_it() -> None:
    vae = MODELS["vae"]()
    before = [p.detach().clone() for p in vae.parameters()]
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), MeanFieldELBO())
    with pyro.validation_enabled(False):
        svi.step(torch.randn(5, 3))
    assert not any(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))
