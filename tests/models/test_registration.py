"""Param statements of guide and model, names in the store, and what was loaded into it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)

from tests.models.toys import Ladder

ESTIMATORS = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO]
ESTIMATORS += [RenyiELBO, ReweightedWakeSleep]
SIZE = len(list(Ladder().parameters()))


def test_a_model_trains_under_a_guide_without_parameters() -> None:
    """Each particle's gradient counts, though the first stated every parameter."""
    model, x = Ladder(), torch.ones(4, 3)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            for name in ("z_2", "z_1"):
                pyro.sample(name, dist.Normal(torch.zeros(2), 1.0).to_event(1))

    def gradient(particles: int) -> torch.Tensor:
        torch.manual_seed(0)
        elbo = Trace_ELBO(num_particles=particles)
        with poutine.trace(param_only=True):
            for _ in range(4 // particles):
                elbo.loss_and_grads(model.model, guide, x)
        result = model.decoder.weight.grad.clone() / (4 // particles)
        model.zero_grad()
        return result

    # The same four draws: a particle that were left out would halve it, and more.
    torch.testing.assert_close(gradient(4), gradient(1))


def test_an_inner_capture_has_all() -> None:
    model, x = Ladder(), torch.randn(4, 3)
    with poutine.trace(param_only=True) as outer:
        model.guide(x)
        with poutine.trace(param_only=True) as inner:
            model.model(x)
    assert len(outer.trace.nodes) == len(inner.trace.nodes) == SIZE


def test_plain_traces_within_a_capture_are_whole() -> None:
    """For those who read a program's parameters off its own trace, in a loss of theirs."""
    model, x = Ladder(), torch.randn(4, 3)
    parameters = dict(model.named_parameters())
    with poutine.trace(param_only=True):
        for _ in range(2):
            guided = poutine.trace(model.guide).get_trace(x)
            replayed = poutine.trace(poutine.replay(model.model, trace=guided)).get_trace(x)
            for trace in (guided, replayed):
                held = {name.split("$$$")[1]: trace.nodes[name] for name in trace.param_nodes}
                assert held.keys() == parameters.keys()
                assert all(node["value"] is parameters[name] for name, node in held.items())


def delete_last(store: Any) -> None:
    del store[list(store)[-1]]


BETWEEN: dict[str, Callable[[Ladder], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "state of the store": lambda model: pyro.get_param_store().get_state(),
    "one deleted": lambda model: delete_last(pyro.get_param_store()),
    "cleared": lambda model: pyro.clear_param_store(),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_happens_between_guide_and_model_is_made_good(name: str) -> None:
    results = []
    for between in (lambda model: None, BETWEEN[name]):
        torch.manual_seed(0)
        model = Ladder()

        def program(x: torch.Tensor, model: Ladder = model, between: Any = between) -> None:
            between(model)
            model.model(x)

        optimizer = pyro.optim.SGD(lambda name: {"lr": 1e-2})
        svi = SVI(program, model.guide, optimizer, Trace_ELBO(num_particles=2))
        losses = [svi.step(torch.ones(4, 3)) for _ in range(2)]
        results.append((losses, [p.detach().clone() for p in model.parameters()]))
        assert len(pyro.get_param_store()) >= SIZE
    (losses, ours), (expected, theirs) = results
    assert losses == expected
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_without_a_capture_each_states_all() -> None:
    model, x = Ladder(), torch.randn(4, 3)
    guided = poutine.trace(model.guide).get_trace(x)
    replayed = poutine.trace(poutine.replay(model.model, trace=guided)).get_trace(x)
    assert len(guided.param_nodes) == len(replayed.param_nodes) == SIZE


def test_replaced_parameters_are_named_in_a_step_too() -> None:
    """Also the last, of a model whose guide has stated its own."""
    prior = dist.Normal(torch.zeros(()), 1.0)
    for wrap, name in (
        (lambda f: poutine.lift(f, prior=lambda *args, **kwargs: prior), "encoder.weight"),
        (lambda f: poutine.substitute(f, data={"decoder.bias": torch.zeros(3)}), "decoder.bias"),
    ):
        model = Ladder()
        svi = SVI(wrap(model.model), model.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        for _ in range(2):
            with pytest.raises(ValueError, match=f"`{name}` must be left to its module"):
                svi.step(torch.randn(4, 3))
        model.load_state_dict({n: p.clone() for n, p in model.state_dict().items()}, assign=True)
        with pytest.raises(ValueError, match=f"`{name}` must be left to its module"):
            wrap(model.model)(torch.randn(4, 3))


def test_parameters_replayed_are_named() -> None:
    model, x = Ladder(), torch.randn(4, 3)
    with poutine.trace(param_only=True) as capture:
        model.guide(x)
        last = list(capture.trace.nodes)[-1]
        other = torch.zeros(3, requires_grad=True)
        other.unconstrained = lambda: other
        with pytest.raises(ValueError, match=r"`decoder.bias` must be left to its module"):
            poutine.replay(model.model, params={last: other})(x)


@pytest.mark.parametrize("stored", [False, True])
def test_a_parameter_made_anew_between_guide_and_model_is_stated(stored: bool) -> None:
    model, x, store = Ladder(), torch.randn(4, 3), pyro.get_param_store()
    with poutine.trace(param_only=True) as capture:
        model.guide(x)
        model.decoder.weight = torch.nn.Parameter(torch.randn(3, 2))
        if stored:
            (site,) = (name for name in store if name.endswith("decoder.weight"))
            store[site] = model.decoder.weight
        model.model(x)
    assert any(p is model.decoder.weight for p in store.values())
    held = [node["value"] for node in capture.trace.nodes.values()]
    assert any(p is model.decoder.weight for p in held)
