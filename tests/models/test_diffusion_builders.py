"""Builders of diffusion models: each has its paper's setting, trains and scores."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from jaxtyping import TypeCheckError

from pyro_genmodels import models, testing
from pyro_genmodels.models import DiffusionModel

SMALL = {"network": models.DenoisingNetwork(channels=8, num_blocks=1), "num_steps": 6}
DENSE = {"network": models.DenoisingNetwork(hidden=(16,)), "num_steps": 6}
BUILDERS: dict[str, Callable[..., DiffusionModel]] = {
    "ddpm": models.ddpm,
    "improved_ddpm": models.improved_ddpm,
    "vdm": models.vdm,
    "ncsn": models.ncsn,
    "bit_diffusion": models.bit_diffusion,
}
each_builder = pytest.mark.parametrize("name", BUILDERS)


def images(name: str, **options: Any) -> DiffusionModel:
    return BUILDERS[name]((1, 4, 4), **{"num_levels": 5, **SMALL, **options})


@each_builder
def test_trains_scores_and_draws(name: str) -> None:
    pyro.set_rng_seed(0)
    model = images(name, num_classes=2, context_dropout=0.5)
    x, label = torch.randint(5, (6, 1, 4, 4)).float(), torch.arange(6) % 2
    loss = models.ELBOLoss(model)(x, label)
    loss.backward()
    learned = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learned)
    assert model.log_weights(x, label).isfinite().all()
    assert model.sample(2, label[:3]).shape == (2, 3, 1, 4, 4)


@each_builder
def test_takes_vectors(name: str) -> None:
    levels = 5 if name == "bit_diffusion" else None
    model = BUILDERS[name]((3,), num_levels=levels, **DENSE)
    assert model.log_weights(model.sample(4)).isfinite().all()


@each_builder
def test_only_the_bound_is_named_as_the_bound(name: str) -> None:
    expected = {
        "ddpm": ["simple"],
        "improved_ddpm": ["hybrid"],
        "vdm": [],
        "ncsn": ["simple"],
        "bit_diffusion": ["self-conditioning"],
    }
    assert images(name).beside_elbo() == expected[name]


@each_builder
def test_has_at_most_sixteen_arguments(name: str) -> None:
    assert len(inspect.signature(BUILDERS[name]).parameters) <= 16


def test_ddpm_has_the_published_noise() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    log_alpha2 = torch.log1p(-betas).cumsum(0)
    published = torch.log(-torch.expm1(log_alpha2)) - log_alpha2
    levels = images("ddpm", num_steps=999).double().levels()
    torch.testing.assert_close(levels, published, atol=1e-5, rtol=1e-6)


def test_ddpm_leaves_no_variance_to_be_learned() -> None:
    with pytest.raises((ValueError, TypeCheckError), match=r"variance.*learned"):
        images("ddpm", variance="learned")


@pytest.mark.parametrize(("levels", "predicted"), [(17, "levels"), (256, "noise"), (None, "noise")])
def test_vdm_predicts_levels_if_they_are_few(levels: int | None, predicted: str) -> None:
    model = images("vdm", num_levels=levels)
    assert model.estimator.prediction == predicted
    assert len(model.estimator.frequencies) == (2 if levels == 256 else 0)
    assert any(p.requires_grad for p in model.schedule.parameters())


def test_weights_of_ncsn_are_those_of_the_bound() -> None:
    """Up to one factor for all steps and all data."""
    model = testing.randomize_parameters(images("ncsn").double())
    values = model.data(torch.randint(5, (7, 1, 4, 4)).double())
    ratios = []
    for step in range(1, model.num_steps + 1):
        index = torch.full((7,), step)
        with pyro.poutine.block(), model.bounding():
            pyro.set_rng_seed(step)
            bound = model._step_terms(values, None, index)
        pyro.set_rng_seed(step)
        ratios.append(bound / model._step_terms(values, None, index))
    found = torch.stack(ratios)
    torch.testing.assert_close(found, found[:1, :1].expand_as(found))


def test_bits_have_two_evaluations_with_self_conditioning_alone() -> None:
    for passes in (False, True):
        model = images("bit_diffusion", num_levels=8, self_conditioning=passes)
        assert model.data.shape == (3, 4, 4)
        assert model.estimator.net.input_shape[0] == 3 * (1 + passes)
