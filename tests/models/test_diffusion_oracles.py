"""Diffusion models whose likelihood is known: exact denoisers, finite data, enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_genmodels import models, testing
from pyro_genmodels.distributions import Denoised
from pyro_genmodels.models.diffusion.encoding import ChainData
from pyro_genmodels.nets import LinearLogSNR, signal_and_noise
from pyro_genmodels.testing.sampling import all_levels, standard_error
from tests.distributions.diffusion_oracles import (
    MixtureDenoiser,
    end_costs,
    estimate_by,
    exact_elbo,
    gaussian,
    gaussian_evidence,
    last_state_density,
    step_costs,
    two_modes,
)

pytestmark = pytest.mark.usefixtures("double")
NETWORK = models.DenoisingNetwork(hidden=(8,), dropout=0.0)


def with_oracle(
    data: MixtureDenoiser, num_steps: int, first: float = -4.0, last: float = 5.0
) -> models.DiffusionModel:
    """A model of continuous data whose network is the exact denoiser."""
    schedule = LinearLogSNR(first, last)
    shape = data.means.shape[1:]
    model = models.DiffusionModel(shape, num_steps=num_steps, schedule=schedule, network=NETWORK)
    estimate_by(model, data)
    return model.double().eval()


def small(shape: tuple[int, ...] = (2,), **options: Any) -> models.DiffusionModel:
    """A small model away from its initial values."""
    torch.manual_seed(0)
    options = {"num_levels": 3, "num_steps": 8, "network": NETWORK} | options
    model = models.DiffusionModel(shape, **options).double()
    return testing.randomize_parameters(model, 0.1).eval()


def near(values: Tensor, expected: Tensor) -> None:
    """Means over the first dimension are the expected ones, to 3 standard errors."""
    deviation = (values.mean(0) - expected).abs() / (standard_error(values) + 1e-9)
    bound = math.sqrt(9 + 2 * math.log(max(1, deviation.numel())))
    assert deviation.max() < bound, (values.mean(0), expected, deviation)


# Known data


@pytest.mark.parametrize("num_steps", [2, 8, 32, 128])
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_every_bound_is_the_closed_form(name: str, num_steps: int) -> None:
    """Of whole chains, of their steps' divergences and of both ends."""
    data = {"gaussian": gaussian, "mixture": two_modes}[name]()
    model, x = with_oracle(data, num_steps), data.sample(2)
    levels = model.levels().detach()
    with torch.no_grad():
        weights = model.log_weights(x, num_particles=1000 if num_steps < 100 else 300)
        near(weights, exact_elbo(data, levels, x))
        rates = torch.stack([model.rates(x)["z"] for _ in range(100)])
        reports = [model.report(x) for _ in range(100)]
    near(rates[..., :-1], torch.stack([step_costs(data, levels, row) for row in x]))
    decoder, prior = zip(*[end_costs(levels, row) for row in x], strict=True)
    assert torch.allclose(rates[0, :, -1], torch.stack(prior), rtol=1e-9)
    near(torch.stack([report["decoder"] for report in reports]), torch.stack(decoder))
    assert torch.allclose(reports[0]["last state"], torch.stack(prior), rtol=1e-9)


def test_another_number_of_steps_scores_another_model() -> None:
    data = gaussian(2)
    model, x = with_oracle(data, 8, -2.0, 4.0), torch.tensor([[-1.2, 0.3]])
    for num_steps in (3, 8, 20):
        levels = model.levels(num_steps).detach()
        evidence = gaussian_evidence(data, levels, x)
        with torch.no_grad():
            nats = model.log_weights(x, num_particles=10_000, num_steps=num_steps)
        near((nats - evidence).exp(), torch.ones(1))


def test_samples_have_the_chains_own_moments() -> None:
    """Not the data's: the chain of few steps has another variance."""
    data = gaussian(2)
    model = with_oracle(data, 4, -2.0, 4.0)
    for num_steps in (4, 2):
        levels = model.levels(num_steps).detach()
        grid = torch.linspace(-7, 9, 801)
        drawn = model.sample(20_000, num_steps=num_steps)
        for d in range(2):
            one = MixtureDenoiser(data.means[:, d : d + 1], data.variances[:, d : d + 1])
            density = gaussian_evidence(one, levels, grid[:, None]).exp()
            mean = torch.trapezoid(density * grid, grid)
            variance = torch.trapezoid(density * (grid - mean) ** 2, grid)
            assert abs(float(drawn[:, d].mean() - mean)) < 4 * float(variance.sqrt()) / 141
            assert abs(float(drawn[:, d].var() / variance) - 1) < 0.05


