"""Vectors of length one: every flow is a map with learned constants that trains."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import iterated
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormalizingFlow
from torch import Tensor

from pyro_genmodels import models, nets, testing, transforms

FACTORIES = {
    name: getattr(transforms, name)
    for name in transforms.__all__
    if not inspect.isclass(getattr(transforms, name))
}
CONDITIONAL = {name: make for name, make in FACTORIES.items() if name.startswith("conditional_")}
PLAIN = {name: make for name, make in FACTORIES.items() if name not in CONDITIONAL}
WITHOUT_PARAMETERS = {"batch_norm", "permute"}
LEARNED = {name: make for name, make in PLAIN.items() if name not in WITHOUT_PARAMETERS}
# From noise, a guide's way, before any data.
OPTIONS: dict[str, dict[str, Any]] = {
    "act_norm": {"initialized": True},
    "glow": {"initialized": True, "num_steps": 2, "width": 4},
    "neural_spline_flow": {"num_couplings": 2, "width": 4},
    "nice": {"num_couplings": 2, "width": 4},
    "real_nvp": {"num_couplings": 2, "width": 4},
}
# Of affine maps; the others change a shift or a scale only, or within a bound.
GAUSSIAN = {"act_norm", "affine_coupling", "glow", "masked_autoregressive", "nice", "real_nvp"}


def plain(name: str) -> Any:
    return PLAIN[name](1, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_factory_makes_a_bijection(name: str, dtype: torch.dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow = plain(name)
    testing.randomize_parameters(flow).to(dtype).eval()
    x = torch.linspace(-1, 1, 5, dtype=dtype)[:, None]
    testing.check_inverse(flow, x)
    testing.check_log_det(flow, x)
    assert flow(x).dtype == dtype


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_conditional_factory_depends_on_its_context(name: str) -> None:
    flow = testing.randomize_parameters(CONDITIONAL[name](1, 2).double()).eval()
    transform = flow.condition(torch.tensor([[0.5, -1.0], [2.0, 3.0]], dtype=torch.float64))
    x = torch.full((2, 1), 0.3, dtype=torch.float64)
    testing.check_inverse(transform, x)
    testing.check_log_det(transform, x)
    y = transform(x)
    assert y[0].item() != pytest.approx(y[1].item(), rel=1e-6)


@pytest.mark.parametrize("name", LEARNED)
def test_it_trains_as_the_guide_of_one_latent_variable(name: str) -> None:
    """On a Gaussian posterior, N(4 / 5, 1 / 5): affine maps reach it, the others come nearer."""

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor(1.0))

    evidence = dist.Normal(0.0, math.sqrt(1.25)).log_prob(torch.tensor(1.0)).item()
    guide = AutoNormalizingFlow(model, partial(PLAIN[name], **OPTIONS.get(name, {})))
    elbo = Trace_ELBO(num_particles=1000, vectorize_particles=True)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 5e-2}), Trace_ELBO(16, vectorize_particles=True))
    svi.step()
    first = elbo.loss(model, guide) + evidence
    for _ in range(80):
        svi.step()
    last = elbo.loss(model, guide) + evidence
    assert last < 0.9 * first
    if name in GAUSSIAN:
        assert last == pytest.approx(0, abs=0.05)


def test_several_layers_are_a_guide() -> None:
    def model() -> Tensor:
        return pyro.sample("z", dist.Normal(0.0, 1.0))

    guide = AutoNormalizingFlow(model, partial(iterated, 2, transforms.spline_coupling))
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step()
    assert guide()["z"].shape == ()


BUILDERS: dict[str, Callable[..., models.FlowModel]] = {
    "glow": partial(models.glow, num_steps=2, width=8),
    "maf": partial(models.maf, num_layers=2, hidden=(4,)),
    "nice": partial(models.nice, num_couplings=2, width=8),
    "realnvp": partial(models.realnvp, num_couplings=2, width=8),
    "spline_flow": partial(models.spline_flow, num_couplings=2, width=8, linear=True),
}


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"context_shape": (2,)}], ids=str)
def test_a_model_trains_and_is_kept(name: str, options: dict[str, Any]) -> None:
    model = BUILDERS[name]((1,), **options)
    x = 0.5 + 0.5 * torch.randn(64, 1)
    context = torch.arange(64) % 3 if "num_classes" in options else None
    context = torch.randn(64, 2) if "context_shape" in options else context
    loss = models.ELBOLoss(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss(x, context).backward()
        optimizer.step()
    best = dist.Normal(x.mean(), x.std()).entropy()  # of what does not depend on the context
    assert loss(x, context) < best + 0.1
    testing.check_copies(model.eval(), x, context)


@pytest.mark.parametrize("name", ["glow", "nice", "realnvp", "spline_flow"])
def test_a_model_of_levels(name: str) -> None:
    options = {"linear": False} if name == "spline_flow" else {}
    model = BUILDERS[name]((1,), num_levels=4, **options)
    x = torch.tensor([[0], [1], [3], [3]])
    models.ELBOLoss(model)(x).backward()
    assert model.eval().sample(5).shape == (5, 1)


def test_a_posterior_of_one_latent_variable() -> None:
    flow = transforms.RealNVP(1, num_couplings=2, width=4)
    vae = models.VAE(
        (3,),
        num_levels=2,
        latent_dim=1,
        network=models.VAENetwork(hidden=(4,)),
        posterior=models.GaussianPosterior(transforms=[flow]),
    )
    testing.check_trains(lambda: copy.deepcopy(vae), torch.randint(2, (5, 3)))


MASKS = [
    m(inverted=i) for m in (transforms.HalfMask, transforms.AlternatingMask) for i in (False, True)
]


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_the_element_changes_under_any_mask(mask: Any) -> None:
    x = torch.randn(5, 1)
    seen, changed = mask.divide(x)
    assert mask.sizes((1,)) == (0, 1)
    assert not mask((1,)).any()
    assert (seen.shape, changed.shape) == ((5, 0), (5, 1))
    assert torch.equal(mask.merge(seen, changed), x)


def test_a_network_without_inputs() -> None:
    net = nets.NoInputMLP(3, hidden=(8,))
    assert [tuple(p.shape) for p in net.parameters()] == [(3,)]
    testing.randomize_parameters(net)
    x = torch.zeros(2, 5, 0)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))
    assert net(x).shape == (2, 5, 3)
    with pytest.raises(ValueError, match="`in_features` must be positive; got -1"):
        nets.MLP(-1, 3)
