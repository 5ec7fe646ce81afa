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


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"sampler": "ancestral", "num_steps": 6, "guidance": 1.0, "seed": 3}, []),
        ({"sampler": models.Ancestral()}, []),
        ({"num_steps": 5}, ["5 steps"]),
        ({"sampler": "dpm", "guidance": 0}, ["sampler dpm", "guidance 0"]),
        ({"guidance": models.ClassifierGuidance(lambda z, level: level)}, ["guidance"]),
    ],
)
def test_what_is_not_drawn_from_the_scored_model(
    options: dict[str, Any], expected: list[str]
) -> None:
    assert images("vdm").sampling_differences(**options) == expected


def test_settings_of_a_sampler_are_named() -> None:
    sampler = models.Ancestral(spacing="log_snr")
    (found,) = images("vdm").sampling_differences(sampler=sampler)
    assert found.startswith("sampler Ancestral(spacing='log_snr'")


def test_a_temperature_is_named_in_every_model() -> None:
    model = models.pixelcnn((1, 4, 4), num_levels=5, hidden_channels=4)
    assert model.sampling_differences(temperature=0.5) == ["temperature 0.5"]
    assert model.sampling_differences(temperature=1.0, progress=True) == []


def test_a_trajectory_goes_from_noise_to_data() -> None:
    model = images("vdm", num_classes=3).double()
    labels = torch.tensor([0, 2])
    states, levels = model.trajectory(500, labels, num_states=3)
    assert states.shape == (3, 500, 2, 1, 4, 4)
    torch.testing.assert_close(levels, model.levels()[[6, 3, 0]])
    assert float(states[0].std()) == pytest.approx(1, abs=0.05)
    # At the least noise a state lies near the centre of a level.
    centres = (2 * torch.arange(5) + 1) / 5 - 1
    apart = (states[-1][..., None] - centres).abs().amin(-1)
    assert float(apart.max()) < 0.2
    whole, _ = model.trajectory(1, labels, num_states=3, sampler="ddim", num_steps=2)
    assert whole.shape == (3, 1, 2, 1, 4, 4)


@pytest.mark.parametrize("number", [1, 8])
def test_states_of_a_trajectory_are_those_of_its_steps(number: int) -> None:
    with pytest.raises(ValueError, match="`num_states` must lie from 2 to 7"):
        images("vdm").trajectory(1, num_states=number)


@pytest.mark.parametrize(("steps", "number"), [(1, 2), (3, 4), (20, 9)])
def test_a_trajectory_shows_a_short_chain_whole(steps: int, number: int) -> None:
    states, levels = images("vdm").trajectory(2, num_steps=steps)
    assert len(states) == len(levels) == number


def test_attention_at_a_size_that_does_not_occur_is_an_error() -> None:
    for multipliers, attention in [((1, 2), (4,)), ((1, 2), (2, 8)), ((1,), (4,))]:
        network = models.DenoisingNetwork(channels=4, multipliers=multipliers, attention=attention)
        with pytest.raises(ValueError, match="`attention` must be factors of downsampling that"):
            models.DiffusionModel((1, 4, 4), network=network)
    # By default at half the size, if there is one.
    models.DiffusionModel((1, 4, 4), network=models.DenoisingNetwork(channels=4, multipliers=(1,)))


def test_scales_of_ncsn_must_rise() -> None:
    with pytest.raises(ValueError, match=r"`largest` must be larger than `smallest`, 2; got 1\.0"):
        models.ncsn((3,), smallest=2.0, largest=1.0)
