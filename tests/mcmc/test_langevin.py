"""Langevin dynamics: what is sampled, by Pyro's MCMC and of many examples at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import HMC, MCMC
from torch import Tensor
from torch.distributions import biject_to

from pyro_genmodels import nets, testing
from pyro_genmodels.mcmc import MALA, Langevin, langevin_samples
from tests.mcmc import langevin_laws as laws
from tests.mcmc.langevin_laws import chain, half_square

pytestmark = pytest.mark.usefixtures("double")
KERNELS = [MALA, Langevin]


@pytest.mark.parametrize("law", [n for n in vars(laws) if n.startswith("check_")])
def test_law(law: str) -> None:
    getattr(laws, law)()


@pytest.mark.parametrize("step_size", [0.3, 1.7])
def test_mala_is_hmc_with_one_step(step_size: float) -> None:
    options = {"adapt_step_size": False, "adapt_mass_matrix": False}
    found = []
    for kernel in (
        MALA(potential_fn=half_square, step_size=step_size, **options),
        HMC(potential_fn=half_square, step_size=step_size, num_steps=1, **options),
    ):
        torch.manual_seed(0)
        found.append(chain(kernel, 100, x=torch.zeros(3))["x"])
    assert torch.equal(*found)


def test_each_sample_is_one_evaluation_after_adaptation_too() -> None:
    """Pyro's `HMC(num_steps=1)` takes more, as soon as its steps are shortened."""
    count = 0

    def steep(z: dict[str, Tensor]) -> Tensor:
        nonlocal count
        count += 1
        return half_square({"x": 50 * z["x"]})

    def evaluations(kernel: Any) -> int:
        samples = [0]
        mcmc = MCMC(
            kernel,
            20,
            100,
            initial_params={"x": torch.zeros(3)},
            disable_progbar=True,
            hook_fn=lambda kernel, _, stage, i: samples.append(count),
        )
        mcmc.run()
        return samples[-1] - samples[-21]

    options = {"potential_fn": steep, "adapt_mass_matrix": False}
    assert evaluations(MALA(**options)) == 20
    assert evaluations(Langevin(potential_fn=steep, step_size=0.01)) == 20
    assert evaluations(HMC(num_steps=1, **options)) > 100


def test_the_step_of_the_unadjusted_kernel() -> None:
    kernel = Langevin(potential_fn=half_square, step_size=0.5)
    torch.manual_seed(0)
    x = chain(kernel, 2, 0, x=torch.full((3,), 2.0))["x"]
    torch.manual_seed(0)
    noise = torch.randn(2, 3)
    expected = 2.0 * (1 - 0.5**2 / 2) + 0.5 * noise[0]
    torch.testing.assert_close(x[0], expected)
    torch.testing.assert_close(x[1], expected * (1 - 0.5**2 / 2) + 0.5 * noise[1])


def test_batched_steps_are_the_kernel_s() -> None:
    torch.manual_seed(0)
    x = chain(Langevin(potential_fn=half_square, step_size=0.5), 7, x=torch.ones(3))["x"][-1]
    torch.manual_seed(0)
    torch.testing.assert_close(langevin_samples(torch.neg, torch.ones(3), 7, 0.5), x)


def test_nothing_of_the_unadjusted_kernel_is_adapted() -> None:
    kernel = Langevin(potential_fn=half_square, step_size=0.7)
    mcmc = MCMC(kernel, 5, 200, initial_params={"x": torch.zeros(2)}, disable_progbar=True)
    mcmc.run()
    assert kernel.step_size == 0.7
    assert mcmc.diagnostics().keys() == {"x"}


def test_adaptation_reaches_the_acceptance_aimed_at() -> None:
    torch.manual_seed(0)
    mcmc = MCMC(
        MALA(potential_fn=half_square),
        1000,
        500,
        initial_params={"x": torch.zeros(20)},
        disable_progbar=True,
    )
    mcmc.run()
    assert mcmc.diagnostics()["acceptance rate"]["chain 0"] == pytest.approx(0.574, abs=0.08)


