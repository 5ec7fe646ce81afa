"""Variational dequantisation: a learned law within the cells, tighter, and of one evaluation."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from pyro.distributions.transforms import conditional_affine_coupling, conditional_planar, spline
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.optim import Adam
from torch import Tensor, nn

from pyro_genmodels import nets, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.models import ELBOLoss, FlowModel, realnvp
from pyro_genmodels.transforms import (
    ActNorm,
    ConditionalFlow,
    ConditionalRealNVP,
    Dequantize,
    RealNVP,
)

LEVELS = 4
ESTIMATORS = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO, RenyiELBO]


def elementwise() -> ConditionalFlow:
    """A scale and a shift that depend on the datum: for events of one element."""
    return ConditionalFlow(ActNorm(1, event_dim=1, initialized=True, context_shape=(1,)))


def one_pixel() -> FlowModel:
    return FlowModel((1,), spline(1), num_levels=LEVELS, dequantization=elementwise())


def two_pixels(dequantization: str = "variational") -> FlowModel:
    flow = RealNVP(2, num_couplings=2, num_blocks=1, width=8, activation="tanh")
    return FlowModel((2,), flow, num_levels=LEVELS, dequantization=dequantization)


MODELS = {"one pixel": one_pixel, "two pixels": two_pixels}


def moved(make: Callable[[], FlowModel], scale: float = 0.1) -> FlowModel:
    torch.manual_seed(0)
    return testing.randomize_parameters(make().double(), scale).eval()


def all_data(dim: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(LEVELS), repeat=dim)), dtype=torch.float64)


def midpoints(dim: int, per_cell: int, cells: int = 1) -> Tensor:
    """Points of a grid that fills the cells from 0 up, the same number in each."""
    axis = (torch.arange(per_cell * cells, dtype=torch.float64) + 0.5) / per_cell
    return torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)


def exact_evidence(model: FlowModel, x: Tensor) -> Tensor:
    """The flow's mass within the cell of each datum, integrated on a grid."""
    dim = model.event_shape[0]
    grid = midpoints(dim, 10_000 if dim == 1 else 200)
    with torch.no_grad():
        log_density = model.density().log_prob(x[:, None] + grid)
    return log_density.logsumexp(1) - math.log(len(grid))


@pytest.mark.parametrize("name", MODELS)
def test_the_bounds_lie_below_the_exact_probability(name: str) -> None:
    model = moved(MODELS[name])
    x = all_data(model.event_shape[0])
    log_evidence = exact_evidence(model, x)
    testing.check_bounds(model, x, log_evidence=log_evidence, num_particles=20_000)
    with pytest.raises(AssertionError, match="log-evidence"):
        testing.check_bounds(model, x, log_evidence=log_evidence - 0.2, num_particles=20_000)


