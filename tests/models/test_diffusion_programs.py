"""Diffusion models as Pyro programs: which form they take, their units and their parts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.contrib.autoname import name_count, scope
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from pyro_genmodels import models, nets, testing
from pyro_genmodels._configuration import build, configuration
from tests import cases
from tests.models.test_random_weights import with_prior

pytestmark = pytest.mark.usefixtures("double")
NETWORK = models.DenoisingNetwork(channels=4, num_blocks=1, attention=(), hidden=(8,), dropout=0.0)
UNIFORM = models.DiffusionObjective(importance_sampling=False)  # a call leaves the next as it is
STEPS = 3
BATCH = 6


def diffusion(*shape: int, **options: Any) -> models.DiffusionModel:
    """A small one at random parameters, in training mode."""
    torch.manual_seed(0)
    sizes = {"num_steps": STEPS, "network": NETWORK, "objective": UNIFORM}
    model = models.DiffusionModel(shape, **{**sizes, **options})
    return testing.randomize_parameters(model, 0.1)


def levels_of(model: models.DiffusionModel, *batch: int) -> Tensor:
    assert model.num_levels is not None
    return torch.randint(model.num_levels, (*batch, *model.event_shape)).double()


def chain_in(program: Callable[..., Any], *arguments: Any) -> tuple[Tensor, Tensor]:
    """Site "z" of a run, and the density of all."""
    trace: Any = poutine.trace(program).get_trace(*arguments)
    return trace.nodes["z"]["value"], trace.log_prob_sum()


WHOLE = (BATCH, STEPS + 1, 2)


@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("with_gradients", [False, True], ids=["no_grad", "grad"])
def test_the_model_follows_its_guide(is_training: bool, with_gradients: bool) -> None:
    model = diffusion(2, num_levels=3).train(is_training)
    x = levels_of(model, BATCH)
    with torch.set_grad_enabled(with_gradients):
        guide = poutine.trace(model.guide).get_trace(x)
        z, _ = chain_in(poutine.replay(model.model, trace=guide), x)
    assert z is guide.nodes["z"]["value"]
    one_level = is_training and with_gradients
    assert z.shape == ((BATCH, 1, 2) if one_level else WHOLE)


def test_a_model_that_is_not_replayed_runs_the_whole_chain() -> None:
    """Whatever guide ran before it with the same data."""
    model = diffusion(2, num_levels=3)
    x, given = levels_of(model, BATCH), torch.randn(WHOLE)
    conditioned = poutine.condition(model.model, data={"z": given})
    expected = chain_in(conditioned, x)[1]
    for program in (model.model, conditioned, poutine.condition(model.model, data={"x": x})):
        guide: Any = poutine.trace(model.guide).get_trace(x)
        assert guide.nodes["z"]["value"].shape == (BATCH, 1, 2)
        z, nats = chain_in(program, x)
        assert z.shape == WHOLE
        if program is conditioned:
            assert torch.equal(nats, expected)
            guide = poutine.trace(model.guide).get_trace(x)
            z, nats = chain_in(poutine.replay(program, trace=guide), x)
            assert z is given
            assert torch.equal(nats, expected)


def test_a_program_may_make_its_data_again() -> None:
    """As minibatches of a plate are, of guide and model alike."""
    model = diffusion(2, num_levels=3, num_classes=3)
    x, labels = levels_of(model, BATCH), torch.arange(BATCH) % 3

    def again(program: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Tensor, labels: Tensor) -> None:
            with pyro.plate("data", BATCH, dim=-1):
                program(x.clone(), labels.clone())

        return run

    for estimator in (Trace_ELBO, TraceMeanField_ELBO, TraceEnum_ELBO):
        elbo, losses = estimator(max_plate_nesting=1), []
        for change in (lambda program: program, again):
            pyro.set_rng_seed(0)
            loss = elbo.differentiable_loss(change(model.model), change(model.guide), x, labels)
            losses.append(loss.detach())
        testing.report.require_close("a loss of copies", losses[1], losses[0])


def test_two_models_in_one_program() -> None:
    """Each in a scope of its own, as the names of their sites are the same."""
    first, second = diffusion(2, num_levels=3), diffusion(2, num_levels=3, num_steps=2)
    x = levels_of(first, BATCH)

    def both(left: Callable[..., Any], right: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Tensor) -> None:
            with scope(prefix="left"):
                left(x)
            with scope(prefix="outer"), scope(prefix="right"), name_count():
                right(x)

        return run

    def one_after_the_other() -> Tensor:
        return sum(
            Trace_ELBO().differentiable_loss(model.model, model.guide, x).detach()
            for model in (first, second)
        )

    def together() -> Tensor:
        programs = both(first.model, second.model), both(first.guide, second.guide)
        return Trace_ELBO().differentiable_loss(*programs, x).detach()

    losses = []
    for loss in (one_after_the_other, together):
        pyro.set_rng_seed(0)
        losses.append(loss())
    testing.report.require_close("the loss of both", losses[1], losses[0])
    guide: Any = poutine.trace(both(first.guide, second.guide)).get_trace(x)
    assert guide.nodes["outer/right/z"]["value"].shape == (BATCH, 1, 2)


def test_one_model_twice_in_a_program() -> None:
    """The model follows each of the guide's two runs, also in a second replay of them."""
    model = diffusion(2, num_levels=3)
    x = levels_of(model, BATCH)

    def twice(part: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Tensor) -> None:
            for prefix in ("left", "right"):
                with scope(prefix=prefix):
                    part(x)

        return run

    loss = Trace_ELBO().differentiable_loss(twice(model.model), twice(model.guide), x)
    assert bool(loss.isfinite())
    guide = poutine.trace(twice(model.guide)).get_trace(x)
    for _ in range(2):
        trace = poutine.trace(poutine.replay(twice(model.model), trace=guide)).get_trace(x)
        assert (
            float(trace.nodes["right/z"]["fn"].log_prob(guide.nodes["right/z"]["value"]).sum()) == 0
        )


