"""The model contract: what was seen to fail silently, stated as laws."""

from __future__ import annotations

import copy
import io
import itertools
import pickle

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import (
    SVI,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)

from pyro_genmodels.models import ELBOLoss, NonFiniteELBOError, SharedPass
from tests.models.toys import Ladder, linear_evidence

ESTIMATORS = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO]


def trained_parameters(model: Ladder, steps: int = 1) -> list[bool]:
    """Train by plain SVI and tell, for each parameter, whether it moved."""
    before = [p.detach().clone() for p in model.parameters()]
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(steps):
        svi.step(torch.randn(8, 3))
    return [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]


def after_a_step() -> Ladder:
    model = Ladder()
    trained_parameters(model)
    return model


def pickled(model: Ladder) -> Ladder:
    return pickle.loads(pickle.dumps(model))


def torch_saved(model: Ladder) -> Ladder:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def reloaded_by_assignment(model: Ladder) -> Ladder:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    return model


def in_double(model: Ladder) -> Ladder:
    return model.double().float()


@pytest.mark.parametrize(
    "make_copy",
    [
        lambda model: Ladder(),
        copy.deepcopy,
        copy.copy,
        pickled,
        torch_saved,
        reloaded_by_assignment,
        in_double,
        lambda model: model,
    ],
)
def test_every_instance_trains_after_another_did(make_copy) -> None:
    assert all(trained_parameters(make_copy(after_a_step())))


def test_registration_is_by_instance() -> None:
    first, second = Ladder(), Ladder()
    trained_parameters(first), trained_parameters(second)
    stored = list(pyro.get_param_store().keys())
    assert len(stored) == len(set(stored)) == 2 * len(list(first.parameters()))


def test_a_parameter_the_store_would_copy_is_named() -> None:
    model = Ladder()
    model.encoder.weight = torch.nn.Parameter(torch.randn(3, 4).T)
    with pytest.raises(ValueError, match=r"`encoder.weight` must be contiguous"):
        model.guide(torch.randn(2, 3))
    ELBOLoss(model)(torch.randn(2, 3)).backward()
    assert model.encoder.weight.grad is not None


def test_a_parameter_that_a_handler_replaced_is_named() -> None:
    """The networks would go on with their own: lifting them would do nothing, silently."""
    model = Ladder()
    prior = pyro.distributions.Normal(torch.zeros(()), 1.0)
    for replaced in (
        pyro.poutine.lift(model.model, prior=lambda *args, **kwargs: prior),
        pyro.poutine.substitute(model.model, data={"encoder.weight": torch.zeros(4, 3)}),
    ):
        with pytest.raises(ValueError, match=r"`encoder.weight` must be left to its module"):
            replaced(torch.randn(4, 3))


def test_the_loss_module_leaves_the_param_store_alone() -> None:
    loss = ELBOLoss(Ladder())
    loss(torch.randn(4, 3)).backward()
    assert len(list(pyro.get_param_store().keys())) == 0
    assert loss.unreached_parameters() == []


