"""Diffusion models in training: one noise level per example, and only where a guide took it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    EmpiricalMarginal,
    Importance,
    JitTrace_ELBO,
    JitTraceMeanField_ELBO,
    Predictive,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from pyro_genmodels import models, testing
from pyro_genmodels.distributions import ForwardDiffusion
from pyro_genmodels.models.diffusion.level_sampler import StepSampler
from pyro_genmodels.nets import LinearLogSNR, signal_and_noise
from pyro_genmodels.testing.sampling import standard_error
from tests.distributions.diffusion_oracles import (
    MixtureDenoiser,
    estimate_by,
    exact_elbo,
    expected_error,
    gaussian,
    step_costs,
    two_modes,
)

pytestmark = pytest.mark.usefixtures("double")
FIRST, LAST = -3.0, 4.0


def with_oracle(data: MixtureDenoiser, num_steps: int = 4, **options: Any) -> models.DiffusionModel:
    """A model of continuous data whose network is the exact denoiser."""
    schedule = LinearLogSNR(FIRST, LAST)
    shape = data.means.shape[1:]
    model = models.DiffusionModel(shape, num_steps=num_steps, schedule=schedule, **options)
    estimate_by(model, data)
    return model.double()


def small(**options: Any) -> models.DiffusionModel:
    """A small model away from its initial values, in training mode."""
    torch.manual_seed(0)
    network = models.DenoisingNetwork(hidden=(8,), dropout=0.0)
    options = {"num_levels": 3, "num_steps": 4, "network": network} | options
    model = models.DiffusionModel((2,), **options).double()
    return testing.randomize_parameters(model, 0.1).train()


FORMS: dict[str, Callable[[], models.DiffusionModel]] = {
    "gaussian oracle": lambda: with_oracle(gaussian(2)),
    "levels": small,
    "continuous data": lambda: small(num_levels=None, schedule=LinearLogSNR(FIRST, LAST)),
    "bits": lambda: small(encoding="bits"),
    "learned vectors": lambda: small(encoding=models.LevelEncoding("learned", size=2)),
    "forward variance": lambda: small(denoising=models.Denoising("velocity", variance="forward")),
    "learned variance": lambda: small(denoising=models.Denoising("data", variance="learned")),
}


def data_for(model: models.DiffusionModel, number: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if model.num_levels is None:
        return torch.randn(number, *model.event_shape, generator=generator)
    return torch.randint(model.num_levels, (number, *model.event_shape), generator=generator) * 1.0


def agree(first: Tensor, second: Tensor, errors: float = 3.5) -> None:
    """Two samples have one mean, to standard errors."""
    spread = (standard_error(first) ** 2 + standard_error(second) ** 2).sqrt() + 1e-9
    deviation = (first.mean(0) - second.mean(0)).abs() / spread
    assert deviation.max() < errors, (first.mean(0), second.mean(0), deviation)


# What the guide's factor estimates


@pytest.mark.parametrize("importance_sampling", [False, True])
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_one_level_is_unbiased_for_the_bound_of_these_steps(
    name: str, importance_sampling: bool
) -> None:
    data = {"gaussian": gaussian, "mixture": two_modes}[name]()
    objective = models.DiffusionObjective(importance_sampling=importance_sampling)
    model = with_oracle(data, num_steps=7, objective=objective).train()
    x = data.sample(2)
    levels = model.levels().detach()
    costs = torch.stack([step_costs(data, levels, row) for row in x])
    batch = torch.Size((4000, 2))
    if importance_sampling:
        for _ in range(3):  # the sampler has learned which steps matter
            model._one_level(x, None, batch)
        p = model.step_sampler.probabilities()
        assert p.max() > 1.5 / 7
        assert abs(float(p.sum()) - 1) < 1e-12
    with torch.no_grad():
        terms = model._one_level(x, None, batch)
        agree(terms, costs.sum(-1)[None].expand(2, 2))
        agree(
            torch.stack([model.bound_estimate(x) for _ in range(800)]),
            _twice(exact_elbo(data, levels, x)),
        )
        # Each of the steps alone, too.
        index = torch.arange(1, 8)[:, None].expand(4000, 7, 2)
        agree(model._step_terms(x, None, index), _twice(costs.T))


def _twice(values: Tensor) -> Tensor:
    """What has no spread."""
    return values[None].expand(2, *values.shape)


def test_importance_sampling_lowers_the_variance_alone() -> None:
    data = two_modes()
    x = data.sample(1)
    batch, spreads = torch.Size((4000, 1)), []
    for adaptive in (False, True):
        objective = models.DiffusionObjective(importance_sampling=adaptive)
        model = with_oracle(data, num_steps=50, objective=objective).train()
        with torch.no_grad():
            for _ in range(4):
                terms = model._one_level(x, None, batch)
        spreads.append(terms.var())
    assert spreads[1] < spreads[0]


@pytest.mark.parametrize("batch", [(64,), (7,), (4, 16), (1,), ()])
def test_draws_are_stratified(batch: tuple[int, ...]) -> None:
    """Over all of a batch, particles included; and each alone is a draw of any step."""
    sampler, number = StepSampler(8), math.prod(batch)
    counts = torch.zeros(8)
    for _ in range(400):
        drawn = sampler.draw(torch.Size(batch))
        assert drawn.step.shape == torch.Size(batch)
        found = torch.bincount(drawn.step.flatten() - 1, minlength=8)
        assert (found - number / 8).abs().max() < 1 + 1e-9, "stratified: shares to one draw"
        counts += torch.bincount(drawn.step.reshape(-1)[:1] - 1, minlength=8)
        assert (drawn.place * 8 < drawn.step).all() or math.prod(batch) == 1
        assert ((drawn.place * 8).floor() <= drawn.step).all()
    assert (counts / 400 - 1 / 8).abs().max() < 0.06


def test_weighted_terms_sum_to_the_terms_of_all_steps() -> None:
    """Of any probabilities: stratified draws of 100,000 examples are a sum, nearly."""
    for num_steps in (1, 5, 100, 257):
        sampler = StepSampler(num_steps)
        terms = torch.linspace(0.5, 2, num_steps) ** 4
        for _ in range(10):
            drawn = sampler.draw(torch.Size((2000,)))
            sampler.learn(drawn, terms[drawn.step - 1])
        drawn = sampler.draw(torch.Size((100_000,)))
        estimate = (drawn.weight * terms[drawn.step - 1]).mean()
        assert abs(float(estimate / terms.sum()) - 1) < 5e-3
        # And in continuous time: place has the same density.
        area = (drawn.weight * drawn.place.square() / num_steps).mean()
        assert abs(float(area) - 1 / 3) < 5e-3


# Objectives


def one_level_terms(model: models.DiffusionModel, x: Tensor, number: int) -> Tensor:
    return model._one_level(x, None, torch.Size((number, len(x)))).detach()


def test_continuous_objective_is_the_limit_of_many_steps() -> None:
    data = two_modes()
    x = data.sample(2)
    objective = models.DiffusionObjective(continuous=True)
    model = with_oracle(data, num_steps=6, objective=objective).train()
    limit = torch.stack([_integral(data, row, lambda g: 0.5 * (-g).exp()) for row in x])
    agree(one_level_terms(model, x, 4000), _twice(limit))
    # Which is what whole chains have with many steps, and not with few.
    levels = torch.linspace(FIRST, LAST, 2001)
    many = torch.stack([step_costs(data, levels, row).sum() for row in x])
    assert torch.allclose(many, limit, rtol=2e-3)
    assert (
        torch.stack([step_costs(data, model.levels(), row).sum() for row in x]) > 1.1 * limit
    ).all()
    assert model.beside_elbo() == ["continuous"]


def _integral(data: MixtureDenoiser, x: Tensor, weight: Callable[[Tensor], Tensor]) -> Tensor:
    """Over the noise level, of the expected squared error of the data times a weight."""
    levels = torch.linspace(FIRST, LAST, 801)
    errors = torch.stack([expected_error(data, x, g) for g in levels])
    return torch.trapezoid(weight(levels) * errors, levels)


@pytest.mark.parametrize("continuous", [False, True])
def test_simple_objective_is_the_mean_squared_error_of_the_noise(continuous: bool) -> None:
    data = two_modes()
    x = data.sample(2)
    objective = models.DiffusionObjective("simple", continuous=continuous)
    model = with_oracle(data, num_steps=300, objective=objective).train()
    expected = []
    for row in x:  # with the network's own noise, level by level
        errors = []
        for g in torch.linspace(FIRST, LAST, 101):
            alpha, sigma = signal_and_noise(g)
            noise = torch.randn(2000, 1)
            z = alpha * row + sigma * noise
            found = (z - alpha * data(z, g.expand(2000)).x) / sigma
            errors.append((noise - found).square().sum(-1))
        expected.append(torch.stack(errors, -1).mean(-1))
    agree(one_level_terms(model, x, 8000), torch.stack(expected, -1))


@pytest.mark.parametrize("continuous", [False, True])
def test_flow_matching_is_the_squared_error_of_a_straight_paths_velocity(continuous: bool) -> None:
    r""":math:`y = (1 - t) \epsilon + t x`, with time uniform where the schedule reaches."""
    data = two_modes()
    x = data.sample(2)
    objective = models.DiffusionObjective("flow_matching", continuous=continuous)
    model = with_oracle(data, num_steps=400, objective=objective).train()
    # g = 2 log((1 - t) / t)
    ends = [1 / (1 + math.exp(g / 2)) for g in (LAST, FIRST)]
    time = torch.linspace(*ends, 201)
    expected = []
    for row in x:
        errors = []
        for t in time:
            noise = torch.randn(2000, 1)
            path = (1 - t) * noise + t * row
            level = 2 * ((1 - t) / t).log()
            z = path / ((1 - t) ** 2 + t**2).sqrt()  # of preserved variance
            estimate = data(z, level.expand(2000)).x
            velocity, found = row - noise, (estimate - path) / (1 - t)
            errors.append((velocity - found).square().sum(-1))
        expected.append(torch.trapezoid(torch.stack(errors, -1), time))
    agree(one_level_terms(model, x, 8000), torch.stack(expected, -1))


@pytest.mark.parametrize("continuous", [False, True])
def test_hybrid_objective_is_the_simple_one_and_a_little_of_the_bound(continuous: bool) -> None:
    """Whose gradient reaches the variance alone, as the simple one's the estimate."""
    x = torch.randn(5, 2)
    found: dict[str, tuple[Tensor, list[Tensor]]] = {}
    for kind in ("simple", "bound", "hybrid"):
        objective = models.DiffusionObjective(kind, continuous=continuous, bound_weight=0.25)  # type: ignore[arg-type]
        ends = LinearLogSNR(learnable=False)  # of the same parameters for all
        model = small(num_levels=None, objective=objective, denoising="velocity", schedule=ends)
        torch.manual_seed(3)
        terms = model._one_level(x, None, torch.Size((5,)))
        slopes = torch.autograd.grad(
            terms.sum(), list(model.estimator.net.parameters()), allow_unused=True
        )
        found[kind] = (terms, [s for s in slopes if s is not None])
    (simple, slopes), (bound, _), (hybrid, own) = (found[k] for k in ("simple", "bound", "hybrid"))
    assert torch.allclose(hybrid, simple + 0.25 * bound, rtol=1e-9)
    for a, b in zip(own, slopes, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_hybrid_objective_trains_a_learned_variance() -> None:
    model = small(
        num_levels=None,
        objective="hybrid",
        denoising=models.Denoising("velocity", variance="learned"),
    )
    loss = models.ELBOLoss(model)
    loss(torch.randn(5, 2)).backward()
    assert loss.unreached_parameters() == []
    with pytest.raises(ValueError, match="`continuous` must be False with a learned variance"):
        small(
            num_levels=None,
            objective=models.DiffusionObjective("hybrid", continuous=True),
            denoising=models.Denoising("velocity", variance="learned"),
        )


# Estimators


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", FORMS)
def test_estimators_agree(name: str, training: bool) -> None:
    model = FORMS[name]().train(training)
    testing.check_estimators_agree(model, data_for(model, 40), num_runs=40)


@pytest.mark.parametrize("name", FORMS)
def test_bound_estimate_averages_to_the_bound(name: str) -> None:
    model = FORMS[name]().eval()
    testing.check_bound_estimate(model, data_for(model), num_runs=60)


def test_two_batch_dimensions_agree() -> None:
    model = small()
    x = data_for(model, 40).reshape(2, 20, 2)
    testing.check_estimators_agree(model, x, num_runs=40)


@pytest.mark.parametrize(
    "estimator", [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO]
)
def test_each_particle_has_its_own_level(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stratified over particles and examples together, also inside a user's plate."""
    objective = models.DiffusionObjective(importance_sampling=False)
    model, seen = small(num_steps=64, objective=objective), []
    original = StepSampler.draw

    def draw(self: StepSampler, batch: torch.Size) -> Any:
        drawn = original(self, batch)
        seen.append(drawn.step)
        return drawn

    monkeypatch.setattr(StepSampler, "draw", draw)
    x = data_for(model, 4)
    elbo = estimator(num_particles=16, vectorize_particles=True, max_plate_nesting=1)
    with model.unregistered():
        loss = elbo.loss(model.model, model.guide, x)
    assert math.isfinite(loss)
    assert seen.pop().flatten().sort().values.tolist() == list(range(1, 65)), "its own level"

    def program(x: Tensor) -> None:
        with pyro.plate("outer", 3, dim=-2):
            model.model(x)

    def guide(x: Tensor) -> None:
        with pyro.plate("outer", 3, dim=-2):
            model.guide(x)

    elbo = estimator(max_plate_nesting=2)
    with model.unregistered():
        losses = torch.tensor([elbo.loss(program, guide, x) for _ in range(100)])
    assert len(set(seen[0].flatten().tolist())) == 12, "its own level"
    with torch.no_grad():
        expected = -3 * model.log_weights(x, num_particles=2000).sum(1)
    agree(losses, expected)


EXPONENTIATE = [RenyiELBO, ReweightedWakeSleep, TraceTailAdaptive_ELBO, TraceTMC_ELBO]


@pytest.mark.parametrize("estimator", EXPONENTIATE)
def test_estimators_that_exponentiate_are_refused(estimator: Any) -> None:
    model = small()
    x = data_for(model)

    def make(**options: Any) -> Any:
        options.setdefault("num_particles", 2)
        return estimator(**options)

    loss = models.ELBOLoss(model, make)
    for _ in range(2):
        with pytest.raises(ValueError, match="`make_elbo` must make an ELBO"):
            loss(x)


@pytest.mark.parametrize("estimator", EXPONENTIATE)
def test_estimators_that_exponentiate_are_refused_under_svi(estimator: Any) -> None:
    model = small()
    x = data_for(model)
    loss = estimator(num_particles=2, max_plate_nesting=1)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-3}), loss)
    with pytest.raises(ValueError, match=f"`loss` must be an ELBO.*{estimator.__name__}"):
        svi.step(x)