def test_a_schedule_that_does_not_rise_is_named() -> None:
    class Flat(nets.NoiseSchedule):
        def __init__(self) -> None:
            super().__init__()
            self.middle = torch.nn.Parameter(torch.tensor(0.5))

        def _level(self, time: Tensor) -> Tensor:
            return 4 * (time > self.middle) - 2.0

    model = models.DiffusionModel((2,), num_levels=3, num_steps=4, schedule=Flat())
    x = levels_of(model, BATCH)
    for call in (model.bound_estimate, models.ELBOLoss(model)):
        with pytest.raises(ValueError, match="`levels` must rise"):
            call(x)


@pytest.mark.parametrize("size", [BATCH, 2 * BATCH], ids=["all", "half"])
def test_subsampling_plates_and_scales(size: int) -> None:
    """A minibatch stands for all, in both forms."""
    model = diffusion(2, num_levels=3)
    x = levels_of(model, 1).expand(size, -1)  # all alike, so that any minibatch is like another

    def part(program: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Tensor) -> None:
            with pyro.plate("data", len(x), subsample_size=BATCH, dim=-1) as index:
                program(x[index])

        return run

    def scaled(program: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: poutine.scale(program, scale=size / BATCH)(x[:BATCH])

    for training in (True, False):
        losses = []
        for change in (part, scaled):
            pyro.set_rng_seed(0)
            if change is scaled and size > BATCH:
                torch.randperm(size)  # as the plate draws
            elbo = Trace_ELBO(max_plate_nesting=1)
            programs = change(model.train(training).model), change(model.guide)
            losses.append(elbo.differentiable_loss(*programs, x).detach())
        assert losses[0].isfinite()
        testing.report.require_close("a minibatch's loss", losses[0], losses[1])


@pytest.mark.parametrize("estimator", [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO])
@pytest.mark.parametrize("vectorized", [False, True])
def test_particles_and_two_batch_dimensions(estimator: Any, vectorized: bool) -> None:
    model = diffusion(2, num_levels=3, num_classes=3)
    x = levels_of(model, 2, 3)
    options = {"vectorize_particles": vectorized, "max_plate_nesting": 2}
    elbo = estimator(num_particles=4, **options)
    for labels in (torch.tensor(1), torch.tensor([1]), torch.arange(3), torch.ones(2, 3).long()):
        svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-4}), elbo)  # type: ignore[attr-defined]
        assert svi.step(x, labels) == pytest.approx(svi.evaluate_loss(x, labels), rel=10)
        assert model.log_weights(x, labels, num_particles=2).shape == (2, 2, 3)
        assert model.bound_estimate(x, labels).shape == (2, 3)
        assert model.rates(x, labels)["z"].shape == (2, 3, STEPS + 1)
        assert {nats.shape for nats in model.report(x, labels).values()} == {(2, 3)}
        assert model.sample(5, labels).shape == (5, *labels.shape, 2)


