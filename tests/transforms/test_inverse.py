"""The inverse of a flow, as a module: what holds it trains, saves and moves the flow."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_transform import ComposeTransformModule
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormalizingFlow
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_genmodels import models, transforms
from pyro_genmodels._configuration import build, configuration
from tests.transforms.flows import FLOWS, Count, flow_distribution, make, randomized

MAKERS: dict[str, Callable[[int], transforms.FlowTransform]] = {
    "glow": lambda size: transforms.glow(size, num_steps=2, width=8, initialized=True),
    "masked-autoregressive": lambda size: transforms.masked_autoregressive(size, hidden=(8,)),
    "nice": lambda size: transforms.nice(size, width=8),
    "real-nvp": lambda size: transforms.real_nvp(size, width=8, num_couplings=2),
    "chain": lambda size: transforms.Chain(
        [transforms.masked_autoregressive(size, hidden=(8,)).inv, transforms.Reverse(1)]
    ),
}
every_maker = pytest.mark.parametrize("name", MAKERS)


def moves_in(parameters: list[nn.Parameter], work: Callable[[], object]) -> bool:
    before = [p.detach().clone() for p in parameters]
    work()
    return all(not torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


@pytest.mark.parametrize("name", FLOWS)
def test_the_inverse_has_the_parameters_of_its_flow(name: str) -> None:
    flow, x = make(name)
    keys = list(flow.state_dict())
    modules = list(flow.modules())
    inverse = flow.inv
    assert isinstance(inverse, transforms.FlowTransform)
    assert inverse.inv is flow
    assert flow.inv is inverse
    assert list(map(id, inverse.parameters())) == list(map(id, flow.parameters()))
    assert list(inverse.state_dict()) == [f"flow.{key}" for key in keys]
    assert (list(flow.state_dict()), list(flow.modules())) == (keys, modules)
    assert inverse.train().inv.training
    assert not inverse.eval().inv.training
    y = flow(x).detach().clone()
    assert inverse(y).dtype == torch.float64
    assert inverse.to(torch.float32)(y.float()).dtype == torch.float32


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in ("nice", "glow") else []) for n in MAKERS],
)
def test_a_guide_by_the_inverse_trains(name: str) -> None:
    def model() -> None:
        with pyro.plate("two", 2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor([1.0, -1.0]))

    pyro.set_rng_seed(0)
    guide = AutoNormalizingFlow(model, lambda size: MAKERS[name](size).inv)
    guide()
    assert list(guide.parameters()) == list(guide.transform.parameters()) != []
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step() for _ in range(300)]
    evidence = dist.Normal(0.0, 1.25**0.5).log_prob(torch.tensor([1.0, -1.0])).sum()
    assert sum(losses[-30:]) / 30 < -evidence + 0.4 < sum(losses[:10]) / 10


class Holder(PyroModule):
    """A model of one's own that holds an inverse."""

    def __init__(self, inverse: nn.Module) -> None:
        super().__init__()
        self.inverse = inverse

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", flow_distribution(self.inverse, (3,)), obs=x)


@every_maker
def test_what_holds_the_inverse_trains_its_parameters(name: str) -> None:
    x = torch.randn(64, 3) * 2 + 1
    flow = randomized(MAKERS[name](3))
    held = Holder(flow.inv)
    pyro.clear_param_store()
    svi = SVI(held, lambda x: None, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert moves_in(list(flow.parameters()), lambda: svi.step(x))
    for part in (
        ComposeTransformModule([flow.inv]),
        transforms.Chain([flow.inv]),
        nn.Sequential(flow.inv),
        models.FlowModel((3,), flow.inv),
    ):
        assert list(map(id, part.parameters())) == list(map(id, flow.parameters()))
    composed = flow_distribution(ComposeTransformModule([flow.inv, flow.inv]), (3,))
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.01)

    def step() -> None:
        (-composed.log_prob(x).mean()).backward()
        optimizer.step()

    assert moves_in(list(flow.parameters()), step)


