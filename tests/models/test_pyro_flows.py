"""Pyro's own flows, and Zuko's through Pyro's bridge, as parts of our models."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as pt
import pytest
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_genmodels.models import ELBOLoss, FlowModel, GenerativeModel
from pyro_genmodels.nets import MLP

# Both directions: whether forward or inverse is the fast one differs, and is no matter here.
TWO_WAYS: dict[str, Callable[[], Any]] = {
    "affine autoregressive (IAF)": lambda: pt.affine_autoregressive(3, [8]),
    "affine autoregressive, stable": lambda: pt.affine_autoregressive(3, [8], stable=True),
    "affine coupling": lambda: pt.affine_coupling(3, [8]),
    "batch norm": lambda: pt.batchnorm(3),
    "householder": lambda: pt.householder(3, 2),
    "leaky relu": pt.leaky_relu,
    "lower Cholesky affine": lambda: pt.LowerCholeskyAffine(torch.zeros(3), 2 * torch.eye(3)),
    "matrix exponential": lambda: pt.matrix_exponential(3),
    "permute": lambda: pt.permute(3),
    "spline": lambda: pt.spline(3),
    "spline autoregressive": lambda: pt.spline_autoregressive(3, [8]),
    "spline coupling": lambda: pt.spline_coupling(3, hidden_dims=[8]),
}
ONE_WAY: dict[str, Callable[[], Any]] = {
    "block autoregressive": lambda: pt.block_autoregressive(3),
    "neural autoregressive": lambda: pt.neural_autoregressive(3, [12]),
    "planar": lambda: pt.planar(3),
    "polynomial": lambda: pt.polynomial(3, [8]),
    "radial": lambda: pt.radial(3),
    "sylvester": lambda: pt.sylvester(3, 2),
}
LEVELS = pytest.mark.parametrize("num_levels", [None, 4], ids=["continuous", "discrete"])


def each(group: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("make", group.values(), ids=group)


def data(num_levels: int | None, batch: int = 64) -> Tensor:
    """Away from what an untrained flow fits: continuous around 2, discrete the lower levels."""
    return torch.randn(batch, 3) / 2 + 2 if num_levels is None else torch.randint(2, (batch, 3))


def beside_a_scale(part: Any) -> list[Any]:
    """Some of these have no parameters, and none of some scales alone."""
    return [part, pt.spline(3, bound=8.0), pt.affine_coupling(3, [8])]


def check_learns(model: GenerativeModel, *arguments: Tensor) -> None:
    """By SVI, and every copy scores as the model does."""
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(*arguments) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(scores(again, *arguments), scores(model, *arguments))


@torch.no_grad()
def scores(model: GenerativeModel, *arguments: Tensor) -> Tensor:
    torch.manual_seed(0)
    weights = model.eval().log_weights(*arguments, num_particles=2)
    model.train()
    assert bool(torch.isfinite(weights).all())
    return weights


@pytest.mark.parametrize(
    ("inverted", "num_levels"), [(False, None), (True, 4)], ids=["forward", "inverse-discrete"]
)
@each(TWO_WAYS)
def test_flows_with_an_inverse_train_and_sample(make, inverted, num_levels) -> None:
    part = make()
    parts = beside_a_scale(part.inv if inverted else part)
    model = FlowModel((3,), parts, num_levels=num_levels)
    check_learns(model, data(num_levels))
    assert model.eval().sample(5).shape == (5, 3)


@LEVELS
@each(ONE_WAY)
def test_flows_of_one_direction_fit_densities_as_inverses(make, num_levels) -> None:
    model = FlowModel((3,), beside_a_scale(make().inv), num_levels=num_levels)
    check_learns(model, data(num_levels))
    with pytest.raises(ValueError, match=r"`transforms` must go from noise to data, to be sampled"):
        model.sample(5)


@LEVELS
@each(ONE_WAY)
def test_flows_of_one_direction_say_so_where_they_cannot_score(make, num_levels) -> None:
    model = FlowModel((3,), [make()], num_levels=num_levels)
    assert model.sample(5).shape == (5, 3)
    with pytest.raises(ValueError, match=r"must go from data to noise, to score data .*; got \w+"):
        ELBOLoss(model)(data(num_levels))


def test_a_sample_can_be_scored_by_what_made_it() -> None:
    """The cache of a planar flow serves the value that it has just made, in plates too."""
    density = FlowModel((3,), pt.planar(3)).density().expand((7,))
    assert torch.isfinite(density.log_prob(density.rsample())).all()


class LatentFlow(GenerativeModel):
    """Latent vectors whose posterior is a flow of one direction on the encoder's Gaussian."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__((5,))
        self.encoder, self.decoder, self.transform = MLP(5, 6), MLP(3, 5), transform

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        zero = next(self.parameters()).new_zeros(3)
        with self.latent_scale():
            z = pyro.sample("z", dist.Normal(zero, zero + 1).to_event(1))
        value: Tensor = pyro.sample("x", dist.Normal(self.decoder(z), 0.3).to_event(1), obs=x)
        return value

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        self.transform._cached_x_y = None, None
        gaussian = dist.Normal(loc, log_scale.exp()).to_event(1)
        with self.latent_scale():
            pyro.sample("z", dist.TransformedDistribution(gaussian, [self.transform]))


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
@each(ONE_WAY)
def test_flows_of_one_direction_serve_an_amortised_guide(make, elbo) -> None:
    model, x = LatentFlow(make()), torch.randn(32, 5)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), elbo())
    losses = [svi.step(x) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert torch.isfinite(model.log_weights(x, num_particles=3)).all()


CONDITIONAL: dict[str, Callable[[], Any]] = {
    "affine autoregressive": lambda: pt.conditional_affine_autoregressive(3, 2, [8]),
    "affine coupling": lambda: pt.conditional_affine_coupling(3, 2, hidden_dims=[8]),
    "householder": lambda: pt.conditional_householder(3, 2, [8]),
    "matrix exponential": lambda: pt.conditional_matrix_exponential(3, 2, [8]),
    "neural autoregressive": lambda: pt.conditional_neural_autoregressive(3, 2, [12]).inv,
    "planar": lambda: pt.conditional_planar(3, 2, [8]).inv,
    "radial": lambda: pt.conditional_radial(3, 2, [8]).inv,
    "spline": lambda: pt.conditional_spline(3, 2, [8]),
    "spline autoregressive": lambda: pt.conditional_spline_autoregressive(3, 2, [8]),
}


@each(CONDITIONAL)
def test_conditional_flows(make) -> None:
    parts = [make(), pt.spline(3, bound=8.0), pt.conditional_affine_coupling(3, 2, hidden_dims=[8])]
    model = FlowModel((3,), parts, num_levels=4, context_shape=(2,))
    x, context = data(4), torch.randn(64, 2)
    check_learns(model, x, context)
    assert not torch.equal(scores(model, x, context), scores(model, x, context.flip(0)))


class ZukoModel(GenerativeModel):
    """A flow of Zuko as the density of data."""

    def __init__(self, flow: nn.Module, *, context_shape: tuple[int, ...] | None = None) -> None:
        super().__init__((3,), context_shape=context_shape)
        self.flow = flow

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        law = self.flow() if context is None else self.flow(context)
        value: Tensor = pyro.sample("x", ZukoToPyro(law), obs=x)
        return value


@pytest.mark.parametrize("kind", ["MAF", "NSF", "NICE", "NAF", "SOSPF"])
@pytest.mark.parametrize("context", [None, 2])
def test_flows_of_zuko(kind, context) -> None:
    zuko = pytest.importorskip("zuko")
    flow = getattr(zuko.flows, kind)(3, context or 0, transforms=1, hidden_features=(8,))
    model = ZukoModel(flow, context_shape=None if context is None else (context,))
    extra = () if context is None else (torch.randn(64, context),)
    check_learns(model, data(None), *extra)
    assert model.sample(2, *extra).shape == (2, *(len(c) for c in extra), 3)