def test_other_inference_sees_the_whole_chain_in_training() -> None:
    model = diffusion(2, num_levels=3)
    x = levels_of(model, BATCH)
    model.guide(x)
    for parallel in (False, True):
        for guide in (None, model.guide):
            drawn = Predictive(model.model, guide=guide, num_samples=2, parallel=parallel)(x)
            assert drawn["z"].shape == (2, *WHOLE)
    model.guide(x)
    guide = AutoNormal(lambda x: model.model(x))
    svi = SVI(lambda x: model.model(x), guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())  # type: ignore[attr-defined]
    svi.step(x)
    assert guide.median(x)["z"].shape == WHOLE
    model.guide(x)
    mcmc = MCMC(
        NUTS(lambda x: model.model(x), max_tree_depth=1, jit_compile=False),
        num_samples=1,
        warmup_steps=1,
        disable_progbar=True,
    )
    mcmc.run(x)
    assert mcmc.get_samples()["z"].shape == (1, *WHOLE)


def test_compiled_estimators_are_refused_in_training() -> None:
    model = diffusion(2, num_levels=3)
    with pytest.raises(ValueError, match="`elbo` must not be compiled"):
        JitTrace_ELBO().differentiable_loss(model.model, model.guide, levels_of(model, BATCH))


def test_random_weights_are_drawn_once_a_chain() -> None:
    """Each evaluation of a chain has the same, in training too, which runs the whole chain."""
    model = diffusion(2, num_levels=3)
    net = model.estimator.net
    with_prior(net.get_submodule("last"))
    x = levels_of(model, BATCH)
    encoded = poutine.trace(model.guide).get_trace(x)
    replayed: Any = poutine.trace(poutine.replay(model.model, trace=encoded)).get_trace(x)
    assert replayed.nodes["z"]["value"].shape == WHOLE
    assert set(replayed.stochastic_nodes) == {"weight", "bias", "z"}
    with torch.no_grad():
        weights = model.log_weights(x, num_particles=300)
        base = models.GenerativeModel.log_weights(model, x, num_particles=300)
    error = (weights.var(0) / 300 + base.var(0) / 300).sqrt()
    assert ((weights.mean(0) - base.mean(0)).abs() <= 4 * error).all()
    assert model.bound_estimate(x).isfinite().all()
    assert model.rates(x)["z"].isfinite().all()


# Units


def check_units_of_scores(model: Any, data: Tensor) -> None:
    """Whatever scores data does so in their units: as the plain model less the log-determinant."""
    plain, standard = copy.deepcopy(model).eval(), copy.deepcopy(model).eval().standardize(data)
    units = standard.standardization
    seen = (data - units.shift) / units.scale
    log_det = units.scale.log().expand(model.event_shape).sum()
    for name, score in {
        "log_weights": lambda m, x: m.log_weights(x, num_particles=2),
        "bound_estimate": lambda m, x: m.bound_estimate(x),
        "decoder": lambda m, x: -m.report(x)["decoder"],
    }.items():
        nats = []
        for each, x in ((plain, seen), (standard, data)):
            pyro.set_rng_seed(0)
            nats.append(score(each, x).detach())
        testing.report.require_close(f"{name} in the data's units", nats[1], nats[0] - log_det)
    rates = [m.rates(x)["z"] for m, x in ((plain, seen), (standard, data))]
    last = [m.report(x)["last state"] for m, x in ((plain, seen), (standard, data))]
    testing.report.require_close("rates know no units", rates[1][..., -1], rates[0][..., -1])
    testing.report.require_close("the last state knows no units", last[1], last[0])


