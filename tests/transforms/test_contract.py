"""Transforms as citizens of Pyro: shapes, contexts, precision, compilation, errors."""

import copy
import subprocess
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import iterated
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormalizingFlow

from pyro_genmodels import nets, transforms
from pyro_genmodels._configuration import build, configuration
from tests.transforms.flows import CONTEXTS, FLOWS, flow_distribution, make, randomized


@pytest.mark.parametrize("kind", CONTEXTS)
@pytest.mark.parametrize("shape", [(3,), (1, 4, 4)])
@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 5)])
def test_context_batch_becomes_the_batch_of_the_distribution(kind, shape, batch):
    options, make_context = CONTEXTS[kind]
    twin = randomized(transforms.ConditionalRealNVP(shape, width=4, **options))
    distribution = flow_distribution(twin.condition(make_context(batch)), shape)
    assert distribution.batch_shape == batch
    assert distribution.event_shape == shape
    assert distribution.sample().shape == batch + shape
    y = distribution.rsample((7,))
    assert y.shape == (7, *batch, *shape)
    assert distribution.log_prob(y).shape == (7, *batch)
    assert distribution.log_prob(torch.zeros(shape)).shape == batch
    wider = distribution.expand((6, *batch))
    assert wider.sample().shape == (6, *batch, *shape)


def test_each_context_of_a_batch_gets_its_own_map():
    twin = randomized(transforms.ConditionalRealNVP(3, width=8, num_classes=4)).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    together = twin.condition(torch.arange(4))(x)
    for label in range(4):
        alone = twin.condition(torch.tensor(label))(x[label])
        torch.testing.assert_close(together[label], alone)


def test_context_and_event_batches_that_do_not_broadcast():
    flow = transforms.ConditionalRealNVP(3, num_classes=4).condition(torch.zeros(5).long())
    with pytest.raises(ValueError, match="batch shapes must broadcast"):
        flow(torch.zeros(4, 3))


def test_conditional_transformed_distribution_and_inverse():
    twin = randomized(transforms.ConditionalRealNVP(3, width=8, context_shape=(2,)))
    noise = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    context, x = torch.randn(5, 2), torch.randn(5, 3)
    for part in (twin, twin.inv):
        conditional = dist.conditional.ConditionalTransformedDistribution(noise, [part])
        assert conditional.condition(context).log_prob(x).shape == (5,)
    torch.testing.assert_close(twin.inv.condition(context)(twin.condition(context)(x).clone()), x)


def test_inverse_protocol():
    flow, x = make("real_nvp 5")
    assert flow.inv.inv is flow
    assert flow.inv is flow.inv
    y = flow(x)
    assert flow.inv(y) is x  # once
    assert flow.inv(y) is not x
    x = torch.randn_like(x)
    minus = flow.inv.log_abs_det_jacobian(flow(x), x)
    torch.testing.assert_close(minus, -flow.log_abs_det_jacobian(x, flow(x)))
    density = dist.TransformedDistribution(dist.Normal(torch.zeros(5), 1).to_event(1), [flow.inv])
    assert density.log_prob(y).shape == (2, 3)


@pytest.mark.parametrize("name", FLOWS)
def test_configuration_rebuilds_a_flow(name):
    flow, x = make(name)
    if name == "chain" or "real_nvp" in name or "squeeze" in name or name == "logit":
        other = build(configuration(flow)).eval().double()
        other.load_state_dict(flow.state_dict())
        torch.testing.assert_close(other(x), flow(x))


def test_a_fresh_process_finds_the_same_keys():
    first, second = (transforms.RealNVP((1, 4, 4), width=4).state_dict() for _ in range(2))
    assert list(first) == list(second)
    conditional = transforms.ConditionalRealNVP((1, 4, 4), width=4, num_classes=3)
    assert all(key.startswith("flow.") for key in conditional.state_dict())


@pytest.mark.parametrize("name", FLOWS)
def test_log_dets_stay_single_precision_under_autocast(name):
    flow, x = make(name, torch.float32)
    exact = flow.forward_and_log_det(x)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = flow(x)
        log_det = flow.log_abs_det_jacobian(x, y)
        half = flow.log_abs_det_jacobian(x.bfloat16(), y)
        back = flow.inv(y.clone())
    assert y.dtype == log_det.dtype == half.dtype == back.dtype == torch.float32
    torch.testing.assert_close(back, x, rtol=0.1, atol=0.1)
    assert (log_det - exact).abs().max() < 0.05 * (1 + exact.abs().max())


