"""Samplers of diffusion models: what they draw, how often they ask, how they are led."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from pyro_genmodels import models, nets, testing
from pyro_genmodels.distributions import ReverseDiffusion
from pyro_genmodels.distributions.diffusion.steps import step_between
from pyro_genmodels.models.diffusion.samplers.choice import SAMPLERS, chosen
from pyro_genmodels.nets import signal_and_noise
from tests.models.sampler_laws import (
    MEAN,
    SCALE,
    check_classifier,
    check_guidance_ends,
    check_moments,
    check_neighbours_apart,
    check_order,
    check_same_as_ancestral,
    exact_model,
    flow,
)

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]
TWO = torch.tensor([[-1.0, 0.5], [1.0, -0.2]])


def small(**options: Any) -> models.DiffusionModel:
    """A model whose network has random weights that say something."""
    torch.manual_seed(0)
    network = models.DenoisingNetwork(hidden=(8,))
    model = models.DiffusionModel((2,), num_steps=6, network=network, **options)
    with torch.no_grad():
        for parameter in model.estimator.net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def labelled(**options: Any) -> models.DiffusionModel:
    objective = models.DiffusionObjective(context_dropout=0.1)
    return small(num_classes=3, objective=objective, **options)


@pytest.mark.parametrize(
    ("sampler", "order", "kind"),
    [
        (models.DDIM(), 1, "smooth"),
        (models.DDIM(), 1, "jumps"),
        (models.DPMSolver(), 2, "smooth"),
        (models.DPMSolver(), 2, "jumps"),
        (models.Heun(), 2, "smooth"),
        (models.Heun(), 2, "jumps"),
        (models.PNDM(), 2, "smooth"),
        (models.PNDM("multistep"), 2, "smooth"),
    ],
)
@pytest.mark.parametrize("upwards", [False, True])
def test_orders(sampler: models.Sampler, order: int, kind: str, upwards: bool) -> None:
    check_order(sampler, order, kind, upwards=upwards)


@pytest.mark.parametrize(
    ("schedule", "num_steps"),
    [
        (nets.LinearBeta, 999),
        (lambda: nets.LinearLogSNR(-13.3, 5.0), 256),
        (lambda: nets.LinearLogSNR(-13.3, 5.0), 2),
        (nets.Cosine, 64),
    ],
)
def test_ddim_with_all_noise_is_ancestral(schedule: Any, num_steps: int) -> None:
    check_same_as_ancestral(schedule().double(), num_steps)


def chain_moments(model: Any, levels: Tensor, variance: str) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the data that the chain with exact estimates draws."""
    mean, spread = torch.zeros(3), torch.ones(3)
    data_mean, data_variance = MEAN.double(), SCALE.double() ** 2
    for index in range(len(levels) - 1, 0, -1):
        step = step_between(levels[index - 1], levels[index])
        alpha, sigma = signal_and_noise(levels[index])
        gain = alpha * data_variance / (alpha**2 * data_variance + sigma**2)
        slope = step.noise_factor + step.data_factor * gain
        mean = slope * mean + step.data_factor * (1 - gain * alpha) * data_mean
        added = step.log_variance if variance == "posterior" else step.log_added
        spread = slope**2 * spread + added.exp()
    alpha, _ = signal_and_noise(levels[0])
    return mean / alpha, spread / alpha**2 + levels[0].exp()


@pytest.mark.parametrize("variance", ["posterior", "forward"])
@pytest.mark.parametrize("num_steps", [1, 3, 12])
def test_ancestral_draws_the_chain(variance: Any, num_steps: int) -> None:
    model = exact_model(denoising=models.Denoising("data", variance=variance), num_steps=num_steps)
    with torch.no_grad():
        mean, spread = chain_moments(model, model.levels(), variance)
    check_moments(model, "ancestral", mean, spread, 0.0)