@pytest.mark.parametrize("name", MODELS)
def test_the_bounds_of_all_data_sum_to_the_mass_within_the_range(name: str) -> None:
    model = moved(MODELS[name])
    x = all_data(model.event_shape[0])
    with torch.no_grad():
        weights = model.log_weights(x, num_particles=20_000).logsumexp(0).exp() / 20_000
        draws = model.density().sample((200_000,))
    inside = ((draws >= 0) & (draws < LEVELS)).all(-1).double().mean()
    torch.testing.assert_close(weights.sum(), inside, atol=0.01, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_guide_is_a_law_on_the_cell(name: str) -> None:
    """Its density integrates to one over all cells, and is zero outside of its own."""
    model = moved(MODELS[name])
    dim = model.event_shape[0]
    per_cell = 4000 if dim == 1 else 200
    grid = midpoints(dim, per_cell, LEVELS)
    for x in (torch.zeros(dim), torch.full((dim,), LEVELS - 2.0)):
        with torch.no_grad():
            density = model.dequantizer(x.double()).log_prob(grid).exp()
        assert bool((density[(grid.floor() != x).any(-1)] == 0).all())
        torch.testing.assert_close(density.sum().item() / per_cell**dim, 1.0, atol=1e-2, rtol=0)


MUTANTS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "half of the cell": lambda v, log_det, x: ((v + x) / 2, log_det),
    "two cells": lambda v, log_det, x: (2 * v - x, log_det),
    "no log-determinant": lambda v, log_det, x: (v, 0 * log_det),
    "its sign flipped": lambda v, log_det, x: (v, -log_det),
    "another datum's cell": lambda v, log_det, x: (v - x + x.flip(0), log_det),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mistakes_show(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, original = moved(one_pixel), Dequantize.forward_and_log_det
    x = all_data(1)
    log_evidence = exact_evidence(model, x)

    def mistaken(self: Dequantize, noise: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return MUTANTS[mutant](*original(self, noise, context), context)

    monkeypatch.setattr(Dequantize, "forward_and_log_det", mistaken)
    with pytest.raises(AssertionError, match=r"standard errors|effective"):
        testing.check_bounds(model, x, log_evidence=log_evidence, num_particles=20_000)


@pytest.mark.parametrize("shape", [(3,), (1, 4, 4), (3, 3, 5)], ids=str)
def test_training_starts_at_the_uniform_law(shape: tuple[int, ...]) -> None:
    model = realnvp(shape, num_levels=256, dequantization="variational")
    q = model.dequantizer(torch.randint(256, (50, *shape)).float())
    v = q.rsample()
    torch.testing.assert_close(q.log_prob(v), torch.zeros(50), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_a_million_draws_round_down_to_the_datum(scale: float) -> None:
    """Float32, 256 levels, also from a flow that pushes its draws to the ends of the cells."""
    torch.manual_seed(0)
    model = realnvp((64,), num_levels=256, dequantization="variational")
    if scale:
        testing.randomize_parameters(model.dequantizer, scale)
    x = torch.arange(64 * 16_000).remainder(256).reshape(16_000, 64).float()
    with torch.no_grad():
        v = model.dequantizer(x).rsample()
    assert torch.equal(v.floor(), x)
    assert bool(torch.isfinite((v / 256).logit()).all())
    if scale:
        below = torch.nextafter(x + 1, x)
        assert bool((v == below).any()), "the ends were not put to the test"


def test_the_density_of_a_draw_is_that_of_the_unrounded_value() -> None:
    """At level 255 float32 has kept 16 bits of the fraction; the hand-over keeps all."""
    torch.manual_seed(0)
    model = realnvp((4,), num_levels=256, dequantization="variational")
    exact = copy.deepcopy(testing.randomize_parameters(model, 0.3)).double()
    x, densities = torch.full((20_000, 4), 255.0), []
    noise = torch.rand(20_000, 4).logit()
    with torch.no_grad():
        for each in (model, exact):
            q = each.dequantizer(x.to(each.dtype))
            q.base_dist.rsample = lambda shape, dtype=each.dtype: noise.to(dtype)
            v = q.rsample()
            densities += [q.log_prob(v), q.log_prob(v.clone())]
    handed, reread, *in_float64 = densities
    for right in in_float64:
        torch.testing.assert_close(handed.double(), right, atol=1e-4, rtol=1e-4)
    assert bool(torch.isfinite(reread).all())
    assert float((handed - reread).abs().max()) > 1e-2


class Counter:
    """Counts the evaluations of every network of a model."""

    def __init__(self, model: nn.Module) -> None:
        kinds = (nets.MLP, nets.ResNet)
        found = [module for module in model.modules() if isinstance(module, kinds)]
        self.counts = [0] * len(found)
        for index, module in enumerate(found):
            module.register_forward_hook(lambda *_, index=index: self.count(index))

    def count(self, index: int) -> None:
        self.counts[index] += 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("shape", [(3,), (1, 4, 4)], ids=str)
def test_a_step_evaluates_each_network_once(estimator: type, shape: tuple[int, ...]) -> None:
    model = realnvp(shape, num_levels=LEVELS, dequantization="variational", width=8)
    counter = Counter(model)
    particles = 2 if estimator is RenyiELBO else 1
    elbo = estimator(
        max_plate_nesting=1, num_particles=particles, vectorize_particles=particles > 1
    )
    svi = SVI(model.model, model.guide, Adam({"lr": 1e-3}), elbo)
    for step in range(1, 4):
        svi.step(torch.randint(LEVELS, (8, *shape)))
        assert counter.counts == [step] * len(counter.counts)
    with torch.no_grad():
        model.log_weights(torch.zeros(8, *shape), num_particles=5)
    assert counter.counts == [4] * len(counter.counts)


@pytest.mark.parametrize("name", ["ours", "pyro's", "one way"])
def test_any_conditional_transform_dequantises(name: str) -> None:
    torch.manual_seed(0)
    make = {
        "ours": lambda: ConditionalRealNVP(3, num_couplings=2, width=8, context_shape=(3,)),
        "pyro's": lambda: conditional_affine_coupling(3, 3, hidden_dims=[8]),
        "one way": lambda: conditional_planar(3, 3, hidden_dims=[8]),
    }[name]
    flow = RealNVP(3, num_couplings=2, width=8, logit_margin=0.05)
    model = FlowModel((3,), flow, num_levels=LEVELS, dequantization=make())
    loss, x = ELBOLoss(model), torch.randint(LEVELS, (16, 3))
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    assert loss.unreached_parameters() == []
    assert model.log_weights(x.reshape(2, 8, 3), num_particles=7).shape == (7, 2, 8)
    assert torch.equal(model.reconstruct(x), x.float())


def test_every_parameter_of_the_guide_learns() -> None:
    model = testing.randomize_parameters(two_pixels())
    ELBOLoss(model)(torch.randint(LEVELS, (32, 2))).backward()
    gradients = [p.grad for p in model.dequantizer.parameters()]
    assert len(gradients) > 4
    assert all(g is not None and bool((g != 0).any()) for g in gradients)


def test_estimators_agree_under_another_weight() -> None:
    model = moved(two_pixels)
    model.latent_scale.beta = 0.5
    testing.check_estimators_agree(model, torch.randint(LEVELS, (3, 2)), num_runs=40)


def trained_elbo(dequantization: str) -> float:
    """ELBO on the four data whose pixels agree; the optimum is minus log 4."""
    torch.manual_seed(0)
    model = two_pixels(dequantization)
    loss = ELBOLoss(model)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    x = torch.arange(LEVELS)[:, None].expand(-1, 2)
    for _ in range(200):
        optimizer.zero_grad()
        loss(x.repeat(32, 1)).backward()
        optimizer.step()
    with torch.no_grad():
        return float(model.eval().log_weights(x, num_particles=5000).mean())


def test_the_learned_law_beats_the_uniform_one() -> None:
    uniform, variational = trained_elbo("uniform"), trained_elbo("variational")
    assert uniform + 0.25 < variational < -math.log(LEVELS)


def test_the_guide_is_part_of_the_configuration_and_of_the_state() -> None:
    for choice in ("variational", ConditionalRealNVP(3, width=8, context_shape=(3,))):
        flow = RealNVP(3, num_couplings=2, width=8)
        model = FlowModel((3,), flow, num_levels=LEVELS, dequantization=choice)
        other = build(configuration(testing.randomize_parameters(model)))
        other.load_state_dict(model.state_dict())
        x, draws = torch.randint(LEVELS, (5, 3)), []
        for each in (model, other):
            torch.manual_seed(0)
            draws.append(each.log_weights(x))
        assert torch.equal(*draws)
        assert any(name.startswith("dequantizer.") for name in model.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dequantization": "none"}, "be 'uniform', 'variational' or a conditional"),
        ({"dequantization": "variational", "num_levels": None}, "be 'uniform' for continuous data"),
        (
            {"dequantization": ConditionalRealNVP(2, context_shape=(3,))},
            r"have events of shape \(3,\); got \(2,\)",
        ),
        (
            {"dequantization": ConditionalRealNVP(3, context_shape=(2,))},
            r"take contexts of shape \(3,\)",
        ),
        (
            {"dequantization": ConditionalRealNVP(3, num_classes=2)},
            "take no labels",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"`dequantization` must {message}"):
        FlowModel((3,), RealNVP(3), **{"num_levels": 4} | options)


def test_one_element_is_dequantised_by_a_flow_too() -> None:
    model = FlowModel((1,), spline(1), num_levels=4, dequantization="variational")
    testing.check_bounds(testing.randomize_parameters(model, 0.1).eval(), torch.tensor([[0], [3]]))


def test_uniform_noise_on_the_box() -> None:
    """The identity on the box: every datum has the same probability, beyond it there is none."""
    model = FlowModel((2,), spline(2, bound=1e-3), num_levels=LEVELS, base="uniform")
    x = all_data(2)
    expected = torch.full((3, len(x)), -2 * math.log(LEVELS))
    torch.testing.assert_close(model.log_weights(x, num_particles=3), expected)
    assert model.density().log_prob(torch.tensor([1.0, 5.0])).item() == -math.inf
