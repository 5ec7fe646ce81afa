"""Masked autoregressive flows, and Gaussian MADE."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_genmodels import models
from pyro_genmodels.testing import randomize_parameters

CONTEXTS = {
    "plain": ({}, None),
    "label": ({"num_classes": 3}, torch.tensor([0, 2])),
    "vector": ({"context_shape": (2,)}, torch.tensor([[1.0, 2.0], [-1.0, 0.5]])),
}


each_context = pytest.mark.parametrize("name", CONTEXTS)


@each_context
def test_one_layer_has_gaussian_conditionals(name: str) -> None:
    """Along one element the log-density is a parabola, and elements before it do not see it."""
    options, context = CONTEXTS[name]
    model = randomize_parameters(models.maf((3,), num_layers=1, hidden=(8,), **options).double())
    context = None if context is None else context[0]
    density = model.density(context if context is None or name == "label" else context.double())
    last = int(model_order(density)[-1])
    x = torch.randn(3).double().expand(5, 3).clone()
    x[:, last] = torch.arange(5).double()
    third_difference = density.log_prob(x).diff(n=3)
    torch.testing.assert_close(third_difference, torch.zeros(2).double(), atol=1e-9, rtol=0)


def model_order(density: torch.distributions.Distribution) -> torch.Tensor:
    """Return the elements in the order of generation: of whose noise each depends on."""
    (transform,) = density.transforms
    jacobian = torch.autograd.functional.jacobian(transform.inv, torch.randn(3).double())
    return (jacobian != 0).sum(1).argsort()


@each_context
def test_draws_what_it_scores_and_normalises(name: str) -> None:
    options, context = CONTEXTS[name]
    model = randomize_parameters(models.maf((2,), num_layers=3, hidden=(8,), **options).double())
    context = context[0] if name == "label" else None if context is None else context[0].double()
    density = model.density(context)
    axis = torch.linspace(-60, 60, 1201).double()
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        scores = density.log_prob(grid)
    mass = scores.exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=0.01)
    assert model.density(context).sample((4,)).shape == (4, 2)


def test_learns_by_svi_a_label_dependent_mean() -> None:
    pyro.set_rng_seed(0)
    labels = torch.arange(200) % 2
    x = torch.randn(200, 2) * 0.3 + 2.0 * labels[:, None]
    model = models.maf((2,), num_layers=1, hidden=(16,), num_classes=2)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 2e-2}), Trace_ELBO())
    for _ in range(150):
        svi.step(x, labels)
    means = [model.density(torch.tensor(k)).sample((300,)).mean() for k in (0, 1)]
    assert abs(means[0]) < 0.3
    assert abs(means[1] - 2) < 0.3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"event_shape": (1, 2, 2)}, "event_shape"),
        ({"event_shape": (4,), "hidden": (3,)}, "hidden"),
        ({"event_shape": (4,), "num_layers": 0}, "num_layers"),
        ({"event_shape": (4,), "context_shape": (1, 2, 2)}, "context_shape"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        models.maf(**options)
