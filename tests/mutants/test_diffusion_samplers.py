"""Mutants of diffusion models' samplers, each caught by a law beside it."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import models, nets, testing
from pyro_genmodels.models.diffusion import sampling
from pyro_genmodels.models.diffusion.samplers import (
    annealed_langevin,
    base,
    ddim,
    dpm_solver,
    guidance,
    heun,
    pndm,
)
from tests.models import sampler_laws as laws
from tests.mutants.mutation import Mutation, assert_caught, method_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def rewritten(module: Any, owner: type, method: str, old: str, new: str) -> Mutation:
    """Replace a piece of a method's source."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        source = textwrap.dedent(inspect.getsource(getattr(owner, method)))
        assert source.count(old) == 1, source
        names: dict[str, Any] = {}
        exec(source.replace(old, new), vars(module), names)
        patch.setattr(owner, method, names[method])

    return mutate


def small(**options: Any) -> Any:
    torch.manual_seed(0)
    network = models.DenoisingNetwork(hidden=(8,))
    model = models.DiffusionModel((2,), num_steps=4, network=network, **options)
    with torch.no_grad():
        for parameter in model.estimator.net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def labelled() -> Any:
    return small(num_classes=3, objective=models.DiffusionObjective(context_dropout=0.1))


def order_of(sampler: Any, order: int, kind: str = "jumps") -> Callable[[], Any]:
    return lambda: laws.check_order(sampler, order, kind)


def dpm(old: str, new: str) -> Mutation:
    return rewritten(dpm_solver, models.DPMSolver, "rule", old, new)


ORDERS: dict[str, tuple[Callable[[], Any], Mutation]] = {
    "multistep sign flipped": (
        order_of(models.DPMSolver(), 2),
        dpm("x + length / (2", "x - length / (2"),
    ),
    "missing ratio of steps": (
        order_of(models.DPMSolver(), 2),
        dpm("length / (2 * length_before)", "0.5"),
    ),
    "estimate of before never kept": (
        order_of(models.DPMSolver(), 2),
        dpm("before = x, length", "before = None"),
    ),
    "average at one end": (
        order_of(models.Heun(), 2),
        rewritten(heun, models.Heun, "rule", "(first + second) / 2", "first"),
    ),
    "second noise of the first state": (
        order_of(models.Heun(), 2),
        rewritten(heun, models.Heun, "rule", "noise_in(there, ", "noise_in(z, "),
    ),
    "Euler in the place of four estimates": (
        order_of(models.PNDM(), 2, "smooth"),
        lambda patch: patch.setitem(pndm._WEIGHTS, 4, (1.0, 0.0, 0.0, 0.0)),
    ),
    "oldest estimate first": (
        order_of(models.PNDM(), 2, "smooth"),
        lambda patch: patch.setitem(pndm._WEIGHTS, 4, pndm._WEIGHTS[4][::-1]),
    ),
}


