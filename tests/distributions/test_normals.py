"""Our Gaussians offer what ``Normal(...).to_event()`` does: moments, KL, reparameterisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.infer.reparam import (
    DiscreteCosineReparam,
    HaarReparam,
    LocScaleReparam,
    NeuTraReparam,
    SplitReparam,
)
from pyro.infer.reparam.strategies import AutoReparam, MinimalReparam
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_genmodels import distributions, models
from tests import cases
from tests.test_laws import batch_for, prepared_model

pytestmark = pytest.mark.usefixtures("double")

ZERO = torch.zeros((), dtype=torch.float64)
LOC, LOG_SCALE = torch.randn(2, 5, 2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
NORMALS: dict[str, Callable[[], Any]] = {
    "DiagonalNormal": lambda: distributions.DiagonalNormal(LOC, LOG_SCALE),
    "DiagonalNormal/scale": lambda: distributions.DiagonalNormal(LOC, scale=LOG_SCALE.exp()),
    "StandardNormal": lambda: distributions.StandardNormal(ZERO, 4, (5, 2, 3)),
    "StandardNormal/expanded": lambda: distributions.StandardNormal(ZERO, 4).expand([5, 2, 3]),
    **{
        f"DiagonalNormal/rank {rank}": partial(
            distributions.DiagonalNormal, LOC, scale=LOG_SCALE.exp(), event_dim=rank
        )
        for rank in (0, 2, 3)
    },
    "DiagonalNormal/maps, log-scale": lambda: distributions.DiagonalNormal(
        LOC, LOG_SCALE, event_dim=3
    ),
}
every_normal = pytest.mark.parametrize("name", NORMALS)


def plain(normal: Any) -> Any:
    if isinstance(normal, distributions.StandardNormal):
        loc, scale = LOC.new_zeros(5, 2, 3, 4), LOC.new_ones(5, 2, 3, 4)
    else:
        loc, scale = LOC, LOG_SCALE.exp()
    return dist.Normal(loc, scale).to_event(normal.event_dim)


@every_normal
def test_what_a_normal_offers(name: str) -> None:
    own, other = NORMALS[name](), plain(NORMALS[name]())
    for part in ("mean", "mode", "variance", "stddev", "batch_shape", "event_shape", "has_rsample"):
        torch.testing.assert_close(getattr(own, part), getattr(other, part), msg=part)
    elements = getattr(other, "base_dist", other)
    for part in ("loc", "scale"):
        torch.testing.assert_close(getattr(own, part), getattr(elements, part), msg=part)
    torch.testing.assert_close(own.entropy(), other.entropy())
    torch.testing.assert_close(own.perplexity(), other.perplexity())
    x = torch.randn(own.shape())
    mask = (torch.arange(own.batch_shape.numel()) % 2 == 0).reshape(own.batch_shape)
    for change in (
        lambda d: d.to_event(1),
        lambda d: d.expand((7, *d.batch_shape)),
        lambda d: d.expand_by([7]),
        lambda d: d.mask(mask),
    ):
        torch.testing.assert_close(change(own).log_prob(x), change(other).log_prob(x))


@every_normal
@pytest.mark.parametrize("against", NORMALS)
def test_kl_is_that_of_plain_normals(name: str, against: str) -> None:
    q, p = NORMALS[name](), NORMALS[against]()
    if q.event_dim != p.event_dim:
        with pytest.raises(NotImplementedError):  # as of plain ones, not the sum over fewer
            kl_divergence(q, p)
        return
    expected = kl_divergence(plain(q), plain(p))
    for pair in ((q, p), (plain(q), p), (q, plain(p))):
        torch.testing.assert_close(kl_divergence(*pair), expected)


@every_normal
def test_kl_to_a_correlated_normal(name: str) -> None:
    q = NORMALS[name]()
    p = dist.MultivariateNormal(LOC, torch.eye(4) + 0.3)
    if q.event_dim != 1:
        with pytest.raises(NotImplementedError):
            kl_divergence(q, p)
        return
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(plain(q), p))


def test_the_rank_of_an_event_is_possible() -> None:
    for rank in (-1, 5, 1.0):
        with pytest.raises(ValueError, match="`event_dim` must"):
            distributions.DiagonalNormal(LOC, LOG_SCALE, event_dim=rank)


def test_one_of_two_scales() -> None:
    for scales in ({}, {"log_scale": LOG_SCALE, "scale": LOG_SCALE.exp()}):
        with pytest.raises(ValueError, match=r"`scale` must"):
            distributions.DiagonalNormal(LOC, **scales)
    with pytest.raises(ValueError, match="scale"):
        distributions.DiagonalNormal(LOC, scale=-LOG_SCALE.exp(), validate_args=True)


OTHERS: dict[str, Callable[[], Any]] = {
    "AR1Normal": lambda: distributions.AR1Normal(ZERO, 6, 0.8, num_steps=3, batch_shape=(2,)),
    "UniformLevels": lambda: distributions.UniformLevels((2, 2), 5).expand([2]),
    "UniformDequantization": lambda: distributions.UniformDequantization(torch.arange(3.0)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_moments_and_entropy_are_those_of_draws(name: str) -> None:
    law, count = OTHERS[name](), 20_000
    torch.manual_seed(0)
    x = law.sample((count,)).double()
    assert law.mean.shape == law.variance.shape == law.shape()
    assert law.entropy().shape == law.batch_shape
    error = 5 * law.stddev / count**0.5
    assert bool(((x.mean(0) - law.mean).abs() <= error).all())
    torch.testing.assert_close(x.var(0), law.variance.double(), rtol=0.1, atol=0)
    scores = -law.log_prob(x).double()
    error = 5 * scores.std(0) / count**0.5 + 1e-6
    assert bool(((scores.mean(0) - law.entropy()).abs() <= error).all())


# Reparameterisers: every model, and a program with a plain normal in its place


def program_of(case: cases.Case) -> tuple[Callable[..., Any], Tensor, Tensor | None]:
    x, context = batch_for(case, 3)
    model = case.part.requires_grad_(False)

    def program(x: Tensor | None, context: Tensor | None) -> Any:
        with model.bounding():
            return model.model(x, context)

    return program, x, context


GAUSSIAN = (distributions.DiagonalNormal, distributions.StandardNormal)
CONTINUOUS = {
    name: make
    for name, make in cases.MODELS.items()
    if getattr(make().part, "latent_dim", None) or name.startswith("NVAE")
}
every_model = pytest.mark.parametrize("name", CONTINUOUS)


def is_reparameterizable(site: Any) -> bool:
    law = site["fn"]
    return isinstance(law, GAUSSIAN)


@every_model
@pytest.mark.parametrize("centered", [None, 0.0, 0.4])
def test_loc_scale(name: str, centered: float | None) -> None:
    """The joint density is that of the model times the reparameterisation's Jacobian."""
    program, x, context = program_of(prepared_model(CONTINUOUS[name]))
    sites = {n: s for n, s in latents_of(program, x, context).items() if is_reparameterizable(s)}
    if not sites:
        pytest.skip("no Gaussian prior")
    config = {n: LocScaleReparam(centered) for n in sites}
    changed = poutine.trace(poutine.reparam(program, config=config)).get_trace(x, context)
    values = {n: changed.nodes[n]["value"] for n in sites}
    original = poutine.trace(poutine.condition(program, data=values)).get_trace(x, context)
    expected = original.log_prob_sum()
    c = 0.5 if centered is None else centered
    for n in sites:
        assert f"{n}_decentered" in changed.nodes
        expected = expected + (1 - c) * original.nodes[n]["fn"].scale.log().sum()
    torch.testing.assert_close(changed.log_prob_sum(), expected)


