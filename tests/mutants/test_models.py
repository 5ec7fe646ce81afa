"""Mutants of models: their registration, their dequantization and their evidence."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, models, nets, testing, transforms
from pyro_genmodels.models.base import plates, random_weights
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.models.base.param_registration import RegisteredModule
from pyro_genmodels.models.diffusion.level_sampler import StepSampler
from pyro_genmodels.models.vae.objectives import LatentCost
from pyro_genmodels.nets.nvae import SpectralNorms
from pyro_genmodels.transforms.layers import act_norm
from tests import cases
from tests.grouped import grouped
from tests.models import test_random_weights, test_reconstruction, test_semi_supervised
from tests.mutants.mutation import Mutation, assert_caught
from tests.mutants.parts import binary, vae

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def fixed_name(patch: pytest.MonkeyPatch) -> None:
    """Register as ``pyro.module("model", self)`` does."""

    def register(self: Any) -> None:
        if self.__dict__.get("_registers", True):
            pyro.module("model", self)

    patch.setattr(RegisteredModule, "register_with_pyro", register)


def no_registration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RegisteredModule, "register_with_pyro", lambda self: None)


LIFE_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "fixed pyro.module name": (fixed_name, "a second instance trains|a deep copy trains"),
    "no registration": (no_registration, "the first instance trains"),
}


@pytest.mark.parametrize("mutant", LIFE_MUTANTS)
def test_lifecycle(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, message = LIFE_MUTANTS[mutant]
    torch.set_default_dtype(torch.float32)
    x = binary(8).float()

    def law() -> None:
        testing.check_trains(vae, x)

    assert_caught(law, mutation, monkeypatch, message)


def learns_in_eval_mode(patch: pytest.MonkeyPatch) -> None:
    """Go by the flag of the model, as all quantisers once did."""
    patch.setattr(nets.VectorQuantizer, "_updates", lambda self, update: bool(update))


def sets_frozen_parameters(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(act_norm, "is_frozen", lambda self: False)
    patch.setattr(act_norm, "set_values", lambda parameter, values: parameter.data.copy_(values))


def always(part: Any, name: str) -> Mutation:
    """Let a method run as in training mode."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = getattr(part, name)

        def method(self: Any, *arguments: Any) -> Any:
            before, self.training = self.training, True
            try:
                return original(self, *arguments)
            finally:
                self.training = before

        patch.setattr(part, name, method)

    return mutate


def restarts_frozen_codebooks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nets.VectorQuantizer, "_is_held", False)


def vqvae(learning: Any) -> models.VQVAE:
    torch.manual_seed(0)
    quantizer = nets.VectorQuantizer(2, 5, learning=learning)
    sizes = {"reduction": 2, "hidden_channels": 4, "residual_channels": 2, "num_blocks": 1}
    return models.VQVAE((1, 2, 2), quantizer=quantizer, **grouped(models.VQVAE, sizes))


def glow() -> models.FlowModel:
    torch.manual_seed(0)
    return models.FlowModel((1, 2, 2), transforms.ActNorm(1))


def rated(**options: Any) -> models.BetaVAE:
    torch.manual_seed(0)
    return models.BetaVAE(
        (1, 2, 2),
        latent_dim=1,
        network=models.VAENetwork(hidden=(4,)),
        **grouped(models.BetaVAE, options),
    )


FREEZING_MUTANTS: dict[str, tuple[Mutation, Callable[[], Any], str]] = {
    "a codebook that learns in eval mode": (
        learns_in_eval_mode,
        lambda: vqvae("ema"),
        "quantizer.codebook",
    ),
    "a frozen codebook that is placed": (
        restarts_frozen_codebooks,
        lambda: vqvae("gradient"),
        "codebook",
    ),
    "first data for frozen parameters": (sets_frozen_parameters, glow, "shift"),
    "a warm-up that goes on": (
        always(LatentScale, "advance"),
        lambda: rated(warmup_steps=9),
        "latent_scale.step",
    ),
    "a multiplier that goes on": (
        always(LatentCost, "advance"),
        lambda: rated(rate=0.5),
        "latent_cost.log_multiplier",
    ),
    "steps' shares that go on": (
        always(StepSampler, "learn"),
        lambda: cases.MODELS["DiffusionModel/one-element"]().part,
        "'squares', 'counts'",
    ),
    "spectral norms that go on": (
        always(SpectralNorms, "forward"),
        lambda: cases.MODELS["NVAE"]().part,
        "spectral_norms",
    ),
}