@pytest.mark.parametrize("mutant", ORDERS)
def test_orders(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation = ORDERS[mutant]
    assert_caught(law, mutation, monkeypatch, "errors per halving")


SAME_NOISE = {
    "forward step's variance": rewritten(
        ddim,
        models.DDIM,
        "rule",
        "F.logsigmoid(move.target) +",
        "F.logsigmoid(move.source) +",
    ),
    "noise added beside all that was there": rewritten(
        ddim, models.DDIM, "rule", "x, move, removed)", "x, move)"
    ),
    "level of the target in the network": rewritten(
        ddim, models.DDIM, "rule", "z, move.source)", "z, move.target)"
    ),
    "nothing drawn": rewritten(ddim, models.DDIM, "rule", "self.eta * (0.5", "0 * (0.5"),
}


@pytest.mark.parametrize("mutant", SAME_NOISE)
def test_ddim_with_all_noise(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(
        lambda: laws.check_same_as_ancestral(nets.LinearLogSNR(-13.3, 5.0).double(), 32),
        SAME_NOISE[mutant],
        monkeypatch,
        "relative to the ancestral state",
    )


def test_forward_variance_for_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.distributions.diffusion import reverse

    law = small(num_levels=3, schedule=nets.LinearLogSNR(-1.5, 4.0))

    def drawn_otherwise(patch: pytest.MonkeyPatch) -> None:
        original = reverse.ReverseDiffusion.step_back

        def step_back(self: Any, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(self, "variance_kind", "forward")
                return original(self, z, low, high)

        patch.setattr(reverse.ReverseDiffusion, "step_back", step_back)

    assert_caught(
        lambda: testing.check_model_sampler(law, num_particles=500),
        drawn_otherwise,
        monkeypatch,
        "samples = evidence",
    )


def test_most_probable_data_for_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    law = small(num_levels=3, schedule=nets.LinearLogSNR(0.5, 4.0))
    mutation = rewritten(
        sampling,
        sampling.SampledDiffusion,
        "sample",
        "return self.decode(z).sample()",
        "return self._most_probable(z)",
    )
    assert_caught(
        lambda: testing.check_model_sampler(law, num_particles=500),
        mutation,
        monkeypatch,
        "samples = evidence",
    )


def test_corrector_with_norms_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def corrected(self: Any, z: Tensor, x: Tensor, level: Tensor) -> Tensor:
        _, sigma = nets.signal_and_noise(level)
        drift, noise = -base.noise_in(z, x, level) / sigma, torch.randn_like(z)
        norms = [each.norm(dim=-1).mean() for each in (noise, drift)]
        size = 2 * (self.snr * norms[0] / norms[1]) ** 2
        return z + size * drift + (2 * size).sqrt() * noise

    assert_caught(
        lambda: laws.check_neighbours_apart(labelled(), models.AnnealedLangevin(2)),
        lambda patch: patch.setattr(models.AnnealedLangevin, "corrected", corrected),
        monkeypatch,
        "samples depend on their batch",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("drift = -noise_in", "drift = noise_in"),
        ("(2 * size).sqrt()", "size.sqrt()"),
        ("level) / sigma", "level)"),
    ],
)
def test_langevin_steps(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = laws.exact_model(schedule=nets.LinearLogSNR(-3.0, 5.0), num_steps=60)
    variance = laws.SCALE.double() ** 2 + 2 * model.levels()[0].detach().exp()

    def law() -> None:
        sampler = models.AnnealedLangevin(8, snr=0.2)
        laws.check_moments(model, sampler, laws.MEAN.double(), variance, 0.06, number=4000)

    mutation = rewritten(annealed_langevin, models.AnnealedLangevin, "corrected", old, new)
    assert_caught(law, mutation, monkeypatch, "variance: off|mean:")


def guidance_mutant(old: str, new: str) -> Mutation:
    return rewritten(guidance, guidance.GuidedEstimator, "__call__", old, new)


def test_guidance_shifted_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The convention of papers, whose 0 is the model and -1 unconditional."""

    def shifted(patch: pytest.MonkeyPatch) -> None:
        original = guidance.GuidedEstimator.__init__

        def init(self: Any, estimator: Any, scale: Any, **options: Any) -> None:
            original(self, estimator, scale + 1, **options)

        patch.setattr(guidance.GuidedEstimator, "__init__", init)

    model = labelled()
    assert_caught(
        lambda: laws.check_guidance_ends(model, torch.tensor(1), "dpm"),
        shifted,
        monkeypatch,
        "guidance 0 is the model's own",
    )


def test_guidance_that_keeps_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    model = labelled()
    assert_caught(
        lambda: laws.check_guidance_ends(model, torch.tensor(1), "ancestral"),
        guidance_mutant("context if guidance == 1 else None", "context"),
        monkeypatch,
        "guidance 0 is the model's own",
    )


@pytest.mark.parametrize(
    "mutation",
    [
        guidance_mutant("free + guidance *", "given + guidance *"),
        guidance_mutant("given, free = found.x", "free, given = found.x"),
        method_of(guidance.ClassifierGuidance, "shift", lambda r, *_: -r),
        method_of(
            guidance.ClassifierGuidance,
            "shift",
            lambda r, self, z, level: r * nets.signal_and_noise(level)[0][..., None],
        ),
    ],
)
def test_classifier_and_label_agree(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(laws.check_classifier, mutation, monkeypatch, "by classifier")
