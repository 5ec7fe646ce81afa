"""Mutants of diffusion models: their chains, bounds, decoders and form of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
import torch.nn.functional as F
from pyro.infer import Trace_ELBO, TraceTMC_ELBO
from torch import Tensor

from pyro_genmodels import models
from pyro_genmodels.distributions import Denoised, ReverseDiffusion
from pyro_genmodels.distributions.diffusion import reverse
from pyro_genmodels.distributions.diffusion.steps import (
    Step,
    gaussian_log_density,
    log_variance_of,
    step_between,
    step_divergence,
)
from pyro_genmodels.models.base import loss
from pyro_genmodels.models.diffusion import diffusion_model
from pyro_genmodels.models.diffusion.chain_end import ChainEnd
from pyro_genmodels.models.diffusion.encoding import ChainData
from pyro_genmodels.models.diffusion.level_sampler import DrawnSteps, StepSampler
from pyro_genmodels.models.likelihoods.elementwise import Levels
from pyro_genmodels.nets import signal_and_noise
from tests.distributions import test_diffusion_chains as chain_laws
from tests.models import test_diffusion_oracles as oracle_laws
from tests.models import test_diffusion_training_form as training_laws
from tests.mutants.mutation import Mutation, assert_caught, method_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]

Law = Callable[[], None]


def caught(mutation: Mutation, law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a law that is a test, whatever of it fails."""

    def seeded() -> None:
        pyro.set_rng_seed(0)
        law()

    error = (AssertionError, pytest.fail.Exception)
    assert_caught(seeded, mutation, monkeypatch, r"\S", error=error)