def test_importance_sampling_is_refused_while_one_level_is_trained() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"inside model\.bounding.*got Importance"):
        Importance(model.model, model.guide, num_samples=2).run(data_for(model))
    with model.bounding(), torch.no_grad():
        Importance(model.model, model.guide, num_samples=2).run(data_for(model))


def test_importance_weighted_objectives_are_true_bounds() -> None:
    """IWAE in ELBOLoss goes through whole chains; Pyro's own by ``bounding``."""
    model = small()
    x = data_for(model)
    with torch.no_grad():
        weights = model.log_weights(x, num_particles=4000)
        grouped = weights.unflatten(0, (-1, 8)).logsumexp(1) - math.log(8)
        loss = models.ELBOLoss(model, importance=True, num_particles=8)
        own = torch.stack([-loss(x) for _ in range(100)])
    agree(own, grouped.mean(1))
    elbo = RenyiELBO(alpha=0.0, num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    with model.unregistered(), model.bounding():
        renyi = [-elbo.loss_and_grads(model.model, model.guide, x) for _ in range(60)]
        loss = models.ELBOLoss(model, TraceTMC_ELBO)
        assert bool(loss(x).isfinite())
    with pytest.raises(ValueError, match="each example's is an estimate here"):
        loss(x)
    # Renyi's bound is of the whole batch, or of each example: both lie below the evidence.
    bounds, evidence = torch.tensor(renyi), (weights.logsumexp(0) - math.log(len(weights))).sum()
    assert bounds.mean() < evidence + 3 * standard_error(bounds)
    assert bounds.mean() > weights.mean(0).sum() - 3 * standard_error(bounds)


def test_compiled_estimators_are_refused_in_training() -> None:
    model = small()
    for estimator in (JitTrace_ELBO, JitTraceMeanField_ELBO):
        with pytest.raises(ValueError, match="must"), model.unregistered():
            estimator(max_plate_nesting=1).loss_and_grads(model.model, model.guide, data_for(model))


# The form belongs to the guide's record, not to the mode (trap T1)


MEAN, SCALE = torch.tensor([-1.0, 1.0]), torch.tensor([0.4, 1.5])


def trained() -> models.DiffusionModel:
    """In training mode, with what an aborted guide left in the slot."""
    model = with_oracle(gaussian(2), num_steps=24).train()
    poutine.trace(model.guide).get_trace(torch.randn(5, 2))
    return model


def drawn_right(x: Tensor) -> None:
    spread = (SCALE.double() ** 2 + math.exp(FIRST)).sqrt()
    # The chain's own spread is somewhat smaller than the data's.
    assert ((x.mean(0) - MEAN).abs() < 4 * spread / math.sqrt(len(x))).all()
    assert torch.allclose(x.std(0), spread, rtol=0.1 + 2 / math.sqrt(len(x)))


def test_programs_draw_whole_chains_in_training_mode() -> None:
    model = trained()
    with pyro.plate("data", 1000):
        trace = poutine.trace(model.model).get_trace()
    assert trace.nodes["z"]["value"].shape == (1000, 25, 2)
    drawn_right(trace.nodes["x"]["value"])
    drawn_right(model.sample(1000))
    assert model.training


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_in_training_mode(parallel: bool) -> None:
    model = trained()
    x = Predictive(model.model, num_samples=400 if parallel else 100, parallel=parallel)()["x"]
    drawn_right(x.reshape(-1, 2))


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_with_a_guide_in_training_mode(parallel: bool) -> None:
    """Latents follow the guide; data are drawn given their last state."""
    model, x = trained(), torch.tensor([[0.3, -0.7], [1.0, 2.0]])

    predict = Predictive(
        poutine.uncondition(model.model), guide=model.guide, num_samples=400, parallel=parallel
    )
    drawn = predict(x)
    found = drawn["x"].reshape(-1, *x.shape)
    scale = math.sqrt(2 * math.exp(FIRST))
    assert torch.allclose(found.mean(0), x, atol=5 * scale / 20)
    assert torch.allclose(found.std(0), torch.full((2, 2), scale), rtol=0.2)


def scored_alike(model: models.DiffusionModel, program: Callable[[], Any]) -> None:
    """A program's density is the same in training mode as in eval mode."""
    totals = []
    for training in (True, False):
        model.train(training)
        poutine.trace(model.guide).get_trace(torch.zeros(2, 2))  # left behind
        totals.append(poutine.trace(program).get_trace().log_prob_sum())
    assert torch.allclose(*totals, rtol=1e-10)


def test_conditioned_chains_are_scored_in_training_mode() -> None:
    model, x = trained(), torch.zeros(2, 2)
    z = ForwardDiffusion(x, model.levels().detach(), event_dim=1).sample()
    expected = model.reverse().log_prob(z) + model.decode(z[..., 0, :]).log_prob(x)
    conditioned = poutine.condition(model.model, {"z": z})
    scored_alike(model, lambda: conditioned(x))
    poutine.trace(model.train().guide).get_trace(x)  # a record of this very input
    total = poutine.trace(conditioned).get_trace(x).log_prob_sum()
    assert torch.allclose(total, expected.sum(), rtol=1e-10)


def test_own_guide_in_training_mode() -> None:
    """Also after a run of the model's own, whose record it must not meet."""
    model = trained()
    x = torch.zeros(2, 2)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 2):
            pyro.sample("z", ForwardDiffusion(x, model.levels().detach(), event_dim=1))

    def left_behind(x: Tensor) -> None:
        with poutine.block():
            model.guide(x)
        guide(x)

    with torch.no_grad():
        expected = -model.log_weights(x, num_particles=4000).sum(1)
    for own in (guide, left_behind):
        model.train()
        elbo = Trace_ELBO(max_plate_nesting=1)
        runs = [elbo.loss(model.model, own, x) for _ in range(100)]
        agree(torch.tensor(runs), expected)