def test_evidence_after_standardization_is_in_the_datas_units() -> None:
    data = gaussian(2)
    model = with_oracle(data, 6, -2.0, 4.0)
    x = torch.tensor([[-1.2, 0.3], [-0.6, 1.4]])
    evidence = gaussian_evidence(data, model.levels().detach(), x)
    spread = torch.randn(50, 2) * torch.tensor([3.0, 0.1]) + 40
    model.standardize(spread)
    scale, shift = spread.std(0, correction=0), spread.mean(0)
    given = x * scale + shift
    with torch.no_grad():
        nats = model.log_weights(given, num_particles=10_000)
    near((nats - (evidence - scale.log().sum())).exp(), torch.ones(2))
    # And whatever else takes data.
    plain = with_oracle(data, 6, -2.0, 4.0)
    for name, more in (("rates", 0), ("report", 0), ("bound_estimate", -scale.log().sum())):
        found = []
        for which, points in ((model, given), (plain, x)):
            torch.manual_seed(0)
            result = getattr(which, name)(points)
            found.append(result if name == "bound_estimate" else [*result.values()][-1])
        assert torch.allclose(found[0], found[1] + more, rtol=1e-8), name


# Finite data


class OneOf(nn.Module):
    """The exact denoiser of a finite data set: the mean of its values, by their posterior."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values
        self.self_conditioning = False

    def forward(self, z: Tensor, level: Tensor, *_: Tensor | None) -> Denoised:
        alpha, sigma = (f[..., None, None] for f in signal_and_noise(level))
        fit = -0.5 * ((z.unsqueeze(-2) - alpha * self.values) / sigma).square().sum(-1)
        return Denoised(fit.softmax(-1) @ self.values)


ROWS = [[0, 0, 3], [1, 2, 0], [3, 3, 3], [2, 0, 1], [0, 3, 2]]


@pytest.mark.parametrize("encoding", ["levels", "bits", "learned"])
def test_bound_of_a_finite_data_set_tends_to_the_logarithm_of_its_size(encoding: Any) -> None:
    x = torch.tensor(ROWS).double()
    model = small((3,), num_levels=4, encoding=encoding, schedule=LinearLogSNR(-9.0, 9.0))
    estimate_by(model, OneOf(model.data(x).detach()))
    nats = []
    for num_steps in (4, 64, 1024):
        model.num_steps = num_steps
        with torch.no_grad():
            weights = model.log_weights(x, num_particles=40)
        nats.append(-float(weights.mean()))
    assert nats[0] > nats[1] > math.log(5)
    assert nats[2] == pytest.approx(math.log(5), abs=0.08)
    # What is left falls with the steps' size.
    assert nats[1] - math.log(5) > 3 * (nats[2] - math.log(5))


def test_continuous_points_cost_the_logarithm_of_their_number() -> None:
    """And the decoder its noise, which the bound of densities has on top."""
    points = torch.tensor([[-1.0, 0.2], [0.4, 1.0], [1.2, -0.8]])
    model = with_oracle(MixtureDenoiser(points, torch.zeros(1)), 1024, -9.0, 9.0)
    with torch.no_grad():
        nats = -model.log_weights(points, num_particles=20).mean()
        steps = torch.stack([model.rates(points)["z"].sum(-1) for _ in range(10)]).mean()
    decoder, _ = end_costs(model.levels().detach(), points[0])
    assert float(nats - decoder) == pytest.approx(math.log(3), abs=0.03)
    assert float(steps) == pytest.approx(math.log(3), abs=0.05)


@pytest.mark.parametrize("num_levels", [2, 3, 17])
@pytest.mark.parametrize("encoding", ["levels", "bits", "learned"])
def test_untrained_levels_are_the_exact_model_of_uniform_data(
    encoding: Any, num_levels: int
) -> None:
    """A network of zeros leaves each level what its own noised value tells of it."""
    torch.manual_seed(0)
    model = models.DiffusionModel(
        (2,), num_levels=num_levels, num_steps=1024, network=NETWORK, encoding=encoding
    )
    model.double().eval()
    x = torch.randint(num_levels, (20, 2)).double()
    with torch.no_grad():
        nats = -model.log_weights(x, num_particles=2).mean() / 2
    assert float(nats) == pytest.approx(math.log(num_levels), abs=0.06)


# Evidence by quadrature and by enumeration


@pytest.mark.parametrize("variance", ["posterior", "forward", "learned"])
@pytest.mark.parametrize("num_levels", [None, 3])
def test_weights_average_to_the_evidence(num_levels: int | None, variance: Any) -> None:
    """By quadrature on a line, of continuous and discrete data, conditional ones among them."""
    prediction = "data" if variance == "learned" else "auto"
    model = small(
        (1,),
        num_levels=num_levels,
        num_steps=4,
        schedule=LinearLogSNR(-2.5, 4.0),
        denoising=models.Denoising(prediction, variance=variance),
        num_classes=2,
    )
    x = torch.tensor([[0.0], [1.0], [2.0]]) if num_levels else torch.tensor([[-0.7], [0.1], [0.9]])
    for label in (0, 1):
        context = torch.tensor(label)
        levels = model.levels().detach()
        z, mass = last_state_density(model.estimator, levels, variance, context)
        with torch.no_grad():
            scores = model.decode(z[:, None, None]).log_prob(x)
            evidence = (scores.exp() * mass[:, None]).sum(0).log()
            nats = model.log_weights(x, context.expand(3), num_particles=10_000)
        near((nats - evidence).exp(), torch.ones(3))
        if num_levels:
            assert float(evidence.exp().sum()) == pytest.approx(1.0, abs=1e-6)


def blurred(**options: Any) -> models.DiffusionModel:
    """Of much noise at the first level, so that a random network's chains reach all data."""
    return small(schedule=LinearLogSNR(-2.0, 3.0), **options)