@pytest.mark.parametrize("variance", ["posterior", "forward", "learned"])
def test_ancestral_is_the_model_bit_for_bit(variance: Any) -> None:
    objective = "hybrid" if variance == "learned" else "bound"
    model = small(denoising=models.Denoising("data", variance=variance), objective=objective)
    torch.manual_seed(0)
    x = model.sample(50)
    torch.manual_seed(0)
    with torch.no_grad():
        z = model.reverse().sample((50,))
        assert torch.equal(x, model.decode(z[:, 0]).sample())


@pytest.mark.parametrize("num_steps", [None, 2])
def test_discrete_samples_are_what_is_scored(num_steps: int | None) -> None:
    model = small(num_levels=3, schedule=nets.LinearLogSNR(-1.5, 4.0))
    steps = 6 if num_steps is None else num_steps
    fewer = models.DiffusionModel(**{**model.current_arguments(), "num_steps": steps})
    fewer.estimator.load_state_dict(model.estimator.state_dict())
    testing.check_model_sampler(fewer.eval(), num_particles=500)
    one = model.sample(20, num_steps=num_steps, seed=1)
    assert torch.equal(one, fewer.sample(20, seed=1))


def decoded_variance(model: Any) -> Tensor:
    """Return the variance of the data with the least noise, and as much again by the decoder."""
    noise: Tensor = model.levels()[0].detach().exp()
    return SCALE.double() ** 2 + 2 * noise


@pytest.mark.parametrize("name", ["ddim", "pndm", "dpm", "heun"])
def test_deterministic_samplers_draw_the_data(name: str) -> None:
    model = exact_model(num_steps=60)
    variance = decoded_variance(model)
    check_moments(model, name, MEAN.double(), variance, 0.2 if name == "ddim" else 0.05)


@pytest.mark.parametrize("predictor", ["ancestral", "none"])
def test_langevin_draws_the_data(predictor: Any) -> None:
    corrector = 1 if predictor == "ancestral" else 30
    sampler = models.AnnealedLangevin(corrector, snr=0.2, predictor=predictor)
    num_steps = 200 if predictor == "ancestral" else 40
    model = exact_model(schedule=nets.LinearLogSNR(-3.0, 5.0), num_steps=num_steps)
    check_moments(model, sampler, MEAN.double(), decoded_variance(model), 0.06, number=5000)


def test_langevin_corrects_what_few_steps_leave() -> None:
    """Three ancestral steps draw too narrow; corrector steps at each level widen again."""
    schedule = nets.LinearLogSNR(-3.0, 5.0)
    model = exact_model(schedule=schedule, num_steps=3)
    variance = decoded_variance(model)
    off = {}
    for steps in (1, 50):
        x = model.sample(5000, sampler=models.AnnealedLangevin(steps, snr=0.3), seed=0)
        off[steps] = float((x.var(0) / variance).log().abs().max())
    assert off[50] < 0.5 * off[1]


