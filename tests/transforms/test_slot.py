"""The slot: one evaluation for inverse and log-det, served once, never stale."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch

from pyro_genmodels import transforms
from pyro_genmodels.transforms.interop import FlowDensity
from tests.transforms.flows import CONTEXTS, FLOWS, Count, flow_distribution, make, randomized

WITHOUT_NETS = ("squeeze", "logit", "act_norm", "linear")
WITH_NETS = [name for name in FLOWS if not name.startswith(WITHOUT_NETS)]


def small_flow(**options):
    return randomized(transforms.RealNVP(3, width=8, num_couplings=2, **options))


@pytest.fixture(params=["plain", "conditional"])
def pair(request):
    """A module and a transform that shares its parameters."""
    if request.param == "plain":
        flow = small_flow()
        return flow, flow
    twin = randomized(transforms.ConditionalRealNVP(3, width=8, num_couplings=2, num_classes=4))
    return twin, twin.condition(torch.arange(4))


@pytest.mark.parametrize("cache_size", [0, 1])
@pytest.mark.parametrize("name", WITH_NETS)
def test_one_evaluation_a_density(name, cache_size):
    flow, x = make(name, torch.float32)
    flow = flow.with_cache(cache_size)
    y = flow(x).detach()
    count = Count(flow)
    flow_distribution(flow, FLOWS[name][0]).log_prob(y)
    assert count.passes() == 1


@pytest.mark.parametrize("grad", [True, False])
def test_one_evaluation_for_a_sample_and_its_density(pair, grad):
    module, flow = pair
    distribution, count = flow_distribution(flow, (3,)), Count(module)
    with torch.set_grad_enabled(grad):
        y = distribution.rsample((5,))
        assert count.passes() == 1
        log_prob = distribution.log_prob(y)
        assert count.passes() == 0
        torch.testing.assert_close(log_prob, distribution.log_prob(y.clone()))
        assert count.passes() == 1
        distribution.log_prob(y)  # a second scoring is fresh
        assert count.passes() == 1


def test_one_evaluation_in_inference_mode_and_no_stale_sample_there(pair):
    module, flow = pair
    distribution, count = flow_distribution(flow, (3,)), Count(module)
    with torch.inference_mode():
        y = distribution.sample((5,))
        count.passes()
        y += 1
        expected = distribution.log_prob(y.clone())
        assert count.passes() == 1
        assert torch.equal(distribution.log_prob(y), expected)


def test_stacked_flows_share_one_evaluation_each():
    flows = [small_flow(), small_flow()]
    distribution = flow_distribution(flows[0], (3,))
    distribution = torch.distributions.TransformedDistribution(distribution, [flows[1]])
    counts = [Count(f) for f in flows]
    distribution.log_prob(distribution.rsample((2,)))
    assert [c.passes() for c in counts] == [1, 1]


def test_the_density_of_a_sample_has_the_gradient_of_a_fresh_evaluation(pair):
    module, flow = pair
    distribution = flow_distribution(flow, (3,))
    noise = torch.randn(5, 4, 3)
    parameters = list(module.parameters())

    def gradient(again):
        y = flow(noise)
        loss = distribution.log_prob(again(y)).sum()
        return torch.autograd.grad(loss, parameters)

    for served, fresh in zip(gradient(lambda y: y), gradient(torch.clone), strict=True):
        torch.testing.assert_close(served, fresh, rtol=1e-4, atol=1e-4)


def test_a_slot_filled_without_grad_serves_no_gradient(pair):
    _, flow = pair
    y = torch.randn(4, 3)
    with torch.no_grad():
        x = flow.inv(y)
    assert flow.log_abs_det_jacobian(x, y).requires_grad
    with torch.no_grad():
        y = flow(torch.randn(4, 3))
    assert flow_distribution(flow, (3,)).log_prob(y).requires_grad


def test_a_sample_made_a_leaf_afterwards_gets_its_gradient(pair):
    module, flow = pair
    module.requires_grad_(False)
    y = flow(torch.randn(4, 3)).requires_grad_()
    flow_distribution(flow, (3,)).log_prob(y).sum().backward()
    assert y.grad.abs().sum() > 0


def test_parameters_unfrozen_afterwards_get_their_gradient(pair):
    module, flow = pair
    module.requires_grad_(False)
    y = flow(torch.randn(4, 3))
    module.requires_grad_(True)
    assert flow_distribution(flow, (3,)).log_prob(y).requires_grad


def adam(module, **options):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1, **options)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def write_data(module):
    for parameter in module.parameters():
        parameter.data.add_(0.1)


def write_one_element(module):
    next(module.parameters()).data.view(-1)[-1] += 0.5


def swap_data(module):
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.1


def flip_in_place(module):
    for parameter in module.parameters():
        parameter.data.copy_(parameter.data.flip(0).neg())


def from_vector(module):
    vector = torch.nn.utils.parameters_to_vector(module.parameters())
    torch.nn.utils.vector_to_parameters(vector + 0.1, module.parameters())


def load(module):
    module.load_state_dict({k: v + 0.1 for k, v in module.state_dict().items()})


def load_assigned(module):
    module.load_state_dict({k: v + 0.1 for k, v in module.state_dict().items()}, assign=True)


def replace_parameters(module):
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            setattr(owner, name, torch.nn.Parameter(parameter.detach() + 0.1))


CHANGES = {
    "adam": adam,
    "foreach adam": lambda module: adam(module, foreach=True),
    "fused adam": lambda module: adam(module, fused=True),
    "data": write_data,
    "one element": write_one_element,
    "data swap": swap_data,
    "flip": flip_in_place,
    "vector_to_parameters": from_vector,
    "load_state_dict": load,
    "load_state_dict(assign)": load_assigned,
    "new parameters": replace_parameters,
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("cache_size", [0, 1])
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_stale_after_a_change_of_parameters(pair, change, cache_size, grad):
    module, flow = pair
    flow = flow.with_cache(cache_size)

    def changed():
        with torch.no_grad():
            CHANGES[change](module)

    with torch.set_grad_enabled(grad):
        x = torch.randn(4, 3)
        y = flow(x)
        changed()
        served = flow_distribution(flow, (3,)).log_prob(y)
        assert torch.equal(served, flow_distribution(flow, (3,)).log_prob(y.clone()))
        assert not torch.equal(flow(x), y)
        x = flow.inv(y)
        changed()
        served = flow.log_abs_det_jacobian(x, y)
        assert torch.equal(served, flow.log_abs_det_jacobian(x.clone(), y.clone()))
        assert not torch.equal(flow.inv(y), x)


@pytest.mark.parametrize(
    "edit", [lambda y: y.add_(1), lambda y: y.data.add_(1), lambda y: y.data.clamp_(-0.1, 0.1)]
)
def test_an_edited_sample_is_scored_as_it_is(pair, edit):
    _, flow = pair
    distribution = flow_distribution(flow, (3,))
    with torch.no_grad():
        y = distribution.sample((5,))
        edit(y)
        assert torch.equal(distribution.log_prob(y), distribution.log_prob(y.clone()))


def through_numpy(y):
    y.detach().numpy()[-2] += 1


def swap_rows(y):
    y.data[[0, 7]] = y.data[[7, 0]]


LATER_EDITS = {
    "one row through numpy": through_numpy,
    "one value through .data": lambda y: y.data.reshape(-1)[-2].add_(1e-3),
    "two rows change places": swap_rows,
    "all": lambda y: y.data.neg_(),
    "one value becomes NaN": lambda y: y.data.reshape(-1)[11].fill_(float("nan")),
}


def score(distribution, y):
    """The density, by torch's own two calls and by ours; an error is a score too."""
    try:
        return distribution.log_prob(y)
    except ValueError as error:
        return str(error)