def test_a_parameter_that_no_step_reaches_is_named() -> None:
    model = Ladder()
    model.stray = torch.nn.Parameter(torch.zeros(1))
    loss = ELBOLoss(model)
    loss(torch.randn(4, 3)).backward()
    assert loss.unreached_parameters() == ["stray"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kwargs", [{}, {"beta": 4.0}, {"beta": 0.5, "warmup_steps": 10}])
@pytest.mark.parametrize("auxiliary", [False, True])
def test_estimators_agree_in_value_and_gradient(estimator, kwargs, auxiliary) -> None:
    model = Ladder(auxiliary=auxiliary, **kwargs).double()
    model.latent_scale.step += 3
    x = torch.randn(5, 3, dtype=torch.float64)

    def value_and_gradient(make) -> tuple[torch.Tensor, torch.Tensor]:
        elbo = make(max_plate_nesting=2, num_particles=20_000, vectorize_particles=True)
        step = model.latent_scale.step.clone()
        model.zero_grad()
        value = elbo.loss_and_grads(model.model, model.guide, x)
        model.latent_scale.step.copy_(step)
        return torch.as_tensor(value), model.encoder.weight.grad.clone()

    value, gradient = value_and_gradient(estimator)
    expected, expected_gradient = value_and_gradient(TraceMeanField_ELBO)
    # Spread over 12 seeds at beta = 4, the widest: .090 in value, .134 in the gradient's widest
    # entry. Three standard errors of a difference of two such.
    torch.testing.assert_close(value, expected, atol=3 * 0.090 * 2**0.5, rtol=0)
    torch.testing.assert_close(gradient, expected_gradient, atol=3 * 0.134 * 2**0.5, rtol=0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("vectorize", [False, True])
def test_the_shared_pass_is_made_once_a_step(estimator, vectorize) -> None:
    model = Ladder()
    # A vectorised estimator counts its own particle plate into the nesting on first use.
    elbo = estimator(max_plate_nesting=1, num_particles=2, vectorize_particles=vectorize)
    elbo.loss_and_grads(model.model, model.guide, torch.randn(4, 3))
    assert model.shared_pass.misses == 0
    assert model.top_down.calls == (1 if vectorize else 2)


def test_the_shared_pass_is_not_served_for_anything_else() -> None:
    model, x = Ladder(), torch.randn(4, 3)
    trace = pyro.poutine.trace(model.guide).get_trace(x)
    replayed = pyro.poutine.replay(model.model, trace=trace)

    def misses_of(run) -> int:
        pyro.poutine.replay(model.guide, trace=trace)(x)
        before = model.shared_pass.misses
        run()
        return model.shared_pass.misses - before

    assert misses_of(lambda: replayed(x)) == 0
    assert misses_of(lambda: replayed(x.clone())) == 1
    assert misses_of(lambda: model.model(x)) == 1
    assert misses_of(lambda: (replayed(x), replayed(x))) == 1
    assert misses_of(lambda: torch.no_grad()(replayed)(x)) == 1


def test_the_shared_pass_knows_what_it_was_made_from() -> None:
    shared, x, label = SharedPass(), torch.zeros(2), torch.zeros((), dtype=torch.long)

    def served(*given: object) -> bool:
        shared.begin(x, label, 0.7)
        return shared.take(*given) is not None

    assert served(x, label, 0.7)
    assert served(x, label.clone(), 0.7)
    assert not served(x, label + 1, 0.7)
    assert not served(x.clone(), label, 0.7)
    assert not served(x, None, 0.7)
    assert not served(x, label, 1.0)
    for edited in (x, label):
        shared.begin(x, label, 0.7)
        edited.numpy()[...] = 1
        assert shared.take(x, label, 0.7) is None
    shared.begin(torch.zeros(2), None)  # is no more as soon as the call is over
    assert shared.take(None, None) is None


@pytest.mark.parametrize("size", [3, 3000])
def test_an_edited_latent_is_served_nothing(size: int) -> None:
    shared, x, latents = SharedPass(), torch.zeros(2), [torch.zeros(size), torch.ones(size)]
    for edit in (lambda z: z.add_(1), lambda z: z.numpy().__setitem__(size - 1, 5.0)):
        record = shared.begin(x)
        record.add_work("first")
        for index, latent in enumerate(latents):
            record.add_latent(latent)
            record.add_work(index)
        taken = shared.take(x)
        assert shared.look_up(taken, latents[:1]) == 0
        edit(latents[1])
        assert shared.look_up(taken, latents) is None


def test_guide_and_model_share_one_cast_of_the_data() -> None:
    model, x = Ladder(), torch.randn(4, 3, dtype=torch.float64)
    Trace_ELBO(max_plate_nesting=1).loss(model.model, model.guide, x)
    assert model.shared_pass.misses == 0


def test_a_cast_is_never_older_than_the_data() -> None:
    """A write through NumPy leaves no version behind."""
    model, array = Ladder(), np.zeros((4, 3))
    x = torch.from_numpy(array)
    for value in range(3):
        array[:] = value
        model.guide(x)
        array[3, 2] = -5
        seen = pyro.poutine.trace(model.model).get_trace(x).nodes["x"]["value"]
        assert float(seen[3, 2]) == -5
        array[:] = value
        model.guide(x)
        seen = pyro.poutine.trace(model.model).get_trace(x).nodes["x"]["value"]
        assert bool((seen == value).all())
        array[:] = -1
        seen = pyro.poutine.trace(model.model).get_trace(x).nodes["x"]["value"]
        assert bool((seen == -1).all())


def test_a_cast_made_without_gradient_does_not_reach_training() -> None:
    model, x = Ladder(), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    for without in (torch.no_grad, torch.inference_mode):
        with without():
            model.guide(x)
        value = pyro.poutine.trace(model.model).get_trace(x).nodes["x"]["value"]
        assert value.requires_grad
        assert not value.is_inference()


def test_copies_leave_the_shared_pass_behind() -> None:
    model, x = Ladder(), torch.randn(4, 3)
    model.guide(x)
    assert model.shared_pass._pass is not None
    assert copy.deepcopy(model).shared_pass._pass is None
    assert pickled(model).shared_pass._pass is None


def test_bounds_are_ordered_and_reach_the_evidence() -> None:
    model = Ladder(beta=3.0, auxiliary=True).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    with torch.no_grad():
        log_weights = model.log_weights(x, num_particles=50_000)
        evidence = linear_evidence(model, x)
    elbo = log_weights.mean(0)
    tight = log_weights.logsumexp(0) - torch.tensor(50_000.0).log()
    assert log_weights.shape == (50_000, 6)
    assert bool((elbo < tight).all())
    torch.testing.assert_close(tight, evidence, atol=0.05, rtol=0)
    assert model.latent_scale.step == 0


def test_a_bound_by_pyros_own_estimator_has_no_beta() -> None:
    model = Ladder(beta=30.0, warmup_steps=7, auxiliary=True).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    elbo = Trace_ELBO(max_plate_nesting=1, num_particles=20_000, vectorize_particles=True)
    with model.bounding():
        bound = -elbo.loss(model.model, model.guide, x)
        # The exact log-density of all sites, as NUTS sees it.
        joint = pyro.poutine.trace(model.model).get_trace(x)
    expected = model.log_weights(x, num_particles=20_000).mean(0).sum().item()
    # The standard error of each is below 0.05.
    assert abs(bound - expected) < 0.3
    assert joint.nodes["z_1"]["scale"] == 1.0
    assert model.latent_scale.is_on


def test_warmup_counts_training_evaluations_only() -> None:
    model = Ladder(beta=2.0, warmup_steps=4)
    loss, x = ELBOLoss(model), torch.randn(4, 3)
    for _ in range(3):
        loss(x)
    model.eval()
    loss(x)
    model.train()
    with torch.no_grad():
        loss(x)
    model.log_weights(x)
    assert int(model.latent_scale.step) == 3
    assert "latent_scale.step" in model.state_dict()


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_any_leading_shape(batch) -> None:
    model, x = Ladder(), torch.randn(*batch, 3)
    assert ELBOLoss(model)(x).shape == ()
    assert model.log_weights(x, num_particles=2).shape == (2, *batch)
    assert model.reconstruct(x).shape == x.shape
    assert model.sample(5).shape == (5, 3)


def test_reconstruction_goes_through_the_latents() -> None:
    model, x = Ladder(), torch.randn(4, 3)
    torch.manual_seed(0)
    first = model.reconstruct(x)
    torch.manual_seed(0)
    assert torch.equal(model.reconstruct(x), first)
    assert not torch.equal(model.reconstruct(x + 1), first)


def test_sampling_and_evaluation_restore_each_part_mode() -> None:
    model = Ladder()
    model.encoder.eval()
    model.sample(2)
    model.reconstruct(torch.randn(2, 3))
    assert model.training
    assert not model.encoder.training
    assert model.decoder.training


def test_inside_another_program() -> None:
    model, x = Ladder(), torch.randn(4, 3)

    def program(x):
        with pyro.plate("repeats", 2, dim=-2):
            return model.model(x)

    trace = pyro.poutine.trace(program).get_trace(x)
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (2, 4)
    draws = Predictive(model.model, num_samples=7, parallel=True)()
    assert draws["x"].shape == (7, 3)
    posterior = Predictive(model.guide, num_samples=7, parallel=True)(x)
    assert posterior["z_1"].shape == (7, 4, 2)


def test_samples_and_bounds_are_no_sites_of_the_program_around() -> None:
    model, x = Ladder(), torch.randn(4, 3)

    def program() -> None:
        model.sample(2)
        model.reconstruct(x)
        model.log_weights(x)
        pyro.sample("own", pyro.distributions.Normal(0.0, 1.0))

    nodes = pyro.poutine.trace(program).get_trace().nodes
    assert [name for name, node in nodes.items() if node["type"] == "sample"] == ["own"]


def test_renyi_lies_between_elbo_and_evidence() -> None:
    model = Ladder().double()
    x = torch.randn(6, 3, dtype=torch.float64)
    elbo, renyi = (
        -make(max_plate_nesting=1, num_particles=2000, vectorize_particles=True).loss(
            model.model, model.guide, x
        )
        for make in (Trace_ELBO, lambda **kwargs: RenyiELBO(alpha=0, **kwargs))
    )
    assert elbo < renyi < float(linear_evidence(model, x).sum().detach()) + 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 2),), r"`x` must have trailing shape \(3,\); got shape \(4, 2\)"),
        ((torch.tensor([[0.0, float("nan"), 0.0]]),), r"`x` must be finite; got 1 NaN"),
        ((torch.zeros(4, 3), torch.zeros(4)), r"`context` must be None in an unconditional"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message) -> None:
    model = Ladder()
    for run in (model.model, model.guide, model.reconstruct, model.log_weights):
        with pytest.raises(ValueError, match=message):
            run(*arguments)


