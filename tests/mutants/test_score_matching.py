"""Mutants of score matching losses, of gradients of energies and of Langevin steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import models
from pyro_genmodels.mcmc import MALA, Langevin, batched
from pyro_genmodels.mcmc.one_step import OneStepHMC
from pyro_genmodels.models.scores import score_matching
from pyro_genmodels.nets import EnergyGradient
from tests.mcmc import langevin_laws
from tests.models import score_laws
from tests.mutants.mutation import Mutation, assert_caught, method_of
from tests.nets import test_energy_gradient

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]
Base = models.ScoreMatchingLoss
Denoising, Sliced = models.DenoisingScoreMatching, models.SlicedScoreMatching


def replaced(part: Any, name: str, function: Any) -> Mutation:
    return lambda patch: patch.setattr(part, name, function)


def denoised_by(target: Callable[[Tensor, float], Tensor]) -> Mutation:
    """Denoising score matching with another target than noise over its scale."""

    def loss(self: Any, x: Tensor, context: Any) -> Tensor:
        noise = torch.randn_like(x)
        score = self._score(x + self.noise_scale * noise, context)
        return self._half_squared_norm(score + target(noise, self.noise_scale))

    return replaced(Denoising, "_loss", loss)


def without_the_squares(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sliced, "_half_squared_norm", lambda self, v: torch.zeros(v.shape[:-1]))


def gaussian_projections(scale: float) -> Any:
    def directions(self: Any, x: Tensor) -> Any:
        for _ in range(self.num_projections):
            yield scale * torch.randn_like(x) / self.num_projections**0.5

    return directions


def times(factor: float) -> Callable[..., Any]:
    return lambda result, *_: result * factor


LOSSES: dict[str, tuple[str, Mutation]] = {
    "no half, denoising": ("denoising", method_of(Base, "_half_squared_norm", times(2))),
    "no half, sliced": ("sliced", method_of(Base, "_half_squared_norm", times(2))),
    "no half, exact": ("exact", method_of(Base, "_half_squared_norm", times(2))),
    "denoising: noise not divided by its scale": ("denoising", denoised_by(lambda n, s: n)),
    "denoising: noise divided by its variance": ("denoising", denoised_by(lambda n, s: n / s**2)),
    "denoising: the wrong sign": ("denoising", denoised_by(lambda n, s: -n / s)),
    "sliced: no squared norm": ("sliced", without_the_squares),
    "sliced: a sum over projections": (
        "several projections",
        method_of(Sliced, "_directions", lambda result, *_: (3**0.5 * v for v in result)),
    ),
    "sliced: directions of another length": (
        "sliced",
        replaced(Sliced, "_directions", gaussian_projections(2**0.5)),
    ),
    "the wrong sign of the trace": (
        "exact",
        method_of(score_matching, "_vector_jacobian", times(-1)),
    ),
    "a trace without gradients": (
        "exact",
        method_of(score_matching, "_vector_jacobian", lambda result, *_: result.detach()),
    ),
}


@pytest.mark.parametrize("mutant", LOSSES)
def test_loss(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, mutation = LOSSES[mutant]
    part = "gradients" if mutant == "a trace without gradients" else "Fisher divergence"
    assert_caught(
        lambda: score_laws.check_score_matching(name, count=20_000), mutation, monkeypatch, part
    )


def test_sliced_with_elements_of_one_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements of one sign: the quadratic form is that of the Jacobian's sum, not of its trace."""

    def directions(self: Any, x: Tensor) -> Any:
        yield torch.ones_like(x) * (2 * torch.randint_like(x[..., :1], 2) - 1)

    assert_caught(
        score_laws.check_sliced_is_exact,
        replaced(Sliced, "_directions", directions),
        monkeypatch,
        "sliced = exact",
    )


def summed_over_contexts(self: Any, x: Tensor, context: Any) -> Tensor:
    return x


def test_gradient_summed_over_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(
        test_energy_gradient.test_contexts_broadcast,
        replaced(EnergyGradient, "_for_each_context", summed_over_contexts),
        monkeypatch,
        "torch.Size",
    )