SUMMED: dict[str, Callable[[], models.DiffusionModel]] = {
    "levels": small,
    "noise": lambda: blurred(denoising="noise"),
    "data": lambda: blurred(denoising="data"),
    "velocity": lambda: blurred(denoising="velocity"),
    "forward variance": lambda: blurred(denoising=models.Denoising("data", variance="forward")),
    "learned variance": lambda: blurred(denoising=models.Denoising("data", variance="learned")),
    "bits": lambda: small(encoding="bits"),
    "learned vectors": lambda: small(encoding=models.LevelEncoding("learned", size=2)),
    "fourier features": lambda: blurred(denoising=models.Denoising("velocity", fourier_features=2)),
}


@pytest.mark.parametrize("name", SUMMED)
def test_evidence_sums_to_one_and_is_drawn_from(name: str) -> None:
    """Eight steps, two elements, three levels, whose bits have a pattern too many."""
    model = SUMMED[name]()
    testing.check_evidence_normalized(model, num_particles=1000)
    testing.check_model_sampler(model, num_samples=10_000, num_particles=1000)


def test_samples_are_as_frequent_as_the_evidence_says() -> None:
    """Of a last state so noisy that much of a sample is the decoder's draw."""
    model = small((1,), num_steps=3, schedule=LinearLogSNR(0.5, 3.0))
    z, mass = last_state_density(model.estimator, model.levels().detach())
    x = torch.arange(3.0)[:, None]
    evidence = model.decode(z[:, None, None]).log_prob(x).exp().T @ mass
    assert float(evidence.sum()) == pytest.approx(1.0, abs=1e-6)
    shares = (model.sample(20_000) == x.T).double().mean(0)
    assert (shares - evidence).abs().max() < 4 * 0.5 / math.sqrt(20_000)


# Decoders