def around(part: Any, name: str, change: Callable[..., Any]) -> Mutation:
    """Replace a method by what ``change(original, self, *arguments)`` gives."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = getattr(part, name)

        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            return change(original, self, *arguments, **options)

        patch.setattr(part, name, method)

    return mutate


def in_module(module: Any, name: str, function: Callable[..., Any]) -> Mutation:
    return lambda patch: patch.setattr(module, name, function)


def any_record(patch: pytest.MonkeyPatch) -> None:
    """Take the training form once a guide has run, replayed or not."""
    ran: list[bool] = []
    infer = MODEL.infer

    def noting(self: models.DiffusionModel, x: Tensor, context: Tensor | None) -> None:
        ran.append(self._takes_one_level)
        infer(self, x, context)

    patch.setattr(MODEL, "infer", noting)
    patch.setattr(MODEL, "_follows", lambda self, z: bool(ran) and ran.pop())


def closed_form() -> None:
    oracle_laws.test_every_bound_is_the_closed_form("gaussian", 8)


def one_level() -> None:
    training_laws.test_one_level_is_unbiased_for_the_bound_of_these_steps("mixture", True)


def drawn_from() -> None:
    oracle_laws.test_evidence_sums_to_one_and_is_drawn_from("noise")


# Chains and their bound


def factors(change: Callable[[Step, Tensor, Tensor], Step]) -> Callable[..., Step]:
    """Factors of a step that are changed given both its levels."""
    return lambda low, high, rank=0: change(step_between(low, high, rank), low, high)


def from_squares(low: Tensor, high: Tensor, rank: int = 0) -> Step:
    """As papers write it: what is removed is one less a ratio of squares."""
    step = step_between(low, high, rank)
    removed = 1 - torch.sigmoid(-high) / torch.sigmoid(-low)
    return step._replace(log_removed=(removed / torch.sigmoid(high)).log())


def without_entropy(x: Tensor, chain: ReverseDiffusion) -> tuple[Tensor, Tensor]:
    """A ratio that takes the least noised state for given."""
    first, nats = chain_laws.draw_log_ratio(x, chain)
    residual = first - signal_and_noise(chain.levels[0])[0] * x
    log_variance = F.logsigmoid(chain.levels[0]).expand_as(residual)
    return first, nats + gaussian_log_density(residual, log_variance, chain.rank)


class Silent:
    """A decoder that costs nothing."""

    def log_prob(self, x: Tensor) -> Tensor:
        return 0 * x.sum(-1)


def scored_clamped(original: Any, self: ReverseDiffusion, *arguments: Any) -> Tensor:
    """The estimate is clamped, as samplers have it, but only where chains are scored."""
    denoise = self.denoise

    def clamped(*given: Any) -> Denoised:
        found = denoise(*given)
        return Denoised(found.x.clamp(-0.2, 0.2), found.variance_share)

    self.denoise = clamped
    try:
        scores: Tensor = original(self, *arguments)
    finally:
        self.denoise = denoise
    return scores


MODEL = models.DiffusionModel

CHAIN_MUTANTS: dict[str, tuple[Mutation, Law]] = {
    "steps off by one": (
        around(
            MODEL,
            "_step_terms",
            lambda original, self, values, context, index, *keep: original(
                self, values, context, (index - 1).clamp(min=1), *keep
            ),
        ),
        closed_form,
    ),
    "the network is given the level of the next state": (
        around(
            ReverseDiffusion,
            "_denoised",
            lambda original, self, z, level: original(self, z, level - 9 / 8),
        ),
        closed_form,
    ),
    "beta for beta-tilde": (
        in_module(
            reverse,
            "step_between",
            factors(lambda step, *_: step._replace(log_variance=step.log_added)),
        ),
        closed_form,
    ),
    "the variance for a scale": (
        in_module(
            reverse,
            "step_between",
            factors(lambda step, *_: step._replace(log_variance=step.log_variance / 2)),
        ),
        closed_form,
    ),
    "no step's signal kept": (
        in_module(
            reverse,
            "step_between",
            factors(lambda step, *_: step._replace(noise_factor=step.noise_factor / step.decay)),
        ),
        closed_form,
    ),
    "no decoder": (in_module(MODEL, "decode", lambda self, z: Silent()), closed_form),
    "no entropy of the last state": (
        in_module(diffusion_model, "draw_log_ratio", without_entropy),
        closed_form,
    ),
    "the mean over dimensions": (
        in_module(
            diffusion_model,
            "step_divergence",
            lambda step, error, *rest: step_divergence(step, error, *rest) / error.shape[-1],
        ),
        closed_form,
    ),
    "no prior": (method_of(MODEL, "_prior_divergence", lambda r, *_: 0 * r), closed_form),
    "T / (T - 1) in training": (method_of(MODEL, "_one_level", lambda r, *_: r * 7 / 6), one_level),
    "the first step left out": (
        method_of(StepSampler, "draw", lambda r, *_: r._replace(step=r.step.clamp(min=2))),
        one_level,
    ),
    "data as given, not standardised": (
        in_module(MODEL, "_values", lambda self, x: self.data(x.to(self.dtype))),
        oracle_laws.test_evidence_after_standardization_is_in_the_datas_units,
    ),
    "an estimate clamped by the scorer alone": (
        around(ReverseDiffusion, "log_prob_of_steps", scored_clamped),
        drawn_from,
    ),
    "the ends of a learned variance exchanged": (
        in_module(
            reverse,
            "log_variance_of",
            lambda step, kind, share: log_variance_of(
                step, kind, None if share is None else 1 - share
            ),
        ),
        lambda: chain_laws.test_learned_variance_lies_between_its_ends("posterior"),
    ),
    "a small step from squares of alpha": (
        in_module(chain_laws, "step_between", from_squares),
        lambda: chain_laws.test_steps_near_each_other_in_float32(1000),
    ),
}


@pytest.mark.parametrize("mutant", CHAIN_MUTANTS)
def test_chains(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caught(*CHAIN_MUTANTS[mutant], monkeypatch)


# Decoders


class BitByBit:
    """Bits independent of each other: patterns that are no level have a share, too."""

    def __init__(self, data: ChainData, z: Tensor, level: Tensor) -> None:
        alpha, sigma = signal_and_noise(level)
        self.data, self.logits = data, 2 * alpha * z / sigma**2

    def log_prob(self, x: Tensor) -> Tensor:
        nats = F.logsigmoid(self.logits * self.data(x))
        return nats.flatten(nats.dim() - self.data.rank).sum(-1)


DECODER_MUTANTS: dict[str, tuple[Mutation, Law]] = {
    "bits decoded one by one": (
        in_module(ChainData, "decoder", lambda self, z, level: BitByBit(self, z, level)),
        lambda: oracle_laws.test_decoders_of_maps_sum_to_one("bits"),
    ),
    "no sum over the levels": (
        method_of(Levels, "log_prob", lambda r, self, x: r + self.logits.max(-1).values),
        lambda: oracle_laws.test_decoders_of_maps_sum_to_one("levels"),
    ),
    "noise of the data's scale, not of the state's": (
        method_of(ChainData, "evidence", lambda r, *_: r / 2),
        lambda: oracle_laws.test_decoders_of_maps_sum_to_one("levels"),
    ),
    "the most probable level drawn": (
        lambda patch: patch.setattr(
            Levels,
            "sample",
            lambda self, shape=(): (
                self.logits.argmax(-1).to(self.logits.dtype).expand(*shape, *self.batch_shape)
            ),
        ),
        oracle_laws.test_samples_are_as_frequent_as_the_evidence_says,
    ),
}


@pytest.mark.parametrize("mutant", DECODER_MUTANTS)
def test_decoders(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caught(*DECODER_MUTANTS[mutant], monkeypatch)


# Training


def independent(self: StepSampler, batch: torch.Size) -> DrawnSteps:
    step = torch.randint(self.num_steps, batch) + 1
    return DrawnSteps(step, (step - 0.5) / self.num_steps, torch.full(batch, self.num_steps * 1.0))


def by_mode(self: models.DiffusionModel, x: Tensor | None, context: Tensor | None) -> Tensor:
    """The form that belongs to a mode, and not to what the guide has done."""
    chain: Any = self.reverse(context)
    if self._takes_one_level:
        chain = ChainEnd(chain).mask(False)
    z = pyro.sample("z", chain)
    return pyro.sample("x", self._decoder(z.select(-1 - self._rank, 0)), obs=x)


def own_level() -> None:
    with pytest.MonkeyPatch.context() as patch:
        training_laws.test_each_particle_has_its_own_level(Trace_ELBO, patch)


def conditioned() -> None:
    training_laws.test_conditioned_chains_are_scored_in_training_mode()


ESTIMATE_MUTANTS: dict[str, tuple[Mutation, Law, str]] = {
    "the mean of all steps for their sum": (
        method_of(MODEL, "_step_terms", lambda r, self, *_: r / self.num_steps),
        lambda: training_laws.test_bound_estimate_averages_to_the_bound("gaussian oracle"),
        "bound_estimate averages to the ELBO",
    ),
    "half of the steps in training": (
        method_of(MODEL, "_one_level", lambda r, *_: r / 2),
        lambda: training_laws.test_estimators_agree("gaussian oracle", True),
        "Trace_ELBO = log_weights",
    ),
}


@pytest.mark.parametrize("mutant", ESTIMATE_MUTANTS)
def test_estimates(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, law, message = ESTIMATE_MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message)


TRAINING_MUTANTS: dict[str, tuple[Mutation, Law]] = {
    "the form taken by mode": (in_module(MODEL, "generate", by_mode), conditioned),
    "the form taken by what a guide left behind": (
        any_record,
        conditioned,
    ),
    "estimates taken for weights": (
        in_module(loss, "_NEED_WEIGHTS", ()),
        lambda: training_laws.test_estimators_that_exponentiate_are_refused(TraceTMC_ELBO),
    ),
    "levels that are not stratified": (
        in_module(StepSampler, "draw", independent),
        lambda: training_laws.test_draws_are_stratified((64,)),
    ),
    "particles that share a level": (
        around(
            MODEL,
            "_one_level",
            lambda original, self, values, context, batch: original(
                self, values, context, values.shape[:-1]
            ).expand(batch),
        ),
        own_level,
    ),
    "importance weights left out": (
        method_of(
            StepSampler,
            "draw",
            lambda r, self, *_: r._replace(weight=torch.full_like(r.weight, self.num_steps)),
        ),
        training_laws.test_weighted_terms_sum_to_the_terms_of_all_steps,
    ),
    "contexts always kept": (
        around(
            MODEL,
            "_step_terms",
            lambda original, self, values, context, index, keep=None: original(
                self, values, context, index, None
            ),
        ),
        training_laws.test_label_dropout_trains_the_null_class,
    ),
}


@pytest.mark.parametrize("mutant", TRAINING_MUTANTS)
def test_training(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caught(*TRAINING_MUTANTS[mutant], monkeypatch)