def test_score_that_is_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's own output: its Jacobian is not symmetric."""

    def forward(self: Any, x: Tensor, context: Any = None) -> Tensor:
        return self.net(x).repeat_interleave(2, -1)[..., : x.shape[-1]]

    assert_caught(
        lambda: test_energy_gradient.test_its_jacobian_is_symmetric("EnergyGradient"),
        replaced(EnergyGradient, "forward", forward),
        monkeypatch,
        "not close",
    )


def edited(old: str, new: str) -> Mutation:
    """Replace a piece of the source of the batched steps."""
    import inspect

    source = inspect.getsource(batched)
    assert source.count(old) == 1, old

    def mutate(patch: pytest.MonkeyPatch) -> None:
        namespace = dict(vars(batched))
        exec(compile(source.replace(old, new), batched.__file__, "exec"), namespace)
        patch.setattr(langevin_laws, "langevin_samples", namespace["langevin_samples"])

    return mutate


DRIFT = "x + 0.5 * step**2 * gradient + step * noise"
STEPS: dict[str, tuple[str, Mutation]] = {
    "drift without its half": (
        "check_biased_variance",
        edited(DRIFT, "x + step**2 * gradient + step * noise"),
    ),
    "noise without the root of two": (
        "check_biased_variance",
        edited(DRIFT, "x + 0.5 * step**2 * gradient + step * noise / 2**0.5"),
    ),
    "no asymmetry of the proposal": (
        "check_leaves_invariant",
        edited("new_nats - nats + asymmetry", "new_nats - nats"),
    ),
    "the asymmetry's wrong sign": (
        "check_leaves_invariant",
        edited("new_nats - nats + asymmetry", "new_nats - nats - asymmetry"),
    ),
    "asymmetry without its half": (
        "check_acceptance",
        edited("asymmetry = 0.5 *", "asymmetry ="),
    ),
    "the way back by the old gradient": (
        "check_leaves_invariant",
        edited("0.5 * step**2 * new_gradient) / step", "0.5 * step**2 * gradient) / step"),
    ),
    "the old gradient after a step": (
        "check_leaves_invariant",
        edited("gradient = torch.where(moved, new_gradient, gradient)", "pass"),
    ),
    "one decision for all": (
        "check_acceptance",
        edited(
            "torch.rand_like(log_ratio).log() < log_ratio",
            "(torch.rand(()).log() < log_ratio.mean()).expand_as(log_ratio)",
        ),
    ),
    "no test": ("check_leaves_invariant", edited("if log_density is None:", "if True:")),
}


@pytest.mark.parametrize("mutant", STEPS)
def test_steps(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation = STEPS[mutant]
    assert_caught(getattr(langevin_laws, law), mutation, monkeypatch, "measured")


def always_accepted(self: Any, params: Any) -> Any:
    return Langevin.sample(self, params)


def with_a_test(self: Any, params: Any) -> Any:
    return OneStepHMC.sample(self, params)


KERNELS: dict[str, tuple[str, Mutation]] = {
    "MALA without its test": (
        "check_kernel_acceptance",
        replaced(MALA, "sample", always_accepted),
    ),
    "MALA of two steps": ("check_kernel_acceptance", replaced(MALA, "num_steps", 2)),
    "the unadjusted kernel with a test": (
        "check_kernel_variance",
        replaced(Langevin, "sample", with_a_test),
    ),
}


@pytest.mark.parametrize("mutant", KERNELS)
def test_kernel(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, mutation = KERNELS[mutant]
    law = getattr(langevin_laws, name)
    assert_caught(lambda: law(1500), mutation, monkeypatch, "kernel")


def test_constrained_model_without_its_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro.infer.mcmc import util

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = util._PEMaker._potential_fn

        def potential(self: Any, params: Any) -> Any:
            given = {k: self.transforms[k].inv(v) for k, v in params.items()}
            steps = [self.transforms[k].log_abs_det_jacobian(given[k], params[k]) for k in params]
            return original(self, params) - sum(step.sum() for step in steps)

        patch.setattr(util._PEMaker, "_potential_fn", potential)

    assert_caught(lambda: langevin_laws.check_constrained(1000), mutate, monkeypatch, "rate|share")