@pytest.mark.parametrize("num_levels", [2, 3, 5, 17, 256])
@pytest.mark.parametrize("encoding", ["levels", "bits", "learned"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoders_sum_to_one_whatever_the_last_state(
    encoding: Any, num_levels: int, dtype: torch.dtype
) -> None:
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    model = models.DiffusionModel(
        (1,), num_levels=num_levels, num_steps=2, network=NETWORK, encoding=encoding
    ).to(dtype)
    size = model.data.shape.numel()
    x = torch.arange(num_levels, dtype=dtype)[:, None]
    clean = model.data(x) * signal_and_noise(model.schedule.ends[0])[0]
    states = [clean, torch.randn(50, size, dtype=dtype)]
    states += [torch.full((1, size), value, dtype=dtype) for value in (0.0, 1e3, -1e3, 1e-30)]
    z = torch.cat(states).detach()
    with torch.no_grad():
        nats = model.decode(z[:, None]).log_prob(x)
    assert bool((nats.logsumexp(-1).abs() < 1e-4).all()), "the decoder sums to one"
    # Clean values are decoded rightly.
    assert bool((nats[:num_levels].argmax(-1) == torch.arange(num_levels)).all())


@pytest.mark.parametrize("encoding", ["levels", "bits", "learned"])
def test_decoders_of_maps_sum_to_one(encoding: Any) -> None:
    """Each element by the entries of its own vector."""
    torch.manual_seed(0)
    data = ChainData(torch.Size((2, 1, 2)), 3, models.LevelEncoding.of(encoding)).double()
    level, every = torch.tensor(-1.0), all_levels("x", 3, torch.Size((2, 1, 2))).double()
    z = 3 * torch.randn(5, *data.shape)
    nats = data.decoder(z[:, None], level).log_prob(every)
    assert torch.allclose(nats.logsumexp(-1), torch.zeros(5), atol=1e-12)
    # An element's evidence is the density of its own part of the noised values.
    alpha, sigma = signal_and_noise(level)
    density = -0.5 * ((z[:, None] - alpha * data(every)) / sigma).square().flatten(2).sum(-1)
    assert torch.allclose(nats, density.log_softmax(-1), rtol=1e-9)


# Predictions


class Says(nn.Module):
    """A network that says what another's estimate is, in the terms of a prediction."""

    def __init__(self, prediction: str, estimate: Callable[..., Tensor], schedule: Any) -> None:
        super().__init__()
        self.prediction, self.estimate, self.schedule = prediction, estimate, schedule
        self.input_shape = (2,)

    def forward(self, z: Tensor, place: Tensor, context: Any = None, keep: Any = None) -> Tensor:
        first, last = self.schedule.ends
        level = first + (last - first) * place
        x = self.estimate(z, level)
        alpha, sigma = (f[..., None] for f in signal_and_noise(level))
        outputs = {
            "data": x,
            "velocity": (alpha * z - x) / sigma,
            "noise": (z - alpha * x) / sigma - z,  # to which the noised data are added
        }
        return outputs[self.prediction]


@pytest.mark.parametrize("prediction", ["data", "velocity", "noise"])
def test_predictions_of_one_estimate_give_the_same_terms(prediction: Any) -> None:
    levels = small()
    other = small(denoising=prediction)
    other.schedule.load_state_dict(levels.schedule.state_dict())
    net = Says(prediction, lambda z, g: levels.estimator(z, g).x, levels.schedule)
    other.estimator.net = net
    x = torch.randint(3, (40, 2)).double()
    found = []
    for model in (levels, other):
        torch.manual_seed(0)
        with torch.no_grad():
            parts = [model.rates(x)["z"], model.log_weights(x, num_particles=2)]
            parts += [model.bound_estimate(x), model.sample(50)]
        found.append(parts)
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


# Schedules


def test_learned_ends_are_kept_and_left_out_of_weight_decay() -> None:
    model = small()
    model.schedule.first.data.fill_(-6.5)
    other = models.DiffusionModel((2,), num_levels=3, num_steps=8, network=NETWORK).double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.levels(), model.levels())
    assert float(other.levels()[0]) == -6.5
    names = dict(model.schedule.named_parameters())
    assert set(names) == set(model.schedule.undecayed)
    # The bound reaches both; other objectives say nothing of them and leave them alone.
    models.ELBOLoss(model.train())(torch.zeros(5, 2)).backward()
    assert all(p.grad is not None and bool(p.grad != 0) for p in names.values())
    assert not any(p.requires_grad for p in small(objective="simple").schedule.parameters())
