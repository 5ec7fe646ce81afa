"""Weights with a prior in a model's networks: global, and drawn once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, JitTrace_ELBO, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.nn import PyroModule, PyroSample
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn

from pyro_genmodels import models, nets, transforms
from pyro_genmodels.models import ELBOLoss, GenerativeModel
from tests.extras import CORE_ONLY

pytestmark = pytest.mark.usefixtures("double")


def with_prior(module: nn.Module) -> nn.Module:
    """Give every weight of a network a standard normal prior of half its size."""
    to_pyro_module_(module)
    for part in list(module.modules()):
        for name, value in list(part.named_parameters(recurse=False)):
            prior = dist.Normal(value.detach(), 0.5).to_event(value.dim())
            setattr(part, name, PyroSample(prior))
    return module


class OwnDecoder(PyroModule):
    """Weights as Pyro's tutorials give them a prior: an attribute and a decorated method."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 6)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([6, 2]).to_event(2))

    @PyroSample
    def shift(self) -> Any:
        return dist.Normal(torch.zeros(6), 1.0).to_event(1)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z) + self.shift + self.shift


def vae() -> GenerativeModel:
    return models.VAE((3,), latent_dim=2, network=models.VAENetwork(decoder=OwnDecoder()))


def flow() -> GenerativeModel:
    coupling = transforms.affine_coupling(3, hidden=(4,))
    with_prior(coupling.net)
    return models.FlowModel((3,), coupling)


def whole_flow() -> GenerativeModel:
    realnvp = transforms.RealNVP(3, num_couplings=2, width=4)
    with_prior(realnvp)
    return models.FlowModel((3,), realnvp)


def autoregressive() -> GenerativeModel:
    net = with_prior(nets.MADENet((3,), 2, hidden=(4,)))
    return models.AutoregressiveModel(net)


MODELS = {"a decoder": vae, "a coupling": flow, "a whole flow": whole_flow}
MODELS |= {"an autoregressive network": autoregressive}


def data(model: GenerativeModel, *batch: int) -> Tensor:
    x = torch.randn(*batch, 3)
    return x if model.num_levels is None else (x > 0).to(x.dtype)


def weight_sites(trace: Any) -> dict[str, Any]:
    nodes = {name: trace.nodes[name] for name in trace.stochastic_nodes}
    return {name: site for name, site in nodes.items() if site["fn"].event_dim and name[0] != "z"}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_they_are_drawn_once_outside_the_plates(make: Callable[[], GenerativeModel]) -> None:
    model = make()
    trace = poutine.trace(model.model).get_trace(data(model, 4, 5))
    sites = weight_sites(trace)
    assert sites
    assert all(site["cond_indep_stack"] == () for site in sites.values())
    assert all(site["value"].shape == site["fn"].event_shape for site in sites.values())


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_density_is_that_of_the_weights_drawn(make: Callable[[], GenerativeModel]) -> None:
    """Of a program that has ended, and of one that draws its data."""
    model = make()
    for x in (data(model, 4), None):
        trace = poutine.trace(model.model).get_trace(x)
        trace.compute_log_prob()
        drawn = {n: s["value"] for n, s in weight_sites(trace).items()}
        first = trace.nodes["x"]["unscaled_log_prob"]
        x_again = trace.nodes["x"]["value"].clone()
        latents = {n: trace.nodes[n]["value"] for n in trace.stochastic_nodes}
        again = poutine.trace(poutine.condition(model.model, data=latents | drawn))
        again = again.get_trace(x_again)
        again.compute_log_prob()
        torch.testing.assert_close(again.nodes["x"]["unscaled_log_prob"], first)
        other = poutine.trace(poutine.condition(model.model, data=drop(latents, drawn)))
        other = other.get_trace(x_again)
        other.compute_log_prob()
        assert not torch.allclose(other.nodes["x"]["unscaled_log_prob"], first)