def test_a_dense_mass_matrix_learns_correlations() -> None:
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, 0.95], [0.95, 1.0]])
    target = dist.MultivariateNormal(torch.zeros(2), covariance)
    kernel = MALA(potential_fn=lambda z: -target.log_prob(z["x"]), full_mass=True)
    x = chain(kernel, 600, 300, x=torch.zeros(2))["x"]
    inverse = kernel.inverse_mass_matrix["x",]
    assert inverse[0, 1] > 0.5 * inverse.diagonal().prod().sqrt()
    laws.require_mean("covariance", x[:, 0] * x[:, 1], 0.95)


def model(data: Tensor) -> None:
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    with pyro.plate("data", len(data)):
        pyro.sample("x", dist.Normal(mean, scale).to_event(1), obs=data)


@pytest.mark.filterwarnings("ignore:num_chains")
@pytest.mark.parametrize("Kernel", KERNELS)
def test_several_chains(Kernel: Any) -> None:
    data = 3 + torch.randn(20, 2)
    mcmc = MCMC(Kernel(model, step_size=0.1), 20, 40, num_chains=2, disable_progbar=True)
    mcmc.run(data)
    samples = mcmc.get_samples(group_by_chain=True)
    assert {name: tuple(value.shape) for name, value in samples.items()} == {
        "scale": (2, 20),
        "mean": (2, 20, 2),
    }
    assert (samples["scale"] > 0).all()
    assert not torch.equal(*samples["mean"])
    mcmc.summary()


@pytest.mark.parametrize("Kernel", KERNELS)
def test_enumerated_sites_plates_and_own_transforms(Kernel: Any) -> None:
    def mixture() -> None:
        centre = pyro.sample("centre", dist.Uniform(0.0, 2.0))
        with pyro.plate("data", 4):
            part = pyro.sample("part", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(centre * part, 1.0), obs=torch.ones(4))

    kernel = Kernel(mixture, step_size=0.2, max_plate_nesting=1)
    centre = chain(kernel, 10, 10)["centre"]
    assert ((centre > 0) & (centre < 2)).all()
    transforms = {"centre": biject_to(dist.Uniform(0.0, 2.0).support).inv}
    kernel = Kernel(mixture, step_size=0.2, max_plate_nesting=1, transforms=transforms)
    assert chain(kernel, 10, 10)["centre"].max() < 2


@pytest.mark.parametrize("Kernel", KERNELS)
def test_compiled(Kernel: Any) -> None:
    options: dict[str, Any] = {"jit_compile": True, "ignore_jit_warnings": True}
    found = []
    for given in ({}, options):
        torch.manual_seed(0)
        mcmc = MCMC(Kernel(model, step_size=0.1, **given), 5, 5, disable_progbar=True)
        mcmc.run(torch.ones(4, 2))
        found.append(mcmc.get_samples()["mean"])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("Kernel", KERNELS)
def test_a_model_without_latent_sites(Kernel: Any) -> None:
    kernel = Kernel(lambda: pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0)))
    kernel.setup(0)
    assert kernel.sample({}) == {}


@pytest.mark.parametrize("Kernel", KERNELS)
def test_a_cleared_cache_is_filled_again(Kernel: Any) -> None:
    options = {"adapt_step_size": False} if Kernel is MALA else {}
    kernel = Kernel(potential_fn=half_square, step_size=0.1, **options)
    kernel.initial_params = {"x": torch.ones(2)}
    kernel.setup(0)
    kernel.clear_cache()
    assert kernel.sample({"x": torch.full((2,), 5.0)})["x"].min() > 3
    assert kernel.logging()["step size"] == "1.00e-01"


@pytest.mark.parametrize("Kernel", KERNELS)
def test_an_energy_is_sampled(Kernel: Any) -> None:
    score = nets.EnergyGradient(nets.MLP(2, 1, hidden=(4,), activation="softplus"))
    kernel = Kernel(potential_fn=score.potential_fn, step_size=0.1)
    assert chain(kernel, 5, 5, x=torch.zeros(2))["x"].isfinite().all()
    assert all(p.grad is None for p in score.parameters())