@every_maker
def test_the_inverse_as_a_part_of_a_chain(name: str) -> None:
    flow = randomized(MAKERS[name](3)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    identity = transforms.Chain([flow, flow.inv])
    torch.testing.assert_close(identity(x), x)
    torch.testing.assert_close(identity.log_abs_det_jacobian(x, x), torch.zeros_like(x[:, 0]))


def test_an_image_flow_inside_others() -> None:
    flow = randomized(transforms.RealNVP((2, 4, 4), width=4, num_scales=1)).double()
    part = transforms.FactorOut(flow.inv)
    x = torch.randn(3, 4, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(part.inv(part(x).clone()), x)
    assert len(list(part.parameters())) == len(list(flow.parameters()))


def test_conditional_inverses() -> None:
    twin = randomized(transforms.ConditionalRealNVP(3, width=8, num_couplings=2, num_classes=4))
    context, x = torch.arange(4), torch.randn(4, 3)
    expected = twin.condition(context)(x).detach()
    by_flow = transforms.ConditionalFlow(twin.flow.inv)
    torch.testing.assert_close(by_flow.condition(context).inv(x), expected)
    assert list(map(id, by_flow.parameters())) == list(map(id, twin.parameters()))
    conditioned = twin.condition(context)
    assert conditioned.inv.inv is conditioned
    torch.testing.assert_close(twin.inv.condition(context).inv(x), expected)
    model = models.FlowModel((3,), by_flow, num_classes=4)
    assert len(list(model.parameters())) == len(list(twin.parameters()))


def copies(part: Any) -> list[Any]:
    buffer = io.BytesIO()
    torch.save(part, buffer)
    buffer.seek(0)
    pickled = pickle.loads(pickle.dumps(part))
    return [copy.deepcopy(part), pickled, torch.load(buffer, weights_only=False)]


@pytest.mark.parametrize("name", FLOWS)
def test_copies_of_the_inverse_are_whole(name: str) -> None:
    flow, x = make(name)
    y = flow.inv(flow(x).detach().clone())
    expected = flow(x).detach().clone()
    for inverse in copies(flow.inv):
        assert inverse.inv.inv is inverse
        torch.testing.assert_close(inverse(expected.clone()), y)
        assert all(a is not b for a, b in zip(inverse.parameters(), flow.parameters(), strict=True))
    for other in copies(flow):
        assert other.inv.inv is other
        torch.testing.assert_close(other.inv(expected.clone()), y)


@every_maker
def test_an_inverse_is_rebuilt_and_loaded(name: str) -> None:
    inverse = randomized(MAKERS[name](3)).inv
    other = build(configuration(inverse)).eval()
    other.load_state_dict(inverse.state_dict())
    y = torch.randn(5, 3)
    torch.testing.assert_close(other(y), inverse(y))
    assert inverse.with_cache(1)._cache_size == 1
    assert inverse.with_cache(1).with_cache(0)(y).equal(inverse(y.clone()))


def test_a_draw_by_the_inverse_is_scored_without_another_evaluation() -> None:
    flow = randomized(transforms.RealNVP(3, width=8, num_couplings=2))
    law, count = flow_distribution(flow.inv, (3,)), Count(flow)
    draw = law.rsample((5,))
    count.passes()
    score = law.log_prob(draw)
    assert count.passes() == 0
    torch.testing.assert_close(score, law.log_prob(draw.clone()))
    expected = law.log_prob(draw.detach().clone())
    with torch.no_grad():
        draw.mul_(0.5)
    assert not torch.allclose(law.log_prob(draw), expected)
    flow.inv(draw)
    flow.clear_cache()
    count.passes()
    law.log_prob(draw)
    assert count.passes() > 0


def test_nothing_holds_a_flow_after_its_use() -> None:
    flow = randomized(transforms.RealNVP(3, width=4, num_couplings=1))
    flow.inv(torch.randn(2, 3))
    parameter = next(flow.parameters())
    del flow
    gc.collect()
    assert not [r for r in gc.get_referrers(parameter) if isinstance(r, dict)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: transforms.Chain([torch.distributions.ExpTransform()]),
            "`transforms` must be of this package's transforms .* got ExpTransform",
        ),
        (
            lambda: transforms.Chain([torch.distributions.ExpTransform().inv]),
            "`transforms` must be of this package's transforms .* got _InverseTransform",
        ),
        (
            lambda: transforms.Chain([dist.transforms.planar(3).inv]),
            "`transforms` must be of this package's",
        ),
        (
            lambda: transforms.ConditionalFlow(torch.distributions.ExpTransform()),
            "`flow` must be .* got ExpTransform",
        ),
        (
            lambda: transforms.FactorOut(torch.distributions.ExpTransform()),
            "`transform` must be .* got ExpTransform",
        ),
    ],
)
def test_parts_that_are_no_flows(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