def same(found, expected):
    return found == expected if isinstance(found, str) else torch.equal(found, expected)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("rows", [9, 3001])
@pytest.mark.parametrize("edit", LATER_EDITS)
def test_any_edit_of_a_large_draw_is_noticed(edit, rows, inverse):
    flow = small_flow()
    flow = flow.inv if inverse else flow
    normal = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), 1.0), 1)
    for kind in (torch.distributions.TransformedDistribution, FlowDensity):
        distribution = kind(normal, [flow])
        with torch.no_grad():
            y = distribution.sample((rows,))
            LATER_EDITS[edit](y)
            assert same(score(distribution, y), score(distribution, y.clone()))
            x = torch.randn(rows, 3)
            y = flow(x)
            LATER_EDITS[edit](x)
            assert same(score(distribution, y), score(distribution, y.clone()))


def test_an_edit_between_an_inverse_and_its_log_det_is_noticed():
    flow, y = small_flow(), torch.randn(3001, 3)
    for edited in ("x", "y"):
        x = flow.inv(y)
        through_numpy(x if edited == "x" else y)
        found = flow.log_abs_det_jacobian(x, y)
        assert torch.equal(found, flow.log_abs_det_jacobian(x.clone(), y))


class Bent(torch.nn.Module):
    """A network that reads plain attributes: a number and two tensors."""

    def __init__(self):
        super().__init__()
        self.t = 1.0
        self.shift = torch.zeros(4)
        self.table = torch.zeros(3000)

    def forward(self, x):
        changed = x * self.t + self.table[2990] + self.shift[-1]
        return torch.cat([changed, changed], -1)