def test_auto_guides_fit_whole_chains_in_training_mode() -> None:
    model = with_oracle(gaussian(2), num_steps=2).train()
    x = torch.tensor([[0.3, -0.7]])
    guide = AutoNormal(model.model)
    poutine.trace(model.guide).get_trace(x)
    fit = SVI(model.model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(300):
        fit.step(x)
    assert guide.median(x)["z"].shape == (1, 3, 2)
    losses = torch.tensor([fit.evaluate_loss(x) for _ in range(300)])
    with torch.no_grad():
        evidence = model.log_weights(x, num_particles=20_000)
    assert -losses.mean() < evidence.logsumexp(0).item() - math.log(20_000) + 0.1
    assert -losses.mean() > evidence.mean() - 6  # a Gaussian without correlations, fitted


def test_importance_sampling_from_the_model_in_training_mode() -> None:
    """By the prior, and by the model's own guide as a true bound."""
    model = with_oracle(gaussian(1), num_steps=2).train()
    x = torch.tensor([[-0.9]])
    with torch.no_grad():
        weights = model.log_weights(x, num_particles=20_000)
    evidence = weights.logsumexp(0).item() - math.log(len(weights))
    found = {}
    for name, guide in (("prior", None), ("guide", model.guide)):
        torch.manual_seed(0)
        with model.bounding(), torch.no_grad():
            posterior = Importance(model.model, guide, num_samples=400).run(x)
        log_weights = torch.stack(list(map(torch.as_tensor, posterior.log_weights)))
        found[name] = log_weights.logsumexp(0).item() - math.log(len(log_weights))
        z = EmpiricalMarginal(posterior, sites="z").mean
        assert z.shape == (1, 3, 1)
    assert found["prior"] == pytest.approx(evidence, abs=0.3)
    assert found["guide"] == pytest.approx(evidence, abs=0.3)


def test_nuts_sees_whole_chains_in_training_mode() -> None:
    model = with_oracle(gaussian(1), num_steps=2).train()
    x = torch.tensor([[0.5]])
    poutine.trace(model.guide).get_trace(x)
    with model.unregistered():
        kernel = NUTS(model.model, step_size=0.3, adapt_step_size=False, max_tree_depth=3)
        chain = MCMC(kernel, num_samples=60, warmup_steps=10, disable_progbar=True)
        chain.run(x)
    z = chain.get_samples()["z"]
    assert z.shape == (60, 1, 3, 1)
    with torch.no_grad():  # the same posterior, by weights
        particles = ForwardDiffusion(x, model.levels(), event_dim=1).sample((20_000,))
        nats = model.reverse().log_prob(particles) + model.decode(particles[..., 0, :]).log_prob(x)
        nats = nats - ForwardDiffusion(x, model.levels(), event_dim=1).log_prob(particles)
        share = nats.softmax(0)[..., None, None]
    mean = (share * particles).sum(0)
    spread = (share * (particles - mean) ** 2).sum(0).sqrt()
    assert (z.mean(0) - mean).abs().div(spread).max() < 0.7
    assert (z.std(0) / spread).log().abs().max() < 0.6


# Contexts and self-conditioning


def test_label_dropout_trains_the_null_class() -> None:
    objective = models.DiffusionObjective(context_dropout=0.5)
    model = small(num_classes=3, objective=objective)
    x, labels = data_for(model, 64), torch.arange(64) % 3
    assert model.beside_elbo() == ["context_dropout 0.5"]
    torch.manual_seed(0)
    loss = models.ELBOLoss(model)
    loss(x, labels).backward()
    assert loss.unreached_parameters() == []
    (null,) = [p for name, p in model.named_parameters() if name.endswith(".null")]
    assert null.grad is not None
    assert bool((null.grad != 0).all()), "the null class is trained"
    # Without a context the null class is scored, by bound and chains alike.
    with torch.no_grad():
        free = model.eval().log_weights(x[:2], num_particles=1000)
        agree(torch.stack([model.bound_estimate(x[:2]) for _ in range(400)]), free)
        given = model.log_weights(x[:2], labels[:2], num_particles=1000)
    assert (free.mean(0) - given.mean(0)).abs().max() > 1e-3


def test_self_conditioned_estimate_depends_on_the_noised_data_alone() -> None:
    encoding = models.LevelEncoding("bits", self_conditioning=True)
    model = small(encoding=encoding).eval()
    testing.randomize_parameters(model, 0.5)
    assert "self-conditioning" in model.beside_elbo()
    z, level = torch.randn(6, *model.data.shape), torch.linspace(-3, 3, 6)
    whole = model.estimator(z, level).x
    alone = torch.cat([model.estimator(z[i : i + 1], level[i : i + 1]).x for i in range(6)])
    assert torch.allclose(whole, alone, rtol=1e-12)
    first = model.estimator._estimate(z, level, None, None, torch.zeros_like(z)).x
    assert not torch.allclose(whole, first)
    # So the model's evidence sums to one, and its sampler draws from it.
    model = small(encoding=encoding, num_steps=8).eval()
    testing.check_evidence_normalized(model)
    testing.check_model_sampler(model)
