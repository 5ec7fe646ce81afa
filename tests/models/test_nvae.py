"""Laws of NVAE: its KL terms and their balance, one pass a step, regularisers, batch norm."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pyro_genmodels import models, testing
from pyro_genmodels.distributions.gaussian import DiagonalNormal
from pyro_genmodels.models import NVAE, ELBOLoss, LogisticMixtureLikelihood
from pyro_genmodels.models.base.mean_field_elbo import MeanFieldELBO
from pyro_genmodels.models.nvae.hierarchy import clamped_normal
from pyro_genmodels.models.nvae.objective import balancing_coefficients, group_weights
from pyro_genmodels.models.nvae.posterior_flow import AutoregressiveShifts
from pyro_genmodels.nets.nvae.cells import DecoderCell, EncoderCell
from pyro_genmodels.nets.nvae.layers import BatchNorm, RegularizedConv2d
from tests.grouped import grouped
from tests.nets.test_nvae import saved_bytes

pytestmark = pytest.mark.usefixtures("double")
ESTIMATORS = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO, MeanFieldELBO]
SMALL: dict[str, Any] = {
    "num_levels": 3,
    "num_groups": (1, 2),
    "latent_channels": 2,
    "channels": 4,
    "num_blocks": 1,
    "cells_per_block": 1,
    "num_cells": 1,
    "warmup_steps": 10,
}


def nvae(**options: Any) -> NVAE:
    likelihood = LogisticMixtureLikelihood((1, 4, 8), 3, num_mixtures=2)
    return testing.randomize_parameters(
        NVAE((1, 4, 8), **grouped(NVAE, {"likelihood": likelihood} | SMALL | options)), 0.2
    )


def images(*batch: int) -> Tensor:
    return torch.randint(3, (*batch, 1, 4, 8))


def loss_and_gradients(model: NVAE, estimator: Any, x: Tensor, seed: int = 1) -> list[Tensor]:
    """Of a copy: power iteration and running statistics move."""
    return loss_and_gradients_of(copy.deepcopy(model), estimator, x, seed)


def loss_and_gradients_of(model: NVAE, estimator: Any, x: Tensor, seed: int = 1) -> list[Tensor]:
    torch.manual_seed(seed)
    elbo = estimator(max_plate_nesting=1)
    # With Pyro's validation on, ours is Pyro's own code.
    with pyro.validation_enabled(estimator is not MeanFieldELBO):
        loss = torch.tensor(elbo.loss_and_grads(model.model, model.guide, x))
    pyro.clear_param_store()
    return [loss, *(p.grad for p in model.parameters() if p.grad is not None)]


# Parts


def test_kl_of_residual_normals() -> None:
    numbers = torch.randn(4, 3, 2, 2, 2)
    loc, log_scale, shift, stretch = numbers.unsqueeze(1) * 3
    q = clamped_normal(loc + shift, log_scale + stretch)
    p = clamped_normal(loc, log_scale)
    both = [
        Normal(5 * torch.tanh(a / 5), torch.exp(5 * torch.tanh(b / 5)) + 0.01)
        for a, b in ((loc + shift, log_scale + stretch), (loc, log_scale))
    ]
    expected = kl_divergence(*both).sum((-3, -2, -1))
    torch.testing.assert_close(kl_divergence(q, p), expected, atol=1e-9, rtol=1e-9)
    z = q.sample((5,))
    torch.testing.assert_close(p.log_prob(z), both[1].log_prob(z).sum((-3, -2, -1)))
    torch.testing.assert_close(q.entropy(), both[0].entropy().sum((-3, -2, -1)))


def test_residual_kl_is_that_of_the_paper() -> None:
    """Eq. 2, in which neither clamp nor floor stands."""
    loc, log_scale, shift, stretch = torch.randn(4, 1, 2, 2, 2)
    p = DiagonalNormal(loc, log_scale, event_dim=3)
    q = DiagonalNormal(loc + shift, log_scale + stretch, event_dim=3)
    ratio = (2 * stretch).exp()
    expected = 0.5 * (shift.square() / (2 * log_scale).exp() + ratio - ratio.log() - 1)
    torch.testing.assert_close(kl_divergence(q, p), expected.sum((-3, -2, -1)), atol=1e-9, rtol=0)


def test_a_posterior_that_adds_nothing_is_the_prior() -> None:
    model = nvae(num_cells=0).eval()
    with torch.no_grad():
        for posterior in model.hierarchy.decoder.posteriors:
            last = getattr(posterior, "output", posterior)
            last.weight.zero_()
            last.bias.zero_()
    x = images(3)
    guided = poutine.trace(model.guide).get_trace(x)
    modelled = poutine.trace(poutine.replay(model.model, trace=guided)).get_trace(x)
    for name in model.site_names:
        q, p = guided.nodes[name]["fn"], modelled.nodes[name]["fn"]
        torch.testing.assert_close(q.loc, p.loc.expand_as(q.loc))
        torch.testing.assert_close(q.scale, p.scale.expand_as(q.scale))
    assert float(modelled.nodes["z_3"]["fn"].loc.abs().min()) > 0


def test_balancing_by_hand() -> None:
    assert group_weights((2, 4, 2)) == [1, 1, 2, 2, 2, 2, 16, 16]
    terms = [torch.tensor([1.0, 3.0]), torch.tensor([0.0, -4.0]), torch.tensor([0.0, 0.0])]
    shares = torch.tensor([2.01 / 1, 2.01 / 4, 0.01 / 4])
    found = balancing_coefficients(terms, [1.0, 4.0, 4.0])
    torch.testing.assert_close(found, shares / shares.mean(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("num_pairs", [1, 2])
def test_shifts_are_a_flow_that_keeps_volumes(num_pairs: int) -> None:
    flow = testing.randomize_parameters(AutoregressiveShifts((2, 2, 3), num_pairs=num_pairs), 0.3)
    z = torch.randn(2, 2, 2, 3)
    testing.check_inverse(flow.eval(), z)
    testing.check_log_det(flow, z)
    noise = DiagonalNormal(torch.zeros(2, 2, 3), torch.zeros(2, 2, 3), event_dim=3)
    density = pyro.distributions.TransformedDistribution(noise, [flow])
    calls = Counter[str]()
    flow.shifts[0].register_forward_hook(lambda *_: calls.update(["shift"]))
    density.log_prob(density.rsample((3,)))
    assert calls["shift"] == 1


def test_linked_mixture_is_a_distribution() -> None:
    raw = LogisticMixtureLikelihood((2, 1, 2), 3, num_mixtures=2)
    law = raw(torch.randn(3, raw.parameter_shape[0], 1, 2))
    testing.check_distribution(law)
    testing.check_normalized(law)
    testing.check_sampler(law)
    drawn = law.sample((20_000,))
    spread = 5 * drawn.std(0) / 20_000**0.5
    # A channel's mean is given the means of those before it: exact for the first.
    assert bool(((drawn.mean(0) - law.mean).abs() <= spread)[:, 0].all())
    assert bool(((drawn.mean(0) - law.mean).abs() <= spread + 0.2).all())


# The objective


@pytest.mark.parametrize("num_flows", [0, 1])
@pytest.mark.parametrize("step", [4, 10])
def test_estimators_agree_in_training(num_flows: int, step: int) -> None:
    """Value and gradient, in the warm-up and after it; the same draws, so exactly."""
    model, x = nvae(num_flows=num_flows, num_cells=0), images(4)
    model.latent_scale.step.fill_(step)
    first = loss_and_gradients(model, Trace_ELBO, x)
    for estimator in ESTIMATORS[1:]:
        for a, b in zip(first, loss_and_gradients(model, estimator, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_double_precision_is_kept_where_it_is_not_the_default(estimator: Any) -> None:
    model, x = nvae(num_cells=0), images(3)
    torch.set_default_dtype(torch.float32)
    assert all(each.dtype == torch.float64 for each in loss_and_gradients(model, estimator, x)[1:])


@pytest.mark.parametrize("num_flows", [0, 1])
def test_estimators_agree_without_balancing(num_flows: int) -> None:
    """Those that take draws and those that take the form, each among themselves."""
    model, x = nvae(balancing=False, num_cells=0, num_flows=num_flows), images(4)
    model.latent_scale.step.fill_(5)
    for group in ([Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO], ESTIMATORS[1::3]):
        first, *others = (loss_and_gradients(model, each, x) for each in group)
        for other in others:
            for a, b in zip(first, other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_objective_by_hand() -> None:
    """Reconstruction, balanced KL terms, spectral norms and scales of batch norms."""
    model, x = nvae(num_cells=0, regularization=0.1, regularization_start=10.0), images(5)
    model.latent_scale.step.fill_(3)  # the guide counts on to 4, of 10
    for _ in range(300):  # until power iteration has come to the singular values
        model.regularizer(1.0)
    torch.manual_seed(1)
    by_hand = copy.deepcopy(model)
    loss = ELBOLoss(model, validate=False)(x)
    torch.manual_seed(1)
    guided = poutine.trace(by_hand.guide).get_trace(x)
    modelled = poutine.trace(poutine.replay(by_hand.model, trace=guided)).get_trace(x)
    terms = []
    for name in by_hand.site_names:
        q, p = guided.nodes[name]["fn"], modelled.nodes[name]["fn"]
        terms.append(kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale)).sum((1, 2, 3)))
    weights = torch.tensor([1.0, 2.0, 2.0])
    shares = (torch.stack([t.mean() for t in terms]) + 0.01) / weights
    shares = shares / shares.mean()
    coefficient = 1e-4 + (1 - 1e-4) * 0.4
    rate = sum(s * t.mean() for s, t in zip(shares, terms, strict=True))
    distortion = -modelled.nodes["x"]["fn"].log_prob(x.double()).mean()
    convs = [m for m in model.hierarchy.modules() if isinstance(m, RegularizedConv2d)]
    norms = sum(torch.linalg.matrix_norm(conv.kernel().flatten(1), 2) for conv in convs)
    layers = [m for m in model.hierarchy.modules() if isinstance(m, BatchNorm)]
    scales = sum(layer.weight.abs().max() for layer in layers)
    weight = 10.0 * (0.1 / 10.0) ** coefficient
    expected = distortion + coefficient * rate + weight * (norms + scales)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_neither_in_eval_mode_nor_bounding() -> None:
    model, x = nvae(), images(3)
    for trace in (_sites(model.eval(), x), _sites(model.train(), x, bounding=True)):
        assert set(trace) == set(model.site_names)
    assert set(_sites(model, x)) == {*model.site_names, "divergences", "regularization"}
    assert set(_sites(nvae(warmup_steps=0, regularization=0.0), x)) == set(model.site_names)


def _sites(model: NVAE, x: Tensor, *, bounding: bool = False) -> list[str]:
    trace = poutine.trace(model.guide)
    if bounding:
        with model.bounding():
            trace = trace.get_trace(x)
    else:
        trace = trace.get_trace(x)
    return [name for name, site in trace.nodes.items() if site["type"] == "sample"]


def test_the_first_prior_and_the_posteriors_of_a_step() -> None:
    model = nvae().eval()
    trace = poutine.trace(model.guide).get_trace(images(3))
    replayed = poutine.trace(poutine.replay(model.model, trace=trace)).get_trace(images(3))
    first = replayed.nodes["z_1"]["fn"]
    assert first.event_shape == (2, 1, 2)
    assert bool((first.scale == 1.01).all() and (first.loc == 0).all())
    shapes = [tuple(trace.nodes[name]["value"].shape[1:]) for name in model.site_names]
    assert shapes == model.latent_shapes == [(2, 1, 2), (2, 2, 4), (2, 2, 4)]


# One pass


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("options", [{}, {"num_flows": 1, "warmup_steps": 0}], ids=str)
def test_each_cell_is_evaluated_once_a_step(estimator: Any, options: Any) -> None:
    model, x, calls = nvae(**options), images(4), Counter[str]()
    for name, module in model.named_modules():
        if isinstance(module, DecoderCell | EncoderCell | AutoregressiveShifts):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    loss_and_gradients_of(model, estimator, x)
    assert calls
    assert set(calls.values()) == {1}
    assert model.shared_pass.misses == 0
    assert model.shared_pass.hits == len(model.site_names)


def test_a_model_on_other_latents_computes_anew() -> None:
    model, x = nvae().eval(), images(2)
    guided = poutine.trace(model.guide).get_trace(x)
    for name in model.site_names:
        guided.nodes[name]["value"] = guided.nodes[name]["value"].clone()
    other = poutine.trace(poutine.replay(model.model, trace=guided)).get_trace(x)
    assert model.shared_pass.misses == 2  # the first step knows of no latent
    again = poutine.trace(poutine.replay(model.model, trace=guided)).get_trace(x)
    assert other.log_prob_sum() == again.log_prob_sum()


def test_a_model_of_another_label_computes_anew() -> None:
    model, x = nvae(num_classes=3).eval(), images(4)
    labels, others = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    guided = poutine.trace(model.guide).get_trace(x, labels)
    replayed = poutine.trace(poutine.replay(model.model, trace=guided))
    first, again = (replayed.get_trace(x, others).log_prob_sum() for _ in range(2))
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first, replayed.get_trace(x, labels).log_prob_sum())


def test_a_label_made_anew_is_the_same_label() -> None:
    model, x, labels = nvae(num_classes=3), images(4), torch.zeros(4, dtype=torch.long)
    guided = poutine.trace(model.guide).get_trace(x, labels.clone())
    poutine.replay(model.model, trace=guided)(x, labels.clone())
    assert model.shared_pass.misses == 0


# As a prior in another program


@pytest.mark.parametrize("conditional", [False, True])
def test_drawn_latents_are_those_of_the_model(conditional: bool) -> None:
    model, x = nvae(num_classes=3 if conditional else None).eval(), images(4)
    context = torch.arange(4) % 3 if conditional else None

    def program() -> None:
        with pyro.plate("data", 4):
            pyro.sample("x", model.draw_latents(context), obs=x.double())

    guided = poutine.trace(model.guide).get_trace(x, context)
    ours = poutine.trace(poutine.replay(program, trace=guided)).get_trace()
    with model.bounding():
        modelled = poutine.trace(poutine.replay(model.model, trace=guided)).get_trace(x, context)
    ours.compute_log_prob()
    modelled.compute_log_prob()
    latents = [guided.nodes[name]["value"] for name in model.site_names]
    for name in (*model.site_names, "x"):
        found, expected = (trace.nodes[name]["log_prob"] for trace in (ours, modelled))
        torch.testing.assert_close(found, expected)
    decoded = model.decode(latents, context).log_prob(x)
    torch.testing.assert_close(decoded, modelled.nodes["x"]["log_prob"])


def test_latents_that_do_not_fit_are_named() -> None:
    model = nvae().eval()
    latents = [torch.zeros(5, *shape) for shape in model.latent_shapes]
    assert model.decode(latents).batch_shape == (5,)
    with pytest.raises(ValueError, match="`latents` must be 3 maps"):
        model.decode(latents[:2])
    with pytest.raises(ValueError, match="`z_2`"):
        model.decode([latents[0], latents[0], latents[2]])


# Batch norm, memory, sampling


def test_checkpointing_gives_equal_gradients_and_statistics() -> None:
    plain, x = nvae(num_flows=1, num_groups=(1, 1)), images(4)
    kept = nvae(num_flows=1, num_groups=(1, 1), checkpointing=True)
    kept.load_state_dict(plain.state_dict())
    for a, b in zip(
        loss_and_gradients(plain, MeanFieldELBO, x),
        loss_and_gradients(kept, MeanFieldELBO, x),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    for model in (plain, kept):
        torch.manual_seed(2)
        ELBOLoss(model, validate=False)(x).backward()
    for (name, a), (_, b) in zip(plain.named_buffers(), kept.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


def test_temperature_scales_the_priors() -> None:
    model = nvae(num_cells=0)
    frozen = [model.eval()._at(1e-9), model._at(1e-9)]
    values = []
    for context in frozen:
        with context, torch.no_grad():
            values.append(model._drawn((2,), None))
    torch.testing.assert_close(values[0], values[1], atol=1e-6, rtol=0)
    assert float((model._drawn((2,), None) - values[0]).abs().max()) > 1e-4
    with pytest.raises(ValueError, match="temperature"):
        model.sample(1, temperature=0.0)


def test_statistics_for_sampling_come_from_samples() -> None:
    model = nvae().eval()
    before = copy.deepcopy(model.state_dict())
    assert model.reestimate_batch_norm(30, temperature=0.5, batch_size=8) == 0
    moved = {n for n, b in model.state_dict().items() if not torch.equal(b, before[n])}
    assert moved == {n for n in before if "decoder" in n and "running" in n}
    assert not any(m.training for m in model.modules())


def test_a_batch_that_is_not_finite_leaves_statistics_alone(monkeypatch) -> None:
    model = nvae(num_cells=0).eval()
    drawn, count = model._drawn, itertools.count()

    def sometimes_nan(*arguments: Any) -> Tensor:
        if next(count) % 3 == 0:
            with torch.no_grad():
                start = model.hierarchy.decoder.start.clone()
                model.hierarchy.decoder.start.fill_(torch.nan)
                value = drawn(*arguments)
                model.hierarchy.decoder.start.copy_(start)
                return value
        return drawn(*arguments)

    monkeypatch.setattr(model, "_drawn", sometimes_nan)
    assert model.reestimate_batch_norm(6, batch_size=4) == 2
    assert all(bool(torch.isfinite(b).all()) for b in model.buffers() if b.is_floating_point())


def test_images_are_padded_and_cut() -> None:
    """28 pixels to 32, as for MNIST: the margin is level 0 on all sides, and costs nothing."""
    options = SMALL | {"num_levels": 2, "num_groups": (1, 1), "num_blocks": 2}
    model = testing.randomize_parameters(NVAE((1, 28, 28), **grouped(NVAE, options)), 0.2).eval()
    assert model.latent_shapes == [(2, 4, 4), (2, 8, 8)]
    x = torch.ones(2, 1, 28, 28)
    seen = []
    model.hierarchy.encoder.stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert model.log_weights(x).shape == (1, 2)
    expected = torch.full((2, 1, 32, 32), -1.0)
    expected[:, :, 2:30, 2:30] = 1
    assert torch.equal(seen[0], expected)
    assert model.reconstruct(x).shape == (2, 1, 28, 28)


def test_labels_condition_both_towers_and_can_be_enumerated() -> None:
    model = nvae(num_classes=3, num_cells=0).eval()
    x, labels = images(4), torch.arange(4) % 3
    assert model.sample(2, labels).shape == (2, 4, 1, 4, 8)
    torch.manual_seed(0)
    weights = model.log_weights(x, labels, num_particles=2)
    torch.manual_seed(0)
    assert not torch.allclose(weights, model.log_weights(x, (labels + 1) % 3, num_particles=2))

    def guide(x: Tensor) -> None:
        label = pyro.sample("label", pyro.distributions.Categorical(torch.ones(3)))
        model.guide(x, label.expand(*label.shape[:-1], 4) if label.dim() else label.expand(4))

    def generative(x: Tensor) -> None:
        label = pyro.sample("label", pyro.distributions.Categorical(torch.ones(3)))
        model.model(x, label.expand(*label.shape[:-1], 4) if label.dim() else label.expand(4))

    enumerated = pyro.infer.config_enumerate(guide, "parallel")
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(generative, enumerated, x)
    assert torch.isfinite(torch.tensor(loss))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_in_lower_precision(dtype: torch.dtype) -> None:
    torch.set_default_dtype(torch.float32)
    model, x = NVAE((1, 4, 8), **grouped(NVAE, SMALL | {"num_flows": 1})), images(4)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = ELBOLoss(model)(x)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_a_checkpointed_step_keeps_a_quarter() -> None:
    sizes = {"channels": 8, "num_groups": (2, 2), "num_cells": 2}
    kept = []
    for checkpointing in (False, True):
        model = nvae(**sizes, checkpointing=checkpointing)
        loss = ELBOLoss(model, validate=False)
        kept.append(saved_bytes(loss, lambda loss=loss: loss(images(16))))
    assert kept[1] + _inputs(nvae(**sizes), images(16)) < kept[0] / 4


def _inputs(model: NVAE, x: Tensor) -> int:
    """Bytes of the cells' inputs, which checkpointing keeps."""
    total = []
    for module in model.modules():
        if isinstance(module, DecoderCell | EncoderCell):
            module.register_forward_pre_hook(lambda _, args: total.append(args[0].nbytes))
    ELBOLoss(model, validate=False)(x)
    return sum(total)


def test_impossible_sizes() -> None:
    for options, message in (
        ({"num_groups": (0,)}, "num_groups"),
        ({"num_blocks": -1}, "num_blocks"),
        ({"regularization": -1.0}, "regularization"),
        ({"regularization": 0.0, "regularization_start": 1.0}, "regularization"),
    ):
        with pytest.raises(ValueError, match=message):
            NVAE((1, 4, 4), **grouped(NVAE, options))
    with pytest.raises(ValueError, match="event_shape"):
        NVAE((4,))
    assert "NVAE" in models.__all__