ATTRIBUTES = {
    "a number": lambda net: setattr(net, "t", 2.0),
    "a number that is an integer now": lambda net: setattr(net, "t", 3),
    "another tensor": lambda net: setattr(net, "shift", torch.ones(4)),
    "a number becomes a tensor": lambda net: setattr(net, "t", torch.tensor(2.0)),
    "a tensor, in place": lambda net: net.shift.add_(1),
    "a tensor, through .data": lambda net: net.shift.data.add_(1),
    "one value of a table, through numpy": lambda net: net.table.numpy().__setitem__(2990, 1.0),
}


@pytest.mark.parametrize("change", ATTRIBUTES)
@pytest.mark.parametrize("whole", ["alone", "in a chain", "conditioned", "inverse"])
def test_changed_attributes_of_modules_are_noticed(change, whole):
    coupling = transforms.AffineCoupling(transforms.AlternatingMask(), Bent())
    flow = {
        "alone": lambda: coupling,
        "in a chain": lambda: transforms.Chain([transforms.Reverse(1), coupling]),
        "conditioned": lambda: (
            transforms.ConditionalFlow(
                transforms.Chain([transforms.ActNorm(4, event_dim=1, num_classes=2), coupling])
            )
            .eval()
            .condition(torch.tensor(1))
        ),
        "inverse": lambda: coupling.inv,
    }[whole]()
    with torch.no_grad():
        distribution = flow_distribution(flow, (4,))
        y = distribution.sample((5,))
        ATTRIBUTES[change](coupling.net)
        assert torch.equal(distribution.log_prob(y), distribution.log_prob(y.clone()))
        x = flow.inv(y)
        coupling.net.t = 0.5
        assert torch.equal(flow.log_abs_det_jacobian(x, y), flow.log_abs_det_jacobian(x.clone(), y))


def test_one_row_of_a_large_context_is_noticed():
    twin = randomized(transforms.ConditionalRealNVP(3, width=8, context_shape=(2,)))
    context = torch.zeros(3001, 2)
    flow = twin.condition(context)
    with torch.no_grad():
        y = flow(torch.randn(3001, 3))
        context.numpy()[17] += 1
        distribution = flow_distribution(flow, (3,))
        assert torch.equal(distribution.log_prob(y), distribution.log_prob(y.clone()))


def test_an_edited_context_is_noticed():
    twin = randomized(transforms.ConditionalRealNVP(3, width=8, context_shape=(2,)))
    context = torch.zeros(4, 2)
    flow = twin.condition(context)
    with torch.no_grad():
        y = flow(torch.randn(4, 3))
        context += 1
        served = flow_distribution(flow, (3,)).log_prob(y)
    assert torch.equal(served, flow_distribution(flow, (3,)).log_prob(y.clone()).detach())


@pytest.mark.parametrize("switch", [lambda m: m.train(), lambda m: m.train().eval()])
def test_train_and_eval_switches_drop_the_slot(pair, switch):
    module, flow = pair
    with torch.no_grad():
        y = flow(torch.randn(4, 3))
        count = Count(module)
        switch(module)
        flow_distribution(flow, (3,)).log_prob(y)
    assert count.passes() == 1