def test_a_loss_that_is_not_finite_names_its_site() -> None:
    model = Ladder()
    loss = ELBOLoss(model, Trace_ELBO, validate=False)
    torch.nn.init.constant_(model.decoder.weight, float("inf"))
    with pytest.raises(NonFiniteELBOError, match=r"site .x. \(Normal\) must be finite"):
        loss(torch.randn(4, 3))


def test_a_term_that_is_infinite_for_a_rare_draw_only_is_found_too() -> None:
    class Rare(Ladder):
        def generate(self, x, context):
            value = super().generate(x, context)
            pyro.factor("cliff", torch.where(torch.rand(len(x)) < 0.02, -torch.inf, 0.0))
            return value

    def fails(loss) -> bool:
        before = torch.get_rng_state()
        try:
            loss(torch.zeros(4, 3))
        except NonFiniteELBOError:
            torch.set_rng_state(before)
            return True
        return False

    loss = ELBOLoss(Rare(), Trace_ELBO, validate=False)
    # The very draws that failed fail again, and naming the site leaves the random state alone.
    assert any(fails(loss) for _ in range(200))
    with pytest.raises(NonFiniteELBOError, match="site 'cliff'"):
        loss(torch.zeros(4, 3))


def test_bad_construction() -> None:
    with pytest.raises(ValueError, match="`beta` must be positive"):
        Ladder(beta=0.0)
    with pytest.raises(ValueError, match="`warmup_steps` must be at least 0"):
        Ladder(warmup_steps=-1)
    with pytest.raises(ValueError, match="`model` must have a trainable parameter"):
        ELBOLoss(Ladder().requires_grad_(False))
    with pytest.raises(ValueError, match="`x` must be given to the guide"):
        Ladder().guide()
    with pytest.raises(ValueError, match="`num_samples` must be at least 1"):
        Ladder().sample(0)


def test_validation_runs_on_the_first_call_only() -> None:
    loss = ELBOLoss(Ladder())
    seen = []
    loss.model.decoder.register_forward_hook(
        lambda *_: seen.append(pyro.poutine.util.is_validation_enabled())
    )
    for _ in range(3):
        loss(torch.randn(4, 3))
    assert seen == [True, False, False]
    assert pyro.poutine.util.is_validation_enabled()


def test_names_never_repeat() -> None:
    names = [Ladder().pyro_name for _ in range(3)]
    assert all(a != b for a, b in itertools.combinations(names, 2))
