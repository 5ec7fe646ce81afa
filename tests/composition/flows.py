"""Small flows by their factories, moved off their initial values, and what they must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_genmodels import nets, testing, transforms

Factory = Callable[..., Any]

# One line a factory: how to make it small. Its conditional twin takes the same options.
FLOWS: dict[str, dict[str, Any]] = {
    "real_nvp": {"width": 8, "num_couplings": 2, "num_blocks": 1, "activation": "tanh"},
    "nice": {"width": 8, "num_couplings": 2, "num_layers": 1, "activation": "tanh"},
    "glow": {"width": 8, "num_steps": 2, "coupling": transforms.GlowCoupling(log_scale_factor=1.0)},
    "neural_spline_flow": {
        "width": 8,
        "num_couplings": 2,
        "num_blocks": 1,
        "splines": transforms.Splines(num_bins=4),
        "activation": "tanh",
    },
}
AFFINE = [name for name in FLOWS if name != "neural_spline_flow"]
VECTOR, IMAGE = (2,), (1, 4, 4)


def only_fast(names: Sequence[str], *fast: str) -> Any:
    """Parametrise a test over flows; those that are not named are left to ``--runslow``."""
    marks = {name: [] if name in fast else [pytest.mark.slow] for name in names}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=marks[n]) for n in names])


# Options of a flow of labels, vectors or maps, and three contexts.
CONTEXTS: dict[str, tuple[dict[str, Any], Tensor]] = {
    "labels": ({"num_classes": 3}, torch.arange(3)),
    "vectors": ({"context_shape": (2,)}, torch.tensor([[-1.0, 0.5], [0.0, 0.0], [1.0, 2.0]])),
    "maps": ({"context_shape": (1, 4, 4)}, torch.linspace(-1, 1, 48).reshape(3, 1, 4, 4)),
}


def factory(name: str) -> Factory:
    """Return the factory of small flows, ``factory(input_dim, **options)``."""
    return partial(getattr(transforms, name), **FLOWS[name])


def make(name: str, shape: Sequence[int]) -> Any:
    """Return a small flow at random parameters."""
    return testing.randomize_parameters(factory(name)(shape)).eval()


def make_conditional(name: str, shape: Sequence[int], **context: Any) -> Any:
    """Return the same waiting for a context."""
    flow = testing.randomize_parameters(factory(name)(shape, **context))
    return transforms.ConditionalFlow(flow).eval()


def make_affine(name: str, size: int) -> tuple[Any, Tensor, Tensor]:
    """Return a flow whose map is affine, and its matrix and shift.

    Without activations and with constant log-scales the couplings are shears.
    """
    additive = transforms.GlowCoupling("additive", log_scale_factor=1.0)
    options = {"coupling": additive} if name == "glow" else {}
    flow = testing.randomize_parameters(factory(name)((size,), **options)).eval()
    for module in flow.modules():
        if isinstance(module, nets.MLP):
            module.activation = nn.Identity()
        if isinstance(module, transforms.AffineCoupling):
            weight = module.net.layers[-1].weight.data
            weight[: len(weight) // 2] = 0
    zero = torch.zeros(size)
    matrix = torch.func.jacrev(flow)(zero).detach()
    shift, x = flow(zero).detach(), torch.randn(7, size)
    torch.testing.assert_close(flow(x), x @ matrix.T + shift)
    assert (matrix @ matrix.T)[0, 1].abs() > 0.02, matrix
    return flow, matrix, shift


def noise(shape: Sequence[int]) -> Any:
    """Return the standard Gaussian over events of a shape."""
    return dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape))


def density(flow: Any, shape: Sequence[int]) -> Any:
    """Return the flow of standard Gaussian noise."""
    return dist.TransformedDistribution(noise(shape), [flow])


def exact_log_prob(to_noise: Callable[[Tensor], Tensor], y: Tensor, event_dim: int = 1) -> Tensor:
    """Return the log-density of each event of ``y``, by autograd's Jacobian."""
    flat = y.flatten(0, y.dim() - event_dim - 1) if y.dim() > event_dim else y[None]
    terms = []
    for event in flat:
        jacobian = torch.autograd.functional.jacobian(to_noise, event, vectorize=True)
        slope = torch.linalg.slogdet(jacobian.reshape(event.numel(), -1))[1]
        terms.append(dist.Normal(0.0, 1.0).log_prob(to_noise(event)).sum() + slope)
    return torch.stack(terms).reshape(y.shape[: y.dim() - event_dim])


def correlated(size: int) -> MultivariateNormal:
    """Return a Gaussian with a correlation of 0.75 and more."""
    scale = torch.eye(size) * 0.5 + 0.8 * torch.ones(size, size).tril(-1) / size**0.5
    scale[0, 0] = 1.5
    return MultivariateNormal(torch.linspace(-1, 1, size), scale_tril=scale)


def check_moments(
    draws: Tensor, mean: Tensor, covariance: Tensor, *, largest_error: float = 0.1
) -> None:
    """Hold first and second moments of ``(..., num_independent, D)`` draws to five errors.

    Draws along leading dimensions may depend on each other, as those of a chain do. The error, in
    units of the largest variance, must itself be small, for the test to see anything.
    """
    centred = draws - mean
    first = centred.reshape(-1, *draws.shape[-2:]).mean(0)
    products = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).flatten(-2)
    second = products.reshape(-1, *products.shape[-2:]).mean(0)
    for found, expected in ((first, torch.zeros_like(mean)), (second, covariance.flatten())):
        error = found.std(0) / len(found) ** 0.5
        z = (found.mean(0) - expected).abs() / error
        assert z.max() < 5, f"{z} standard errors"
        assert error.max() < largest_error * covariance.diagonal().max(), f"too few draws: {error}"