def test_dropout_is_consistent_within_one_evaluation():
    flow = randomized(transforms.RealNVP(3, width=32, dropout=0.5)).train()
    y = torch.randn(6, 3)
    x = flow.inv(y)
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    log_det = flow.log_abs_det_jacobian(x, y)
    torch.random.set_rng_state(state)
    assert not torch.allclose(log_det, flow.log_abs_det_jacobian(x, y))  # fresh: another map


def test_a_submodule_switched_to_eval_is_noticed():
    flow = randomized(transforms.RealNVP(3, width=32, dropout=0.5)).train()
    y = torch.randn(6, 3)
    x = flow.inv(y)
    flow.flow.eval()
    fresh = flow.log_abs_det_jacobian(x.clone(), y)
    assert torch.equal(flow.log_abs_det_jacobian(x, y), fresh)


def test_clear_cache_recurses_and_reaches_conditioned_transforms(pair):
    module, flow = pair
    with torch.no_grad():
        y = flow(torch.randn(4, 3))
        count = Count(module)
        transforms.Chain([module]).clear_cache() if flow is module else module.clear_cache()
        flow_distribution(flow, (3,)).log_prob(y)
    assert count.passes() == 1


def is_dead(entry):
    if entry() is not None:  # a look at all objects takes its time
        gc.collect()
    return entry() is None


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("grad", [True, False])
def test_the_slot_dies_with_the_output(name, grad):
    flow, x = make(name)
    with torch.set_grad_enabled(grad):
        y = flow(x)
    entry = weakref.ref(flow._slot._entry)
    assert entry() is not None
    del y
    assert is_dead(entry)
    with torch.no_grad():
        y = flow(x).clone()
    with torch.set_grad_enabled(grad):
        back = flow.inv(y)
    entry = weakref.ref(flow._slot._entry)
    assert entry() is not None
    del back
    assert is_dead(entry)


def copies(flow):
    buffer = io.BytesIO()
    torch.save(flow, buffer)
    buffer.seek(0)
    yield copy.deepcopy(flow)
    yield pickle.loads(pickle.dumps(flow))
    yield torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("name", FLOWS)
def test_copies_and_pickles_after_a_sample_that_has_a_graph(name):
    flow, x = make(name)
    y = flow(x.requires_grad_())
    for other in copies(flow):
        assert other._slot is None
        torch.testing.assert_close(other(x), y)
        torch.testing.assert_close(other.inv(y.clone()), x)
    for inverse in copies(flow.inv):
        torch.testing.assert_close(inverse(y.clone()), x)
        assert inverse.inv.inv(y).shape == x.shape


@pytest.mark.parametrize("kind", CONTEXTS)
def test_conditional_copies(kind):
    options, make_context = CONTEXTS[kind]
    twin = randomized(transforms.ConditionalRealNVP(3, width=4, **options))
    context, x = make_context((2,)), torch.randn(2, 3)
    expected = twin.condition(context)(x)
    for other in copies(twin):
        torch.testing.assert_close(other.condition(context)(x), expected)
    torch.testing.assert_close(copy.deepcopy(twin.condition(context))(x), expected)


def test_a_deepcopy_trains_and_does_not_share():
    flow = small_flow()
    flow.inv(torch.randn(2, 3))
    other = copy.deepcopy(flow)
    before = [p.clone() for p in flow.parameters()]
    adam(other)
    assert all(map(torch.equal, before, flow.parameters()))
    assert not all(map(torch.equal, before, other.parameters()))


def test_with_cache_shares_parameters():
    flow = small_flow()
    cached = flow.with_cache(1)
    assert flow.with_cache(0) is flow
    assert cached is not flow
    assert cached.with_cache(0)._cache_size == 0
    assert all(a is b for a, b in zip(flow.parameters(), cached.parameters(), strict=True))
    with pytest.raises(ValueError, match="`cache_size` must be 0 or 1; got 2"):
        flow.with_cache(2)


def test_scoring_the_same_tensor_at_each_step_trains():
    flow = small_flow().with_cache(1)
    distribution, data = flow_distribution(flow, (3,)), torch.randn(16, 3) * 2
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.01, fused=True)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = -distribution.log_prob(data).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