def test_each_example_is_accepted_or_rejected_alone() -> None:
    """Under the same random numbers one example's chain does not depend on the others'."""
    target = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    x = torch.randn(5, 3, 2)
    other = x.clone()
    other[1:] = 4.0
    ends = []
    for start in (x, other):
        torch.manual_seed(0)
        ends.append(langevin_samples(torch.neg, start, 9, 1.5, log_density=target.log_prob))
    assert torch.equal(ends[0][0], ends[1][0])
    assert not torch.equal(ends[0][1:], ends[1][1:])
    rejected = torch.tensor([-1e-3, -1e3])[:, None]  # of the second no step is accepted
    moved = langevin_samples(
        lambda x: torch.zeros_like(x),
        rejected,
        5,
        0.1,
        log_density=lambda x: -x.square().sum(-1) * (1 + 1e8 * (x[:, 0] < -1)),
    )
    assert (moved[0] != rejected[0]).all()


def test_what_is_not_finite_is_rejected() -> None:
    """A density with a hard end."""

    def log_density(x: Tensor) -> Tensor:
        return torch.where(x > 0, -x, -math.inf)

    def score(x: Tensor) -> Tensor:
        return torch.where(x > 0, -1.0, math.nan)

    x = dist.Exponential(1.0).sample((20_000,))
    end = langevin_samples(score, x, 20, 0.8, log_density=log_density)
    assert (end > 0).all()
    assert end.mean().item() == pytest.approx(1, abs=3 / 20_000**0.5)


def test_any_batch_shape_context_and_step_sizes() -> None:
    net = nets.EnergyGradient(nets.MLP(3, 1, hidden=(4,), activation="silu", num_classes=2))
    labels = torch.tensor([0, 1])

    def log_density(x: Tensor, context: Tensor) -> Tensor:
        return -net.energy(x, context)

    for batch in ((2,), (4, 2)):
        options: dict[str, Any] = {"context": labels}
        for _ in range(2):
            end = langevin_samples(net, torch.zeros(*batch, 3), 3, 0.1, **options)
            assert end.shape == (*batch, 3)
            assert not end.requires_grad
            options["log_density"] = log_density
    steps = torch.tensor([[1e-3], [1.0]])
    moved = langevin_samples(net, torch.zeros(2, 3), 1, steps, context=labels).norm(dim=-1)
    assert moved[0] < 0.02 < moved[1]
    assert langevin_samples(torch.neg, torch.zeros(3, dtype=torch.float32), 2, 0.1).dtype == (
        torch.float32
    )
    assert torch.equal(langevin_samples(torch.neg, labels.double(), 0, 0.1), labels.double())


def test_chains_are_of_real_values_and_have_step_sizes_of_their_shape() -> None:
    with pytest.raises(ValueError, match=r"`x` must be of a floating dtype; got torch.int64"):
        langevin_samples(torch.neg, torch.zeros(3, dtype=torch.long), 2, 0.1)
    for shape in ((2,), (4, 3), (7, 1, 3)):  # the last would make chains of one
        with pytest.raises(ValueError, match=r"`step_size` must be a number or broadcast to"):
            langevin_samples(torch.neg, torch.zeros(5, 3), 2, torch.full(shape, 0.1))


def test_starts_and_features_must_be_finite() -> None:
    net = nets.MLP(2, 2, context_shape=(3,))
    x = torch.randn(4, 2)
    testing.check_context_validation(
        lambda context: langevin_samples(net, x, 1, 0.1, context=context), torch.randn(4, 3)
    )
    with pytest.raises(ValueError, match="`x` must be finite"):
        langevin_samples(torch.neg, x * torch.nan, 1, 0.1)


def potential(value: Any) -> Callable[[Any], Any]:
    return lambda z: value + 0 * z["x"].sum() if isinstance(value, float) else value


def start(kernel: Any, **params: Any) -> None:
    chain(kernel, 2, 2, **params)


