"""FlowModel: densities on continuous data, bounds on discrete data."""

from __future__ import annotations

import itertools

import pyro
import pytest
import torch
from pyro.distributions.transforms import (
    affine_coupling,
    conditional_affine_coupling,
    permute,
    spline,
)
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch.distributions.transforms import ComposeTransform

from pyro_genmodels import testing, transforms
from pyro_genmodels.models import ELBOLoss, FlowModel
from pyro_genmodels.transforms import RealNVP

ESTIMATORS = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO]


def coupling_flow(dim: int, **kwargs) -> FlowModel:
    parts = [affine_coupling(dim, [8]), permute(dim), affine_coupling(dim, [8]), spline(dim)]
    return FlowModel((dim,), parts, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_min_max_scaled_data_have_a_density_at_both_ends(dtype: torch.dtype) -> None:
    flow = transforms.NeuralSplineFlow(2, splines="unit", num_couplings=4, width=8)
    model = FlowModel((2,), testing.randomize_parameters(flow), base="uniform").to(dtype).eval()
    density = model.density()
    x = torch.rand(4000, 2, dtype=dtype)
    x = (x - x.amin(0)) / (x.amax(0) - x.amin(0))
    few = torch.finfo(dtype).eps * torch.arange(100.0).to(dtype)
    x = torch.cat([x, torch.stack([1 - few / 2, few], 1), torch.stack([few, 1 - few / 2], 1)])
    assert bool(density.support.check(x).all())
    assert bool(density.log_prob(x).isfinite().all())
    assert float(density.log_prob(x[:4000]).exp().mean()) > 0
    beyond = torch.tensor([[0.5, 1.01], [-0.01, 0.5]], dtype=dtype)
    with pytest.raises(ValueError, match="support"):
        density.log_prob(beyond)
    density._validate_args = False
    assert density.log_prob(beyond).tolist() == [-torch.inf, -torch.inf]


def test_draws_lie_in_an_open_support_though_sigmoids_round() -> None:
    wide = transforms.DiagonalScale((2,))
    wide.log_scale.data.fill_(-5.0)  # noise times 150
    for margin in (0.0, 0.05):
        density = FlowModel((2,), [wide, transforms.Logit(1, margin=margin)]).density()
        x = density.sample((2000,))
        assert bool(density.support.check(x).all())
        assert bool(density.log_prob(x.clone()).isfinite().all())


def test_continuous_data_are_scored_by_the_flow_itself() -> None:
    model = coupling_flow(3).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    weights = model.log_weights(x, num_particles=2)
    assert torch.equal(weights, model.density().log_prob(x).expand(2, 5))


@pytest.mark.parametrize("base", ["normal", "logistic"])
def test_the_dequantised_bound_is_one_of_a_normalised_law(base) -> None:
    """exp(E log p(v)) <= P(x), and the P(x) of all x sum to the mass within the range."""
    torch.manual_seed(1)
    model = coupling_flow(2, num_levels=4, base=base).double()
    x = torch.tensor(list(itertools.product(range(4), repeat=2)))
    with torch.no_grad():
        weights = model.log_weights(x, num_particles=40_000)
        draws = model.density().sample((200_000,))
    mass = weights.logsumexp(0).exp() / 40_000
    inside = ((draws >= 0) & (draws < 4)).all(-1).double().mean()
    assert bool((weights.mean(0).exp() <= mass).all())
    torch.testing.assert_close(mass.sum(), inside, atol=0.01, rtol=0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_gives_the_same_bound(estimator) -> None:
    model = coupling_flow(3, num_levels=4).double()
    x = torch.randint(0, 4, (2, 3))
    elbo = estimator(max_plate_nesting=2, num_particles=20_000, vectorize_particles=True)
    with torch.no_grad():
        expected = -model.log_weights(x, num_particles=20_000).mean(0).sum()
    value = torch.as_tensor(elbo.loss(model.model, model.guide, x))
    torch.testing.assert_close(value.double(), expected, atol=0.1, rtol=0)


def test_samples_are_levels_and_reconstruction_is_the_datum() -> None:
    model = coupling_flow(3, num_levels=4)
    draws = model.sample(100)
    assert draws.shape == (100, 3)
    assert set(draws.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    x = torch.randint(0, 4, (7, 3))
    assert torch.equal(model.reconstruct(x), x.float())


def test_trains_by_svi_and_by_the_loss_module() -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 2, (64, 3))
    for _ in range(2):
        model = coupling_flow(3, num_levels=4)
        svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        losses = [svi.step(x) for _ in range(50)]
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    loss = ELBOLoss(coupling_flow(3, num_levels=4))
    loss(x).backward()
    assert loss.unreached_parameters() == []


def inverted(parts: list) -> list:
    return [part.inv for part in reversed(parts)]


WRAPPED = {
    "plain": lambda parts: parts,
    "inverses": inverted,
    "composed": lambda parts: [ComposeTransform(parts)],
    "inverse of a composition": lambda parts: [ComposeTransform(parts).inv],
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_other_transforms_train_on_one_tensor(wrap) -> None:
    """Pyro's transforms remember x from step to step; torch's wrappers of them are no modules."""
    parts = [RealNVP(3, width=4), spline(3), permute(3), affine_coupling(3, [8])]
    model, x = FlowModel((3,), wrap(parts)), torch.randn(8, 3)
    assert len(list(model.parameters())) == sum(
        len(list(part.parameters())) for part in parts if isinstance(part, torch.nn.Module)
    )
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(3)]
    assert len(set(losses)) == 3
    with torch.no_grad():
        assert torch.equal(model.log_weights(x), model.log_weights(x.clone()))


def test_conditional_flow() -> None:
    parts = [conditional_affine_coupling(3, 2, hidden_dims=[8]), permute(3)]
    model = FlowModel((3,), parts, num_levels=4, context_shape=(2,))
    x, context = torch.randint(0, 4, (5, 3)), torch.randn(5, 2)
    assert model.log_weights(x, context, num_particles=3).shape == (3, 5)
    ELBOLoss(model)(x, context).backward()
    with pytest.raises(ValueError, match="`context` must be given to a conditional model"):
        model.model(x)


@pytest.mark.parametrize(
    ("value", "message"),
    [(4.0, "integers from 0 to 3"), (-1.0, "integers from 0 to 3"), (1.5, "integers from 0 to 3")],
)
def test_impossible_data_are_refused(value, message) -> None:
    with pytest.raises(ValueError, match=message):
        ELBOLoss(coupling_flow(2, num_levels=4))(torch.tensor([[0.0, value]]))


def test_bad_construction() -> None:
    with pytest.raises(
        ValueError, match="`base` must be one of 'normal', 'logistic', 'uniform'; got 'cauchy'"
    ):
        coupling_flow(3, base="cauchy")
    with pytest.raises(ValueError, match="`dequantization` must be 'uniform', 'variational'"):
        coupling_flow(3, dequantization="none")


@pytest.mark.parametrize(
    ("shape", "make", "options", "message"),
    [
        ((3,), lambda: [], {}, "be one transform or more"),
        ((3,), lambda: RealNVP(4), {}, r"noise of shape \(3,\) to data of that shape; RealNVP"),
        ((3,), lambda: transforms.ActNorm(3), {}, "ActNorm for events of 3 dimensions"),
        ((3,), lambda: transforms.act_norm(4), {}, "ActNorm cannot"),
        ((4, 2, 2), lambda: transforms.Squeeze(), {}, r"got data of shape \(16, 1, 1\)"),
        ((3,), lambda: RealNVP(3), {"num_classes": 3}, "be conditional in a conditional model"),
        ((3,), lambda: labelled(3), {}, "take no context in a model without"),
        (
            (3,),
            lambda: labelled(3),
            {"num_classes": 4},
            "model's context, 4 classes; got 3 classes",
        ),
        ((3,), lambda: RealNVP(3, num_classes=3), {"num_classes": 3}, "be conditional in a"),
    ],
)
def test_transforms_that_do_not_fit_are_refused_at_once(shape, make, options, message) -> None:
    with pytest.raises(ValueError, match=f"`transforms` must .*{message}"):
        FlowModel(shape, make(), **options)


def labelled(num_classes: int) -> transforms.ConditionalRealNVP:
    return transforms.ConditionalRealNVP(3, num_classes=num_classes)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`x` must hold one example or more; got batch shape"):
        coupling_flow(3).log_weights(torch.zeros(2, 0, 3))
