"""Low-memory training: equal gradients, random numbers and statistics, one more evaluation.

``check_checkpointing`` holds every flow to equal gradients in each kind of backward pass.
"""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from pyro_genmodels import nets, testing, transforms

SHAPE = (1, 8, 8)
FLOWS = {
    "Glow": lambda **options: transforms.Glow(
        SHAPE, num_scales=2, num_steps=2, width=4, dropout=0.3, **options
    ),
    "Glow/spline": lambda **options: transforms.Glow(
        SHAPE, num_scales=1, num_steps=2, width=4, coupling="spline", **options
    ),
    "RealNVP": lambda **options: transforms.RealNVP(
        SHAPE, num_scales=2, num_couplings=1, width=4, dropout=0.3, **options
    ),
    "RealNVP/batch-norm": lambda **options: transforms.RealNVP(
        SHAPE, num_scales=2, num_couplings=1, width=4, batch_norm=True, **options
    ),
    "NICE": lambda **options: transforms.NICE(
        SHAPE, width=4, num_layers=1, dropout=0.3, num_classes=3, **options
    ),
}
every_flow = pytest.mark.parametrize("name", FLOWS)


def pair(name: str) -> tuple[transforms.FlowTransform, transforms.FlowTransform]:
    """Return a flow in training mode, and one of the same parameters that keeps little."""
    torch.manual_seed(0)
    plain, low = FLOWS[name](), FLOWS[name](checkpoint=True)
    testing.randomize_parameters(plain, 0.1)
    low.load_state_dict(plain.state_dict())
    return plain.double().train(), low.double().train()


def context_of(flow: transforms.FlowTransform, batch: int) -> Tensor | None:
    return None if flow.num_classes is None else torch.arange(batch) % flow.num_classes


def density(flow: transforms.FlowTransform, y: Tensor) -> Tensor:
    x, log_det = flow.inverse_and_log_det(y, context_of(flow, len(y)))
    return (log_det - 0.5 * x.square().flatten(1).sum(1)).mean()


def step(flow: transforms.FlowTransform, y: Tensor) -> tuple[float, list[Tensor]]:
    """Return loss and gradients after two passes, with the random numbers of a fixed seed."""
    torch.manual_seed(1)
    for _ in range(2):
        loss = density(flow, y)
        gradients = torch.autograd.grad(loss, [*flow.parameters()], allow_unused=True)
    return loss.item(), [g for g in gradients if g is not None]


@every_flow
def test_losses_gradients_and_statistics_are_equal(name: str) -> None:
    plain, low = pair(name)
    y = torch.randn(6, *SHAPE, dtype=torch.float64)
    before = copy.deepcopy(plain.state_dict())
    expected, actual = step(plain, y), step(low, y)
    assert actual[0] == pytest.approx(expected[0], rel=1e-12)
    assert len(actual[1]) == len(expected[1])
    for ours, theirs in zip(actual[1], expected[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    state = plain.state_dict()
    for key, value in low.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-12, atol=1e-12)
    if "batch-norm" in name or name.startswith("Glow"):
        assert not all(torch.equal(before[key], state[key]) for key in state)


@every_flow
def test_a_sample_has_equal_gradients(name: str) -> None:
    plain, low = pair(name)
    x = torch.randn(6, *SHAPE, dtype=torch.float64)
    found = []
    for flow in (plain, low):
        torch.manual_seed(1)
        flow.initialize(x, context_of(flow, 6))
        torch.manual_seed(1)
        y, log_det = flow.forward_and_log_det(x, context_of(flow, 6))
        loss = y.square().mean() + log_det.mean()
        gradients = torch.autograd.grad(loss, [*flow.parameters()], allow_unused=True)
        found.append([g for g in gradients if g is not None])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@every_flow
def test_each_network_is_evaluated_twice_a_step_and_once_without_gradients(name: str) -> None:
    """Scales lie within scales: none is evaluated a third time."""
    _, low = pair(name)
    kinds = (nets.MLP, nets.ResNet, nets.GlowNet, nets.RealNVPNet)
    networks = [m for m in low.modules() if isinstance(m, kinds)]
    counts = dict.fromkeys(networks, 0)

    def count(module: torch.nn.Module, _: object) -> None:
        counts[module] += 1

    for network in networks:
        # Before: the second evaluation stops where nothing more is needed.
        network.register_forward_pre_hook(count)
    y = torch.randn(6, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        density(low, y)
    assert set(counts.values()) == {1}
    density(low, y).backward()
    # A split prior is no step of a chain, and is kept.
    kept = {m for m in networks if isinstance(m, nets.GlowNet) and not len(m.hidden)}
    assert {count for module, count in counts.items() if module not in kept} == {3}
    assert {counts[module] for module in kept} <= {2}


@every_flow
def test_a_gradient_penalty_trains_alike(name: str) -> None:
    """The norm of the density's gradient in the data, with dropout."""
    found = []
    for flow in pair(name):
        torch.manual_seed(1)
        y = torch.randn(6, *SHAPE, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(density(flow, y), y, create_graph=True)
        slope.square().sum().backward()
        found.append([y.grad, *(p.grad for p in flow.parameters() if p.grad is not None)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("vectorize", [False, True])
def test_a_hessian_is_equal(vectorize: bool) -> None:
    y, found = torch.ones(2, *SHAPE, dtype=torch.float64), []
    for flow in pair("RealNVP"):
        # vmap, which a vectorised Hessian repeats the evaluation in, draws no random numbers.
        score = partial(density, flow.eval())
        found.append(torch.autograd.functional.hessian(score, y, vectorize=vectorize))
    assert torch.equal(*found)


def test_parameters_that_are_lent_are_those_of_the_gradient() -> None:
    found = []
    for flow in pair("RealNVP"):
        lent = {n: (p.detach() + 0.1).requires_grad_() for n, p in flow.named_parameters()}
        torch.manual_seed(1)
        x = torch.randn(6, *SHAPE, dtype=torch.float64)
        loss = torch.func.functional_call(flow, lent, (x,)).square().sum()
        gradients = torch.autograd.grad(loss, [*lent.values()], allow_unused=True)
        found.append([g for g in gradients if g is not None])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_between_a_loss_and_its_backward_pass_is_an_error() -> None:
    """As without checkpointing, rather than gradients at the new parameters."""
    for flow in pair("RealNVP"):
        loss = density(flow, torch.randn(6, *SHAPE, dtype=torch.float64))
        loss.backward(retain_graph=True)
        torch.optim.SGD(flow.parameters(), lr=0.1).step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_units_are_dropped_alike_where_only_a_network_is_in_training() -> None:
    found = []
    for flow in pair("RealNVP"):
        flow.eval()
        for part in flow.modules():
            if isinstance(part, torch.nn.Dropout):
                part.train()
        torch.manual_seed(1)
        loss = density(flow, torch.ones(6, *SHAPE, dtype=torch.float64))
        found.append(torch.autograd.grad(loss, [*flow.parameters()], allow_unused=True))
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def saved(flow: transforms.FlowTransform, y: Tensor) -> int:
    """Return the bytes that a graph keeps, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in flow.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = density(flow, y)
    assert math.isfinite(loss.item())
    return sum(sizes.values())


def test_little_is_kept() -> None:
    options = {"num_scales": 1, "num_steps": 8, "width": 64}
    y = torch.randn(4, 3, 8, 8)
    plain, low = (transforms.Glow((3, 8, 8), checkpoint=c, **options) for c in (False, True))
    assert saved(low, y) < saved(plain, y) / 8