ERRORS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "neither": (lambda make: make(), "`model` must be given or `potential_fn`, one of them"),
    "both": (lambda make: make(model, half_square), "`model` must be given or `potential_fn`"),
    "step size": (lambda make: make(model, step_size=0.0), "`step_size` must be positive; got 0"),
    "a vector": (
        lambda make: start(make(potential_fn=lambda z: z["x"]), x=torch.zeros(2)),
        r"`potential_fn` must return a scalar tensor; got shape \(2,\)",
    ),
    "a number": (
        lambda make: start(make(potential_fn=lambda z: 1.0), x=torch.zeros(2)),
        "`potential_fn` must return a scalar tensor; got 1.0",
    ),
    "NaN": (
        lambda make: start(make(potential_fn=potential(math.nan)), x=torch.zeros(2)),
        "`initial_params` must have a finite potential energy; got nan",
    ),
    "outside": (
        lambda make: start(make(potential_fn=potential(math.inf)), x=torch.zeros(2)),
        "`initial_params` must have a finite potential energy; got inf",
    ),
    "integers": (
        lambda make: start(make(potential_fn=half_square), x=torch.zeros(2, dtype=torch.long)),
        "`initial_params` must be tensors of a floating dtype by name",
    ),
    "other sites": (
        lambda make: start(make(lambda: pyro.sample("y", dist.Normal(0, 1))), x=torch.zeros(())),
        r"`initial_params` must have the model's sites, \['y'\]; got \['x'\]",
    ),
    "plates": (
        lambda make: make(model, max_plate_nesting=1.5),
        "`max_plate_nesting` must be an integer",
    ),
}


@pytest.mark.parametrize("Kernel", KERNELS)
@pytest.mark.parametrize("error", ERRORS)
def test_impossible_arguments_are_named(error: str, Kernel: Any) -> None:
    call, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        call(Kernel)


@pytest.mark.parametrize("target", [0.0, 1.0, math.nan])
def test_impossible_targets_are_named(target: float) -> None:
    with pytest.raises(ValueError, match="`target_accept_prob` must lie between 0 and 1"):
        MALA(model, target_accept_prob=target)


def test_a_step_size_that_is_too_large_is_named() -> None:
    """The unadjusted chain of a Gaussian diverges beyond twice the standard deviation."""
    kernel = Langevin(potential_fn=half_square, step_size=20.0)
    with pytest.raises(ValueError, match="`step_size` must be so small that the chain's potential"):
        chain(kernel, 300, x=torch.ones(2))
    with pytest.raises(ValueError, match="`step_size` must be so small that the chains stay"):
        langevin_samples(torch.neg, torch.ones(2), 300, 20.0)


def singular(z: dict[str, Tensor]) -> Tensor:
    """A matrix that is not positive definite but for small values."""
    return torch.linalg.cholesky(torch.eye(2) * (1 - 5 * z["x"].sum())).sum()


def test_failures_that_pyro_handles_are_rejections() -> None:
    """And those of the unadjusted kernel, which cannot reject, are named."""
    kernel = MALA(potential_fn=singular, step_size=1.0, adapt_step_size=False)
    x = chain(kernel, 50, x=torch.zeros(1))["x"]
    assert (x.sum(-1) < 0.2).all()
    with pytest.raises(ValueError, match="`step_size` must be so small"):
        chain(Langevin(potential_fn=singular, step_size=1.0), 50, x=torch.zeros(1))


BATCHED_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"num_steps": -1}, "`num_steps` must be at least 0; got -1"),
    "half a step": ({"num_steps": 1.5}, "`num_steps` must be an integer; got 1.5"),
    "step size": ({"step_size": -1.0}, "`step_size` must be positive"),
    "one step size": ({"step_size": torch.tensor([0.0, 1.0])}, "`step_size` must be positive"),
    "score": (
        {"score": lambda x: x.sum(-1)},
        r"`score` must return values of its input's shape, \(4, 2\); got shape \(4,\)",
    ),
    "log-density": (
        {"log_density": lambda x: torch.zeros(3)},
        r"`log_density` must return values of shape \(\*batch\)",
    ),
    "start": ({"log_density": lambda x: -math.inf * x[:, 0].exp()}, "`log_density` must be finite"),
}


@pytest.mark.parametrize("error", BATCHED_ERRORS)
def test_impossible_arguments_of_batched_steps_are_named(error: str) -> None:
    change, message = BATCHED_ERRORS[error]
    options = {"score": torch.neg, "x": torch.zeros(4, 2), "num_steps": 2, "step_size": 0.1}
    with pytest.raises(ValueError, match=message):
        langevin_samples(**{**options, **change})