def latents_of(program: Any, x: Tensor, context: Tensor | None) -> dict[str, Any]:
    trace = poutine.trace(program).get_trace(x, context)
    return {n: trace.nodes[n] for n in trace.stochastic_nodes if n != "x"}


STRATEGIES: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "auto": lambda program, sites: poutine.reparam(program, config=AutoReparam()),
    "auto-decentered": lambda program, sites: poutine.reparam(
        program, config=AutoReparam(centered=0.0)
    ),
    "minimal": lambda program, sites: poutine.reparam(program, config=MinimalReparam()),
    "cosine": lambda program, sites: poutine.reparam(
        program, config={n: DiscreteCosineReparam(dim=-1) for n in sites}
    ),
    "haar": lambda program, sites: poutine.reparam(
        program, config={n: HaarReparam(dim=-1) for n in sites}
    ),
}


@pytest.mark.parametrize("name", cases.MODELS)
@pytest.mark.parametrize("strategy", ["auto", "auto-decentered", "minimal"])
def test_strategies(name: str, strategy: str) -> None:
    program, x, context = program_of(prepared_model(cases.MODELS[name]))
    changed = STRATEGIES[strategy](program, {})
    trace = poutine.trace(changed).get_trace(x, context)
    # Of dequantised levels a draw from the prior rounds down to others.
    rounds = cases.MODELS[name]().part.is_dequantized
    assert rounds or bool(trace.log_prob_sum().isfinite())
    sites = latents_of(program, x, context)
    for n, site in sites.items():
        if strategy != "minimal" and is_reparameterizable(site):
            assert f"{n}_decentered" in trace.nodes
    drawn = poutine.trace(changed).get_trace(None, context)
    assert drawn.nodes["x"]["value"].isfinite().all()


