"""The marginal of independent elements over those that were observed."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch

from pyro_genmodels.distributions import DiscretizedLogistic, ObservedPart, Rescaled

ELEMENTS: dict[str, tuple[Any, float]] = {
    "real": (lambda a: dist.Normal(a, a.exp()), 0.3),
    "positive": (lambda a: dist.LogNormal(a, a.exp()), 0.7),
    "interval": (lambda a: dist.Beta(a.exp(), 2 * a.exp()), 0.4),
    "binary": (lambda a: dist.Bernoulli(logits=a), 1.0),
    "counts": (lambda a: dist.Poisson(a.exp()), 3.0),
    "trials": (lambda a: dist.NegativeBinomial(a.exp(), logits=a), 3.0),
    "levels": (lambda a: DiscretizedLogistic(a, a, 5), 2.0),
    "narrow and far from zero": (
        lambda a: Rescaled(dist.Normal(a, 1e-3 * a.exp()), torch.tensor(1e15), torch.tensor(1e-6)),
        1e15,
    ),
}


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_score_and_gradients_are_those_of_the_observed(name: str, dtype: torch.dtype) -> None:
    """Also where the density at zero is none, or overflows."""
    make, value = ELEMENTS[name]
    parameters = torch.tensor([0.2, -0.1, 0.4], dtype=dtype, requires_grad=True)
    x = torch.tensor([value, torch.nan, value], dtype=dtype)
    whole, rest = ObservedPart(make(parameters).to_event(1)), make(parameters[[0, 2]]).to_event(1)
    scores = [whole.log_prob(x), rest.log_prob(x[[0, 2]])]
    torch.testing.assert_close(*scores)
    slopes = [torch.autograd.grad(score, parameters)[0] for score in scores]
    torch.testing.assert_close(*slopes)
    assert torch.isfinite(slopes[0]).all()


def test_nothing_observed_scores_zero() -> None:
    law = ObservedPart(dist.Normal(torch.zeros(2, 3), 1.0).to_event(1))
    assert law.log_prob(torch.full((2, 3), torch.nan)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [torch.inf, 7.0])
def test_other_values_outside_the_support_are_errors(bad: float) -> None:
    law = ObservedPart(dist.Bernoulli(torch.full((3,), 0.5)).to_event(1), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        law.log_prob(torch.tensor([torch.nan, bad, 1.0]))


def test_elements_that_are_not_independent_are_refused() -> None:
    with pytest.raises(ValueError, match="`base` must have independent elements; got Multi"):
        ObservedPart(dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