def drop(values: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def test_a_flows_density_is_that_of_plain_weights() -> None:
    model = flow()
    x = data(model, 4)
    trace = poutine.trace(model.model).get_trace(x)
    trace.compute_log_prob()
    torch.manual_seed(0)
    plain = transforms.affine_coupling(3, hidden=(4,))
    values = [site["value"] for site in weight_sites(trace).values()]
    with torch.no_grad():
        for parameter, value in zip(plain.net.parameters(), values, strict=True):
            parameter.copy_(value)
    expected = models.FlowModel((3,), plain).density().log_prob(x)
    torch.testing.assert_close(trace.nodes["x"]["unscaled_log_prob"], expected)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_svi_fits_them_by_a_guide_of_the_users(make: Callable[[], GenerativeModel]) -> None:
    model = make()
    x = data(model, 8)
    names = list(weight_sites(poutine.trace(model.model).get_trace(x)))
    weights = AutoNormal(poutine.block(model.model, expose=names))

    def guide(x: Tensor) -> None:
        weights(x)
        model.guide(x)

    svi = SVI(model.model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO(num_particles=2))
    before = None
    for _ in range(3):
        svi.step(x)
        before = before or [p.clone() for p in weights.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(before, weights.parameters(), strict=True))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_each_sample_and_each_particle_has_its_own(make: Callable[[], GenerativeModel]) -> None:
    model = make()
    draws = Predictive(model.model, num_samples=5)(None)
    assert draws["x"].shape == (5, 3)
    assert model.sample(4).shape == (4, 3)
    assert model.log_weights(data(model, 2), num_particles=3).shape == (3, 2)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_weights_drawn_from_their_prior_weigh_nothing(
    make: Callable[[], GenerativeModel],
) -> None:
    """A log-weight is the density of data and latents, not that of the random weights."""
    model = make()
    if model.has_latents:
        pytest.skip("its log-weight is of a draw that the test would have to repeat")
    x = data(model, 4)
    with poutine.trace() as outer:
        torch.manual_seed(3)
        nats = model.log_weights(x)[0]
    assert not outer.trace.nodes
    torch.manual_seed(3)
    trace = poutine.trace(model.model).get_trace(x)
    trace.compute_log_prob()
    torch.testing.assert_close(nats, trace.nodes["x"]["unscaled_log_prob"])


def test_the_loss_without_a_guide_for_them_refuses_by_name() -> None:
    with pytest.raises(ValueError, match=r"`model` must have no random weights .*linear.weight"):
        ELBOLoss(vae())


def test_a_model_within_a_pyro_module() -> None:
    """A user's program, which names what it holds, and its AutoGuide of the weights."""

    class Program(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.part = vae()

        def forward(self, x: Tensor) -> Tensor:
            return self.part.model(x)

    program, x = Program(), torch.randn(4, 3)
    names = list(weight_sites(poutine.trace(program).get_trace(x)))
    guide = AutoDelta(poutine.block(program, expose=names))
    svi = SVI(program, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    with pytest.warns(UserWarning, match="Found vars in model but not guide"):
        svi.step(x)


def test_a_checkpointed_part_is_refused_by_name() -> None:
    """Its backward pass would evaluate it again, with other weights."""
    glow = transforms.RealNVP(3, num_couplings=2, width=4, checkpoint=True)
    model = models.FlowModel((3,), with_prior(glow))
    with pytest.raises(ValueError, match="`checkpoint` must be False in a model with random"):
        model.model(torch.randn(2, 3))


def test_random_weights_of_a_guide_are_refused_by_name() -> None:
    """They would be drawn in the plates, one for each example."""
    model = models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(4,)))
    with_prior(model.encoder)
    with pytest.raises(ValueError, match=r"`encoder\..* must not be random: the guide uses it"):
        model.guide(torch.randn(4, 3))


def test_a_batch_of_weights_is_refused_by_name() -> None:
    model = vae()
    svi = SVI(
        model.model,
        lambda x: model.guide(x),
        pyro.optim.Adam({"lr": 1e-2}),
        Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1),
    )
    with pytest.raises(ValueError, match=r"`linear.weight` must have no batch dimensions"):
        svi.step(torch.randn(4, 3))


@pytest.mark.skipif(not CORE_ONLY, reason="sizes are tensors in a trace: shape checks stop there")
def test_jit_takes_a_converted_model() -> None:
    model = models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(4,)))
    to_pyro_module_(model)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), JitTrace_ELBO())
    with pyro.validation_enabled(False):
        assert svi.step(torch.randn(4, 3)) > 0