@every_model
@pytest.mark.parametrize("strategy", ["cosine", "haar"])
def test_other_reparameterisers(name: str, strategy: str) -> None:
    program, x, context = program_of(prepared_model(CONTINUOUS[name]))
    sites = latents_of(program, x, context)
    changed = STRATEGIES[strategy](program, sites)
    if isinstance(getattr(CONTINUOUS[name]().part, "prior", None), models.VampPrior):
        pytest.skip("newer versions of torch do not transform the support of MixtureSameFamily")
    trace = poutine.trace(changed).get_trace(x, context)
    original = poutine.condition(program, data={n: trace.nodes[n]["value"] for n in sites})
    expected = poutine.trace(original).get_trace(x, context).log_prob_sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected)  # they are orthonormal


@every_model
def test_split(name: str) -> None:
    program, x, context = program_of(prepared_model(CONTINUOUS[name]))
    original = poutine.trace(program).get_trace(x, context)
    sites = latents_of(program, x, context)
    sizes = {n: [1, s["fn"].event_shape[-1] - 1] for n, s in sites.items()}
    sizes = {n: each for n, each in sizes.items() if each[1]}
    config = {n: SplitReparam(each, -1) for n, each in sizes.items()}
    values = {n: original.nodes[n]["value"] for n in sites}
    parts = {
        f"{n}_split_{i}": part
        for n, each in sizes.items()
        for i, part in enumerate(values[n].split(each, -1))
    }
    changed = poutine.condition(poutine.reparam(program, config=config), data=values | parts)
    found = poutine.trace(changed).get_trace(x, context).log_prob_sum()
    torch.testing.assert_close(found, original.log_prob_sum())


@pytest.mark.parametrize("name", ["VAE", "BetaVAE", "DeltaVAE", "NVAE", "VAE/flow-prior"])
def test_neural_transport(name: str) -> None:
    program, x, context = program_of(prepared_model(cases.MODELS[name]))
    guide = AutoMultivariateNormal(program)
    guide(x, context)
    trace = poutine.trace(NeuTraReparam(guide).reparam(program)).get_trace(x, context)
    assert bool(trace.log_prob_sum().isfinite())