COUNTS = {
    "ancestral": lambda s: s,
    "ddim": lambda s: s,
    "dpm": lambda s: s,
    "heun": lambda s: 2 * s - 1,
    "pndm": lambda s: s + 9,
    "langevin": lambda s: 2 * s,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations(name: str) -> None:
    for num_steps in (3, 8, 20):
        model = exact_model()
        model.sample(4, sampler=name, num_steps=num_steps)
        assert model.estimator.evaluations == [4] * COUNTS[name](num_steps)


def test_evaluations_of_settings() -> None:
    model = exact_model()
    asked = model.estimator.evaluations
    for sampler, number in (
        (models.PNDM("multistep"), 7),
        (models.DDIM(eta=0.5), 7),
        (models.AnnealedLangevin(3), 28),
        (models.AnnealedLangevin(3, predictor="none"), 21),
        (models.DPMSolver(spacing="log_snr"), 7),
    ):
        asked.clear()
        model.sample(2, sampler=sampler, num_steps=7)
        assert len(asked) == number
    asked.clear()
    model.sample(2, sampler=models.DPMSolver(spacing=[-5.0, -1.0, 0.5, 4.0]))
    assert len(asked) == 5
    asked.clear()
    model.encode(torch.zeros(2, 3), num_steps=7)
    assert len(asked) == 13


def test_guidance_takes_twice_the_batch_or_nothing_more() -> None:
    model = exact_model(TWO, torch.tensor([0.5, 0.7]))
    for guidance, rows in ((1.0, 4), (0.0, 4), (2.0, 8), (-0.5, 8)):
        model.estimator.evaluations.clear()
        model.sample(4, torch.tensor(1), sampler="dpm", num_steps=5, guidance=guidance)
        assert model.estimator.evaluations == [rows] * 5


class Counted(torch.nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.number, self.input_shape = net, 0, net.input_shape

    def forward(self, *arguments: Any, **options: Any) -> Any:
        self.number += 1
        return self.net(*arguments, **options)


def test_self_conditioning_takes_two_passes_or_carries_one() -> None:
    model = small(num_levels=3, encoding=models.LevelEncoding("bits", self_conditioning=True))
    model.estimator.net = counted = Counted(model.estimator.net)
    drawn = {}
    for carries, number in ((False, 10), (True, 5)):
        counted.number = 0
        sampler = models.Ancestral(carries_estimate=carries)
        drawn[carries] = model.sample(200, sampler=sampler, num_steps=5, seed=0)
        assert counted.number == number
    assert not torch.equal(drawn[False], drawn[True])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("label", [torch.tensor(1), torch.tensor([2, 1, 2])])
def test_guidance_ends(name: str, label: Tensor) -> None:
    check_guidance_ends(labelled(), label, name)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_classifier_guides_as_the_label_does(name: str) -> None:
    check_classifier(name)


def test_guidance_leads_to_the_class_and_beyond() -> None:
    model = exact_model(TWO, torch.tensor([0.5, 0.7]), num_steps=60)
    first = [
        float(model.sample(3000, torch.tensor(1), guidance=s, seed=0)[:, 0].mean())
        for s in (0.0, 1.0, 3.0)
    ]
    assert abs(first[0]) < 0.1
    assert abs(first[1] - 1) < 0.05
    assert first[2] > 1.1


def test_guidance_of_learned_variances_and_carried_estimates() -> None:
    variance = models.Denoising("noise", variance="learned")
    objective = models.DiffusionObjective("hybrid", context_dropout=0.1)
    model = small(num_classes=3, denoising=variance, objective=objective)
    label = torch.tensor([0, 2])
    assert model.sample(3, label, guidance=2.0).shape == (3, 2, 2)
    encoding = models.LevelEncoding("bits", self_conditioning=True)
    model = labelled(num_levels=5, encoding=encoding)
    for carries in (False, True):
        sampler = models.Heun(carries_estimate=carries)
        assert model.sample(3, label, sampler=sampler, guidance=2.0).shape == (3, 2, 2)


@pytest.mark.parametrize("sampler", [*SAMPLERS, models.AnnealedLangevin(3), models.DDIM(0.5)])
def test_samples_do_not_depend_on_their_neighbours(sampler: Any) -> None:
    check_neighbours_apart(labelled(), sampler)


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds(name: str) -> None:
    model = small()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = model.sample(4, sampler=name, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(model.sample(4, sampler=name, seed=0), first)
    assert not torch.equal(model.sample(4, sampler=name, seed=1), first)
    model.sample(4, sampler=name)
    assert not torch.equal(before, torch.get_rng_state())


def test_samplers_begin_at_the_same_noise() -> None:
    """So that fine steps of all deterministic ones lead to the same data."""
    model = exact_model()
    drawn = [
        model.sample(20, sampler=name, num_steps=200, seed=0) for name in ("dpm", "heun", "pndm")
    ]
    for other in drawn[1:]:
        assert torch.allclose(drawn[0], other, atol=2e-3)


def test_fewer_errors_than_ddim() -> None:
    model = exact_model()
    truth = model.sample(200, sampler="heun", num_steps=1000, seed=0)
    off = {
        name: (model.sample(200, sampler=name, num_steps=20, seed=0) - truth).norm(dim=1).mean()
        for name in ("ddim", "dpm")
    }
    assert off["dpm"] < off["ddim"] / 3


def test_spacings() -> None:
    schedule = nets.Cosine(-6.0, 6.0).double()
    first, last = schedule.ends
    even = models.DDIM(spacing="log_snr").levels(schedule, 5, default=9)
    assert torch.allclose(even, torch.linspace(float(first), float(last), 6))
    assert torch.equal(models.DDIM().levels(schedule, None, default=9), schedule.grid(9))
    own = models.DDIM(spacing=[-1, 0.5]).levels(schedule, None, default=9)
    assert torch.allclose(own, torch.tensor([float(first), -1.0, 0.5, float(last)]))


def test_one_step_of_all_is_that_of_ddim() -> None:
    model = exact_model()
    chain = ReverseDiffusion(model.estimator, torch.tensor([-2.0, 1.0]), (3,))
    z = torch.randn(5, 3)
    with torch.no_grad():
        (first,) = models.DDIM().walk(chain, z)
        for name in ("dpm", "heun"):
            assert torch.equal(next(chosen(name).walk(chain, z)), first)
        (other,) = models.PNDM("multistep").walk(chain, z)
    assert torch.allclose(other, first, rtol=1e-13)


FORMS: dict[str, dict[str, Any]] = {
    "continuous": {},
    "levels": {"num_levels": 5},
    "bits": {"num_levels": 5, "encoding": "bits"},
    "vectors": {"num_levels": 5, "encoding": "learned"},
    "self-conditioning": {
        "num_levels": 4,
        "encoding": models.LevelEncoding("bits", self_conditioning=True),
    },
    "learned variance": {
        "denoising": models.Denoising("noise", variance="learned"),
        "objective": "hybrid",
    },
    "labels": {"num_classes": 3, "objective": models.DiffusionObjective(context_dropout=0.1)},
}


def some_data(model: Any, *batch: int) -> tuple[Tensor, Tensor | None]:
    torch.manual_seed(3)
    levels = model.num_levels
    x = torch.randn(*batch, 2) if levels is None else torch.randint(levels, (*batch, 2)).double()
    return x, None if model.num_classes is None else torch.randint(3, batch)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_drawn_encoded_and_edited(form: str) -> None:
    model = small(**FORMS[form])
    x, context = some_data(model, 3, 4)
    for name in SAMPLERS:
        drawn = model.sample(2, context, sampler=name, num_steps=5)
        shape = (2, 3, 4, 2) if context is not None else (2, 2)
        assert drawn.shape == shape
        assert drawn.dtype == torch.float64
    z = model.encode(x, context, num_steps=100)
    assert z.shape == (3, 4, *model.data.shape)
    back = model.decode_noise(z, context, num_steps=100)
    assert torch.allclose(back, x, atol=2e-2)
    again = model.reconstruct(x, context, deterministic=True, num_steps=100)
    assert torch.allclose(again, x, atol=2e-2)
    assert model.reconstruct(x, context).shape == x.shape
    known = torch.tensor([True, False])
    filled = model.inpaint(x, known, context, num_samples=6)
    assert filled.shape == (6, *x.shape)
    assert torch.equal(filled[..., 0], x[..., 0].expand(6, 3, 4))
    assert not torch.equal(filled[..., 1], x[..., 1].expand(6, 3, 4))
    if model.num_levels is not None:
        assert torch.equal(filled, filled.round().clamp(0, model.num_levels - 1))


@pytest.mark.parametrize(("sampler", "factor"), [("ddim", 1.6), ("heun", 3.0)])
def test_round_trips_converge_with_the_steps(sampler: Any, factor: float) -> None:
    model = exact_model()
    x = MEAN.double() + SCALE.double() * torch.randn(50, 3)
    errors = []
    for num_steps in (40, 80, 160):
        z = model.encode(x, sampler=sampler, num_steps=num_steps)
        back = model.decode_noise(z, sampler=sampler, num_steps=num_steps)
        errors.append(float((back - x).square().mean().sqrt()))
    assert errors[0] > factor * errors[1] > factor**2 * errors[2]
    assert errors[-1] < {"ddim": 0.05, "heun": 1e-3}[sampler]
    z = model.encode(x, num_steps=300)
    first, last = (each.detach() for each in model.schedule.ends)
    assert torch.allclose(z, flow(signal_and_noise(first)[0] * x, first, last), atol=2e-3)


def test_units_of_standardised_data() -> None:
    network = models.DenoisingNetwork(hidden=(8,))
    model = models.DiffusionModel((2,), num_steps=6, network=network)
    x = 30 * torch.randn(100, 2) + 500
    model.standardize(x)
    model.eval()
    back = model.decode_noise(model.encode(x, num_steps=100), num_steps=100)
    assert torch.allclose(back, x, rtol=1e-3)
    assert torch.allclose(model.reconstruct(x, noise_level=0.0), x, rtol=1e-2)
    filled = model.inpaint(x, torch.tensor([True, False]))
    assert torch.equal(filled[0, :, 0], x[:, 0])
    assert abs(float(filled[..., 1].mean()) - 500) < 100


def test_noise_level_of_a_reconstruction() -> None:
    """From no noise, the data; from noise alone, draws that know little of them."""
    model = exact_model(num_steps=40)
    x = MEAN.double() + SCALE.double() * torch.randn(4000, 3)
    torch.manual_seed(0)
    correlations = []
    for level in (0.0, 0.5, 1.0):
        again = model.reconstruct(x, noise_level=level)
        correlations.append(float(torch.corrcoef(torch.stack([x[:, 1], again[:, 1]]))[0, 1]))
        # Of data of the model's own, reconstructions are such data again.
        assert torch.allclose(again.mean(0), MEAN.double(), atol=0.1)
        assert torch.allclose(again.std(0), SCALE.double(), rtol=0.1)
    assert correlations[0] > 0.999 > correlations[1] > 0.2 > 0.1 > abs(correlations[2])
    fewer = model.reconstruct(x[:5], sampler=models.DPMSolver(), num_steps=10, noise_level=0.3)
    assert fewer.shape == (5, 3)


def test_reconstruction_without_noise_is_always_the_same() -> None:
    model = small()
    x = torch.randn(5, 2)
    one, other = (model.reconstruct(x, deterministic=True) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(model.reconstruct(x), model.reconstruct(x))


def test_inpainting_reads_no_unknown_element() -> None:
    for form in ("continuous", "bits"):
        model = small(**FORMS[form])
        x, _ = some_data(model, 4)
        known = torch.rand(4, 2) < 0.5
        hidden = torch.where(known, x, torch.nan)
        one, other = (model.inpaint(each, known, num_samples=3, seed=0) for each in (x, hidden))
        assert torch.equal(one, other)
        everything = torch.ones(2, dtype=torch.bool)
        assert torch.equal(model.inpaint(x, everything)[0], x)
    free = model.inpaint(x, ~everything, seed=0, num_samples=2)
    assert free.shape == (2, 4, 2)


def test_arguments_of_another_kind_are_named() -> None:
    model = models.vdm((2,), num_steps=4)
    # Where types are checked, by the check of types; without, by the method's own.
    with pytest.raises((ValueError, TypeCheckError), match="known"):
        model.inpaint(torch.zeros(2), [True, False])  # type: ignore[arg-type]
    for guidance in ("2", float("nan"), None):
        with pytest.raises((ValueError, TypeCheckError), match="guidance"):
            model.sample(guidance=guidance)  # type: ignore[arg-type]


def test_inpainting_meets_what_is_known() -> None:
    """Of strongly dependent elements, what is drawn follows what is known."""
    means = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    model = exact_model(means, torch.tensor([0.3, 0.3]), num_steps=60)
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    filled = model.inpaint(x, torch.tensor([True, False]), num_samples=300)
    assert ((filled[..., 1] * x[:, 0]) > 0).double().mean() > 0.9


def test_draws_of_inpainting_have_noise_of_their_own() -> None:
    model = small()
    x = torch.randn(1, 2)
    filled = model.inpaint(x, torch.tensor([True, False]), num_samples=50)
    assert len(filled[:, 0, 1].unique()) == 50


def test_what_was_in_training_mode_is_again_and_no_gradient_is_left() -> None:
    model = labelled().train()
    guidance = models.ClassifierGuidance(lambda z, level: -z.square().sum(-1))
    label = torch.tensor([0, 2])
    for drawn in (
        model.sample(2, label, guidance=guidance),
        model.sample(2, label, sampler="heun", guidance=3.0, progress=True),
        model.reconstruct(torch.zeros(2, 2), label),
        model.encode(torch.zeros(2, 2), label),
    ):
        assert not drawn.requires_grad
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    with torch.inference_mode():
        model.sample(2, label, guidance=guidance)


def test_wrong_arguments_are_named() -> None:
    model, conditional, plain = small(), labelled(), small(num_classes=3)
    x, label = torch.zeros(2, 2), torch.tensor([0, 1])
    known = torch.tensor([True, False])
    wrong_shape = models.ClassifierGuidance(lambda z, level: z)
    no_graph = models.ClassifierGuidance(lambda z, level: level)
    for call, message in (
        (lambda: model.sample(sampler="dpmsolver"), "`sampler` must be a Sampler or one of 'anc"),
        (lambda: model.sample(num_steps=0), "`num_steps` must be positive; got 0"),
        (lambda: model.sample(0), "`num_samples` must be positive"),
        (lambda: model.sample(guidance=2.0), "`guidance` must be 1 of a model that was not"),
        (lambda: plain.sample(1, label, guidance=0.0), "`guidance` must be 1 of a model"),
        (lambda: plain.sample(1), "`context` must be given to a conditional model"),
        (lambda: conditional.sample(guidance=2.0), "`context` must be given with guidance"),
        (
            lambda: conditional.sample(1, label, guidance=float("nan")),
            "`guidance` must be a finite number",
        ),
        (lambda: models.ClassifierGuidance(len, float("inf")), "`scale` must be finite"),
        (lambda: model.sample(guidance=wrong_shape), "`log_prob` must return log-probabilities"),
        (lambda: model.sample(guidance=no_graph), "`log_prob` must be differentiable in the nois"),
        (lambda: models.DDIM(eta=1.5), "`eta` must lie from 0 to 1; got 1.5"),
        (lambda: models.AnnealedLangevin(0), "`corrector_steps` must be positive"),
        (lambda: models.AnnealedLangevin(snr=-1.0), "`snr` must be positive"),
        (lambda: models.Heun(spacing="even"), "`spacing` must be 'time', 'log_snr' or noise"),
        (lambda: models.Heun(spacing=[1.0, 0.0]), "`spacing` must rise"),
        (
            lambda: model.sample(sampler=models.Heun(spacing=[-50.0])),
            "`spacing` must lie between -10 and 5, the ends of the schedule; got (-50.0,)",
        ),
        (
            lambda: model.sample(sampler=models.Heun(spacing=[0.0]), num_steps=3),
            "`num_steps` must be None or 2",
        ),
        (
            lambda: model.sample(sampler=models.Heun(carries_estimate=True)),
            "`carries_estimate` must be False without self-conditioning",
        ),
        (lambda: model.encode(x, sampler="ancestral"), "`sampler` must draw no noise"),
        (lambda: model.decode_noise(x, sampler="langevin"), "`sampler` must draw no noise"),
        (lambda: model.encode(x[:, :1]), "`x` must"),
        (lambda: model.decode_noise(x[:, :1]), "`z` must"),
        (lambda: model.reconstruct(x, noise_level=1.5), "`noise_level` must lie from 0 to 1"),
        (
            lambda: model.reconstruct(x, deterministic=True, sampler=models.DDIM(0.3)),
            "`sampler` must draw no noise",
        ),
        (lambda: model.inpaint(x, known[:, None].expand(2, 3)), "`known` must broadcast"),
        (lambda: model.inpaint(x * torch.nan, known), "`x` must"),
        (lambda: model.inpaint(x, known, num_samples=0), "`num_samples` must be positive"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("start", lambda wrong: models.PNDM(wrong)),
        ("predictor", lambda wrong: models.AnnealedLangevin(predictor=wrong)),
        ("corrector_steps", lambda wrong: models.AnnealedLangevin(2.5)),
        ("known", lambda wrong: small().inpaint(torch.zeros(2), torch.zeros(2))),
    ],
)
def test_wrong_settings_are_named(argument: str, call: Any) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=argument):
        call("euler")


def test_samplers_are_plain_values() -> None:
    assert models.DDIM(0.5) == models.DDIM(eta=0.5) != models.DDIM()
    assert hash(models.PNDM(spacing=[0.0, 1.0])) == hash(models.PNDM(spacing=(0.0, 1.0)))
    assert {name: type(chosen(name)).__name__ for name in SAMPLERS} == {
        "ancestral": "Ancestral",
        "ddim": "DDIM",
        "pndm": "PNDM",
        "dpm": "DPMSolver",
        "heun": "Heun",
        "langevin": "AnnealedLangevin",
    }


def test_images_and_sequences() -> None:
    network = models.DenoisingNetwork(channels=8, num_blocks=1)
    image = models.DiffusionModel((2, 3, 5), num_levels=4, network=network, encoding="bits").eval()
    x = torch.randint(4, (2, 2, 3, 5)).double()
    known = torch.zeros(3, 5, dtype=torch.bool)
    known[:1] = True
    filled = image.inpaint(x, known, num_samples=2, num_steps=3)
    assert torch.equal(filled[..., :1, :], x[..., :1, :].expand(2, 2, 2, 1, 5))
    assert image.sample(2, sampler="dpm", num_steps=3).shape == (2, 2, 3, 5)
    sequence = models.DenoisingNetwork("sequence", channels=8, num_blocks=1)
    text = models.DiffusionModel((6,), num_levels=4, network=sequence).eval()
    assert text.sample(2, sampler="heun", num_steps=3).shape == (2, 6)


def test_single_precision_is_near_double() -> None:
    model = exact_model(schedule=nets.LinearLogSNR(-13.3, 5.0))
    drawn = {}
    for dtype in (torch.float64, torch.float32):
        levels = model.levels(50).to(dtype)
        chain = ReverseDiffusion(model.estimator, levels, (3,))
        model.estimator.means = model.estimator.means.to(dtype)
        model.estimator.scale = model.estimator.scale.to(dtype)
        z = torch.linspace(-1.5, 1.5, 30, dtype=torch.float64).reshape(10, 3).to(dtype)
        for name in ("ddim", "pndm", "dpm", "heun"):
            with torch.no_grad():
                *_, end = chosen(name).walk(chain, z)
            assert end.dtype == dtype
            drawn[name, dtype] = end.double()
    for name in ("ddim", "pndm", "dpm", "heun"):
        one, other = drawn[name, torch.float32], drawn[name, torch.float64]
        assert torch.allclose(one, other, atol=2e-5), name
