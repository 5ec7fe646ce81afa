"""Diffusion models of data in units of their own: every figure is of the standardised chain."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_genmodels import models

pytestmark = pytest.mark.usefixtures("double")


def test_all_bounds_are_those_of_the_program() -> None:
    pyro.set_rng_seed(0)
    network = models.DenoisingNetwork(hidden=(8,))
    model = models.DiffusionModel((2,), num_steps=4, network=network)
    x = 3 * torch.randn(50, 2) + 10
    model.standardize(x)
    model.eval()
    elbo = Trace_ELBO(num_particles=200, vectorize_particles=True, max_plate_nesting=1)
    loss = elbo.loss(model.model, model.guide, x) / len(x)
    with torch.no_grad():
        estimates = torch.stack([model.bound_estimate(x) for _ in range(100)])
        steps = torch.stack([model.rates(x)["z"].sum(-1) for _ in range(100)])
        found = {
            "log-weights": -model.log_weights(x, num_particles=200).mean(),
            "estimate": -estimates.mean(),
            "rates": steps.mean() + model.report(x)["decoder"].mean(),
        }
        own = models.DiffusionModel((2,), num_steps=4, network=network)
        own.load_state_dict(model.state_dict())
        own.standardization.unset()
        last = own.report(model.standardization.standardized(x, torch.float64))["last state"]
        assert torch.allclose(model.report(x)["last state"], last)
    assert {name: round(float(value / loss), 1) for name, value in found.items()} == dict.fromkeys(
        found, 1.0
    )