@pytest.mark.parametrize("shape", [(3,), (2, 2, 1)], ids=str)
def test_units_of_scores(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    check_units_of_scores(diffusion(*shape), 1000 + 50 * torch.randn(BATCH, *shape))


# Parts


def test_a_state_dict_has_everything_once() -> None:
    for name, make in cases.MODELS.items():
        if name.startswith("DiffusionModel"):
            state = make().part.state_dict(keep_vars=True)
            assert len({id(tensor) for tensor in state.values()}) == len(state), name


@pytest.mark.parametrize("name", [n for n in cases.MODELS if n.startswith("DiffusionModel")])
def test_configuration(name: str) -> None:
    """Whatever is not in the state dict follows from the arguments."""
    case = cases.MODELS[name]()
    model = testing.randomize_parameters(case.part, 0.1).eval()
    description = json.loads(json.dumps(configuration(model)))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        again = build(description).eval()
    again.load_state_dict(model.state_dict())
    x = torch.zeros(2, *model.event_shape)
    weights = []
    for each in (model, again):
        pyro.set_rng_seed(0)
        weights.append(each.log_weights(x, case.context))
    assert torch.equal(*weights)


def test_own_parts_are_described() -> None:
    network = models.DenoisingNetwork(network=nets.DenseDenoiser(3, 3, hidden=(8,)))
    model = models.DiffusionModel((3,), schedule=nets.Cosine(-5.0, 5.0), network=network)
    again = build(json.loads(json.dumps(configuration(model))))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(again.levels(), model.levels())


def test_a_schedule_of_two_models_learns_by_the_one_that_trains_it() -> None:
    schedule = nets.LinearLogSNR(-6.0, 5.0)
    by_bound = diffusion(2, schedule=schedule)
    simple = diffusion(2, schedule=schedule, objective="simple")
    assert by_bound.schedule is schedule
    assert all(parameter.requires_grad for parameter in schedule.parameters())
    assert not any(parameter.requires_grad for parameter in simple.schedule.parameters())


@pytest.mark.parametrize("size", [1, 3])
def test_learned_vectors_differ_from_the_start(size: int) -> None:
    encoding = models.LevelEncoding("learned", size=size)
    first, second = (
        models.DiffusionModel((2,), num_levels=5, encoding=encoding, network=NETWORK)
        for _ in range(2)
    )
    assert len(first.data.values.unique(dim=0)) == 5
    assert first.data.values.shape == (5, size)
    assert torch.equal(first.levels(), second.levels())


# Errors


def own(*sizes: int, **context: Any) -> models.DenoisingNetwork:
    return models.DenoisingNetwork(network=nets.DenseDenoiser(*sizes, hidden=(4,), **context))


ERRORS: dict[str, dict[str, Any]] = {
    "`num_steps` must be positive": {"num_steps": 0},
    "`num_steps` must be an integer": {"num_steps": 2.5},
    "`denoising` must not predict levels": {"denoising": "levels"},
    "`encoding` must be 'levels' without num_levels": {"encoding": "bits"},
    "`context_dropout` must be 0": {"objective": models.DiffusionObjective(context_dropout=0.1)},
    "`network` must fit data of shape": {"network": models.DenoisingNetwork("unet")},
    "`network` must have input_shape": {"network": own(4, 2)},
    "`network` must have output_shape": {"network": own(2, 4)},
    "`network` must have num_classes None": {"network": own(2, 2, num_classes=3)},
    "`network` must have num_classes 3": {"network": own(2, 2), "num_classes": 3},
    "`network` must have context_shape": {"network": own(2, 2), "context_shape": (3,)},
    "`network` must have null_context True": {
        "network": own(2, 2, num_classes=3),
        "num_classes": 3,
        "objective": models.DiffusionObjective(context_dropout=0.1),
    },
    "`objective` must be 'bound' or 'hybrid'": {
        "denoising": models.Denoising(variance="learned"),
        "objective": "simple",
    },
    "`continuous` must be False": {
        "denoising": models.Denoising(variance="learned"),
        "objective": models.DiffusionObjective("hybrid", continuous=True),
    },
}


@pytest.mark.parametrize("message", ERRORS)
def test_arguments_that_do_not_fit(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.DiffusionModel((2,), **ERRORS[message])


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 1, 1), {"num_levels": 2}),
        ((3, 1, 1), {"num_levels": 256}),
        ((1, 5, 3), {"num_levels": 2, "network": models.DenoisingNetwork(channels=8)}),
        ((1,), {"num_levels": 2, "num_steps": 1}),
        ((1,), {"num_steps": 1}),
        ((1,), {"num_levels": 2, "network": models.DenoisingNetwork("sequence", channels=4)}),
        ((3,), {"num_levels": 50_000}),
        ((2, 1, 3), {"num_levels": 70, "denoising": models.Denoising("noise", fourier_features=3)}),
    ],
    ids=str,
)
def test_extreme_sizes(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    model = diffusion(*shape, **options).double()
    x = torch.randn(3, *shape) if model.num_levels is None else levels_of(model, 3)
    loss = models.ELBOLoss(model)
    loss(x).backward()
    assert list(loss.unreached_parameters()) == []
    assert model.eval().log_weights(x, num_particles=2).isfinite().all()
    drawn = model.sample(2)
    assert drawn.shape == (2, *shape)
    if model.num_levels is not None:
        assert ((drawn >= 0) & (drawn < model.num_levels) & (drawn == drawn.round())).all()


def test_the_caller_s_own_schedule_trains() -> None:
    class Power(nets.NoiseSchedule):
        def __init__(self) -> None:
            super().__init__()
            self.exponent = nn.Parameter(torch.ones(()))

        def _level(self, time: Tensor) -> Tensor:
            return -5 + 8 * time**self.exponent

    for objective in ("bound", models.DiffusionObjective(continuous=True)):
        model = diffusion(2, schedule=Power(), objective=objective)
        models.ELBOLoss(model)(torch.randn(BATCH, 2)).backward()
        gradient = model.schedule.get_parameter("exponent").grad
        assert gradient is not None
        assert gradient.isfinite()
