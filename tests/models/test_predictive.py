"""Every model under Pyro's ``Predictive``, from the prior and from the posterior, either way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyro.infer import Predictive

from pyro_genmodels.models import ELBOLoss
from tests import cases

DRAWS = 4


def prepared(name: str) -> tuple[Any, torch.Tensor, tuple[torch.Tensor, ...]]:
    """A model in eval mode that has seen data, a batch of two and its contexts."""
    torch.manual_seed(0)
    case = cases.MODELS[name]()
    model, given = case.part.double(), () if case.context is None else (case.context,)
    shape = (2, *model.event_shape)
    whole = model.num_levels is not None or model.column_kinds is not None
    x = torch.ones(shape).double() if whole else torch.rand(shape).double()
    ELBOLoss(model)(x, *given)
    return model.eval(), x, given


@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "one by one"])
@pytest.mark.parametrize("name", cases.MODELS)
def test_draws_of_prior_and_posterior(name: str, parallel: bool) -> None:
    model, x, given = prepared(name)
    batch = (2,) if given else ()
    drawn = Predictive(model.model, num_samples=DRAWS, parallel=parallel)(None, *given)
    assert drawn["x"].shape == (DRAWS, *batch, *model.event_shape)
    predictive = Predictive(model.model, guide=model.guide, num_samples=DRAWS, parallel=parallel)
    for site, value in predictive(x, *given).items():
        assert value.shape[:2] == (DRAWS, 2), site
    latents = Predictive(model.guide, num_samples=DRAWS, parallel=parallel)(x, *given)
    # With all labels known, nothing is left to infer.
    infers = model.has_latents and name != "MixtureModel/labels"
    assert bool(latents.keys() - {"classification"}) == infers