@pytest.mark.parametrize("mutant", FREEZING_MUTANTS)
def test_freezing(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, make, message = FREEZING_MUTANTS[mutant]
    torch.set_default_dtype(torch.float32)
    x = torch.randint(2, (8, *make().event_shape)).float()

    def law() -> None:
        testing.check_freezes(make, x, num_steps=2)

    assert_caught(law, mutation, monkeypatch, message)


def remembered_weights(patch: pytest.MonkeyPatch) -> None:
    """Remember log-weights by the identity of x, as a naive cache would."""
    original = models.VAE.log_weights
    memory: weakref.WeakKeyDictionary[Any, dict[int, Tensor]] = weakref.WeakKeyDictionary()

    def log_weights(self: Any, x: Tensor, context: Any = None, *, num_particles: int = 1) -> Any:
        known = memory.setdefault(self, {})
        if id(x) not in known or torch.is_grad_enabled():
            known[id(x)] = original(self, x, context, num_particles=num_particles)
        return known[id(x)]

    patch.setattr(models.VAE, "log_weights", log_weights)


def test_stale_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae().eval()

    def law() -> None:
        testing.check_no_stale_weights(model, binary(3))

    assert_caught(law, remembered_weights, monkeypatch, "fresh")


def dequantization_mutant(change: Callable[[Tensor, Tensor], Tensor]) -> Mutation:
    """Replace the draw ``v`` for levels ``x`` by ``change(v, x)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = distributions.UniformDequantization.rsample

        def rsample(self: Any, sample_shape: Any = ()) -> Tensor:
            return change(original(self, sample_shape), self.x)

        patch.setattr(distributions.UniformDequantization, "rsample", rsample)

    return mutate


DEQUANTIZATION_MUTANTS = {
    "rounds up": dequantization_mutant(lambda v, x: torch.where(v > x + 0.99, x + 1, v)),
    "covers half of the bin": dequantization_mutant(lambda v, x: (x + v) / 2),
    "covers two bins": dequantization_mutant(lambda v, x: x + 2 * (v - x)),
}


@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize("mutant", DEQUANTIZATION_MUTANTS)
def test_dequantization(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = transforms.RealNVP(2, width=4, num_couplings=2, activation="tanh", logit_margin=0.0)
    model = testing.randomize_parameters(models.FlowModel((2,), flow, num_levels=2)).eval()

    def law() -> None:
        testing.check_evidence_normalized(model, num_particles=1000)
        testing.check_model_sampler(model, num_particles=1000)

    # The flow itself refuses values beyond the levels, whose logit is none.
    mutation, error = DEQUANTIZATION_MUTANTS[mutant], (AssertionError, ValueError)
    message = "evidence|effective|a finite image"
    assert_caught(law, mutation, monkeypatch, message, error=error)


def loose_bounds(change: Callable[[Tensor], Tensor]) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = models.VAE.log_weights

        def log_weights(self: Any, *arguments: Any, **options: Any) -> Tensor:
            return change(original(self, *arguments, **options))

        patch.setattr(models.VAE, "log_weights", log_weights)

    return mutate


@pytest.mark.parametrize("shift", [0.3, -0.3])
def test_evidence_off_by_a_constant(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae().eval()

    def law() -> None:
        testing.check_evidence_normalized(model)

    assert_caught(law, loose_bounds(lambda w: w + shift), monkeypatch, "evidence sums to one")


def draws(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plates, "central_value", lambda distribution: distribution.sample())


def starts_at_zero(patch: pytest.MonkeyPatch) -> None:
    """Push zero through a flow, not the mean of its noise."""
    original = plates.central_value

    def central_value(distribution: Any) -> Tensor:
        if hasattr(distribution, "transforms"):
            base = distribution.base_dist
            distribution.base_dist = type(base)(torch.zeros_like(base.loc), scale=base.scale)
        return original(distribution)

    patch.setattr(plates, "central_value", central_value)


@pytest.mark.parametrize(
    ("mutation", "law", "name"),
    [
        (draws, test_reconstruction.test_nothing_is_drawn, "VAE"),
        (draws, test_reconstruction.test_it_decodes_the_posterior_mean, "VAE/full"),
        (starts_at_zero, test_reconstruction.test_it_decodes_the_posterior_mean, "VAE/iaf"),
    ],
)
def test_reconstruction(
    mutation: Mutation, law: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_caught(lambda: law(name), mutation, monkeypatch, "equal|close")


def uniform_labels(patch: pytest.MonkeyPatch) -> None:
    """Enumerate and observe labels under a uniform prior, whichever was asked for."""

    def label_distribution(self: Any) -> Any:
        return dist.Categorical(logits=torch.zeros(3).double(), validate_args=False)

    patch.setattr(models.SemiSupervisedVAE, "label_distribution", label_distribution)


def test_label_priors(monkeypatch: pytest.MonkeyPatch) -> None:
    def law() -> None:
        test_semi_supervised.test_labels_are_observed_data(test_semi_supervised.PRIOR)

    assert_caught(law, uniform_labels, monkeypatch, "not close")


def test_weights_drawn_again_for_the_density(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow's density is evaluated when its program has ended, and its weights are gone."""

    def law() -> None:
        test_random_weights.test_the_density_is_that_of_the_weights_drawn(test_random_weights.flow)

    def drawn_again(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(random_weights, "_has_network", lambda distribution: False)

    assert_caught(law, drawn_again, monkeypatch, "not close")
