"""What Pyro's inspection and handlers that wrap parameters find in every model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.inspect import get_dependencies, get_model_relations
from pyro.ops.provenance import ProvenanceTensor, detach_provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_genmodels import models
from tests import cases
from tests.cases import Case

pytestmark = [pytest.mark.usefixtures("double"), pytest.mark.one_each]
ALL = pytest.mark.parametrize("make", [pytest.param(m, id=n) for n, m in cases.MODELS.items()])


def prepared(make: Callable[[], Case]) -> tuple[Any, Tensor, Tensor | None]:
    """A model in eval mode with a batch of its own data."""
    case = make()
    model, context = case.part.eval(), case.context
    torch.manual_seed(0)
    x = model.sample(1, context)[0] if context is not None else model.sample(2)
    return model, x, context


class Wrapping(Messenger):
    """Hands every parameter back as another tensor of the same values."""

    def __init__(self, wrap: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.wrap = wrap

    def _pyro_post_param(self, msg: Any) -> None:
        msg["value"] = self.wrap(msg["value"])


WRAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "provenance": lambda value: ProvenanceTensor(value, frozenset({"a"})),
    "clone": lambda value: value.clone(),
    "view": lambda value: value.view(value.shape),
}


@ALL
def test_every_latent_that_matters_is_a_dependency(make: Callable[[], Case]) -> None:
    model, x, context = prepared(make)
    found = get_dependencies(model.model, (x, context))["prior_dependencies"]
    for upstream, downstream in influences(model, x, context):
        assert upstream in found[downstream]
    assert all(name in upstreams for name, upstreams in found.items())


def influences(model: Any, x: Tensor, context: Tensor | None) -> set[tuple[str, str]]:
    """Pairs of sites such that another value of the first changes the second's density."""
    torch.manual_seed(1)
    first = poutine.trace(model.model).get_trace(x, context)
    values = {n: first.nodes[n]["value"] for n in first.stochastic_nodes}
    scores, found = densities(model, x, context, values), set()
    for upstream in values:
        torch.manual_seed(2)
        drop = {name: value for name, value in values.items() if name != upstream}
        other = poutine.trace(poutine.condition(model.model, data=drop)).get_trace(x, context)
        changed = values | {upstream: other.nodes[upstream]["value"]}
        for downstream, score in densities(model, x, context, changed).items():
            if not torch.equal(score, scores[downstream]):
                found.add((upstream, downstream))
    return found


def densities(
    model: Any, x: Tensor, context: Tensor | None, values: dict[str, Tensor]
) -> dict[str, Tensor]:
    trace = poutine.trace(poutine.condition(model.model, data=values)).get_trace(x, context)
    trace.compute_log_prob()
    sites = [trace.nodes[n] for n in (*trace.stochastic_nodes, *trace.observation_nodes)]
    return {site["name"]: site["unscaled_log_prob"] for site in sites}


@ALL
def test_relations_name_the_sites_of_model_and_guide(make: Callable[[], Case]) -> None:
    model, x, context = prepared(make)
    names = set(poutine.trace(model.guide).get_trace(x, context).stochastic_nodes)
    relations = get_model_relations(model.model, (x, context))
    assert relations["observed"] == ["x"]
    # A mixture sums its component out where no guide has drawn it.
    assert names - {"component"} <= set(relations["sample_sample"]) - {"x"}
    of_guide = get_model_relations(model.guide, (x, context))
    assert set(of_guide["sample_sample"]) >= names
    drawn = get_model_relations(model.model, (None, context))
    assert set(drawn["sample_sample"]) == set(relations["sample_sample"])
    assert not drawn["observed"]


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@ALL
def test_a_handler_may_wrap_parameters(
    make: Callable[[], Case], wrap: Callable[[Tensor], Tensor]
) -> None:
    model, x, context = prepared(make)
    scores = []
    for handler in (Messenger(), Wrapping(wrap)):
        torch.manual_seed(3)
        with handler:
            guided = poutine.trace(model.guide).get_trace(x, context)
            replayed = poutine.trace(poutine.replay(model.model, trace=guided))
            scores.append(replayed.get_trace(x, context).log_prob_sum().detach())
    torch.testing.assert_close(*map(detach_provenance, scores), rtol=0, atol=0)


def test_the_dependencies_of_a_vae_are_those_of_a_plain_one() -> None:
    found = get_dependencies(models.VAE((6,), latent_dim=2).model, (torch.randn(8, 6),))
    assert found == {
        "prior_dependencies": {"z": {"z": set()}, "x": {"x": set(), "z": set()}},
        "posterior_dependencies": {"z": {"z": set(), "x": set()}},
    }


def test_a_model_within_a_program_is_inspected() -> None:
    vae = models.VAE((6,), latent_dim=2)

    def program(x: Tensor) -> None:
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        vae.model(x - shift)

    found = get_dependencies(program, (torch.randn(8, 6),))["prior_dependencies"]
    assert set(found["x"]) == {
        "x",
        "z",
    }  # of an observed value, Pyro does not track where it is from


def test_a_model_is_rendered(tmp_path: Any) -> None:
    pytest.importorskip("graphviz")
    vae = models.VAE((6,), latent_dim=2)
    for render_params in (False, True):
        graph = pyro.render_model(vae.model, (torch.randn(8, 6),), render_params=render_params)
        assert "x" in graph.source
        assert "z" in graph.source