def test_a_value_made_under_autocast_is_not_served_outside():
    flow, x = make("real_nvp 5", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        y = flow(x)
    with torch.no_grad():
        density = flow_distribution(flow, (5,))
        assert torch.equal(density.log_prob(y), density.log_prob(y.clone()))


@pytest.mark.skipif(torch.__version__.startswith("2.6"), reason="its compiler breaks at torch.Size")
def test_log_prob_compiles_to_one_graph_with_one_evaluation():
    # In a process of its own: the run-time shape checks of the test session do not compile.
    script = Path(__file__).with_name("compile_flows.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_module_hooks_run():
    flow, x = make("real_nvp 5")
    calls = []
    flow.register_forward_hook(lambda *_: calls.append(1))
    flow(x)
    assert calls == [1]


def test_factories_follow_pyros_convention():
    flow = iterated(2, transforms.real_nvp, 3, width=8)
    assert all(isinstance(part, transforms.RealNVP) for part in flow.parts)
    noise = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    assert dist.TransformedDistribution(noise, list(flow.parts)).rsample((2,)).shape == (2, 3)
    twin = transforms.conditional_real_nvp(3, 2, width=8)
    assert twin.condition(torch.zeros(4, 2)).forward_shape((3,)) == (4, 3)
    assert transforms.real_nvp((1, 4, 4)).event_shape == (1, 4, 4)


def test_auto_normalizing_flow_learns_a_posterior():
    def model():
        with pyro.plate("two", 2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor([1.0, -1.0]))

    def small(size):
        return transforms.real_nvp(size, width=16, num_couplings=2)

    guide = AutoNormalizingFlow(model, small)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step() for _ in range(100)]
    evidence = dist.Normal(0.0, 1.25**0.5).log_prob(torch.tensor([1.0, -1.0])).sum()
    assert sum(losses[-30:]) / 30 < -evidence + 0.3 < sum(losses[:10]) / 10


def test_svi_trains_a_flow_and_its_deepcopy():
    flow = transforms.RealNVP(2, width=16, num_couplings=2)
    for part in (flow, copy.deepcopy(flow)):
        pyro.clear_param_store()
        before = [p.detach().clone() for p in part.parameters()]

        def model(x, part=part):
            pyro.module("flow", part)
            with pyro.plate("data", len(x)):
                pyro.sample("x", flow_distribution(part, (2,)), obs=x)

        svi = SVI(model, lambda x: None, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        losses = [svi.step(torch.randn(64, 2) * 3) for _ in range(20)]
        assert losses[-1] < losses[0]
        assert not all(map(torch.equal, before, part.parameters()))


def test_plates_and_masks():
    flow, _ = make("real_nvp 1x4x4", torch.float32)

    def model():
        with pyro.plate("outer", 2, dim=-2), pyro.plate("data", 5, dim=-1):
            noise = dist.Normal(torch.zeros(1, 4, 4), 1.0).to_event(3)
            return pyro.sample("x", dist.TransformedDistribution(noise, [flow]).mask(True))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["value"].shape == (2, 5, 1, 4, 4)
    assert trace.nodes["x"]["log_prob"].shape == (2, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transforms.RealNVP(0), "`event_shape` must be positive sizes"),
        (lambda: transforms.RealNVP((3, 4)), "`event_shape` must be positive sizes"),
        (lambda: transforms.RealNVP(3, width=0), "`width` must be positive; got 0"),
        (lambda: transforms.RealNVP(3, num_scales=2), "`num_scales` must be 1 for vectors; got 2"),
        (
            lambda: transforms.RealNVP((1, 6, 8), num_scales=3),
            "`height` must be divisible by 4 for 3 scales; got 6",
        ),
        (
            lambda: transforms.RealNVP(3, num_classes=0, context_shape=(2,)),
            "`num_classes` must be positive",
        ),
        (lambda: transforms.RealNVP(3, activation="sine"), "`activation` must be one of"),
        (lambda: transforms.RealNVP(3, logit_margin=0.5), "`margin` must be in"),
        (lambda: transforms.ConditionalRealNVP(3), "must be given for a conditional flow"),
        (lambda: transforms.Chain([]), "`transforms` must have at least one"),
        (
            lambda: transforms.Chain([transforms.RealNVP(3), transforms.Squeeze()]),
            "`transforms` must have one event rank",
        ),
        (lambda: transforms.RealNVP(3)(torch.zeros(4)), "`x` must have trailing shape \\(3,\\)"),
        (lambda: transforms.RealNVP(3).inv(torch.zeros(4)), "`y` must have trailing shape"),
        (
            lambda: transforms.RealNVP(3).inv(torch.zeros(3).long()),
            "`y` must be of a floating dtype",
        ),
        (lambda: transforms.Squeeze()(torch.zeros(1, 3, 4)), "`height` must be even; got 3"),
        (lambda: transforms.Squeeze().inv(torch.zeros(1, 3, 4)), "`channels` must be divisible"),
        (lambda: transforms.Logit(3)(torch.zeros(4, 4)), "`x` must have at least 3 dimensions"),
        (
            lambda: flow_distribution(transforms.RealNVP(3), (4,)),
            "`shape` must end in \\(3,\\); got \\(4,\\)",
        ),
        (
            lambda: transforms.RealNVP(3, num_classes=2)(torch.zeros(3)),
            "`context` must be labels from 0 to 1",
        ),
        (
            lambda: transforms.ConditionalRealNVP(3, num_classes=2).condition(torch.tensor(2)),
            "`context` must be labels from 0 to 1 of an integer dtype; got values from 2 to 2",
        ),
        (
            lambda: transforms.ConditionalRealNVP(3, context_shape=(2,)).condition(torch.zeros(3)),
            "`context` must have trailing shape \\(2,\\)",
        ),
        (lambda: nets.ConvNet(1, 1, kernel_size=2), "`kernel_size` must be odd"),
    ],
)
def test_errors_name_argument_rule_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
