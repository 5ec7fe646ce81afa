"""Mutants of the objectives of VAEs: beta, KL divergence, warm-up, free bits, least rate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.distributions.kl import _KL_REGISTRY

from pyro_genmodels import models, testing
from pyro_genmodels.distributions.ar1 import correlation_of, log_scale_of
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.models.vae.objectives import LatentCost
from tests.models import test_wake_sleep as wake_sleep_laws
from tests.mutants.mutation import Mutation, assert_caught, method_of
from tests.mutants.parts import binary, vae

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def beta_in_the_model_only(patch: pytest.MonkeyPatch) -> None:
    def infer(self: Any, x: Tensor, context: Tensor | None) -> None:
        pyro.sample("z", self.encode(x, context))

    patch.setattr(models.BetaVAE, "infer", infer)


def beta_in_the_guide_only(patch: pytest.MonkeyPatch) -> None:
    original = models.BetaVAE.generate

    def generate(self: Any, x: Tensor | None, context: Tensor | None) -> Tensor:
        scale, self.latent_scale = self.latent_scale, LatentScale()
        try:
            return original(self, x, context)
        finally:
            self.latent_scale = scale

    patch.setattr(models.BetaVAE, "generate", generate)


@pytest.mark.parametrize("mutation", [beta_in_the_model_only, beta_in_the_guide_only])
def test_beta_on_one_side(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae(models.BetaVAE, beta=4.0).eval()

    def law() -> None:
        testing.check_estimators_agree(model, binary(3), num_runs=30)

    assert_caught(law, mutation, monkeypatch, "Trace_ELBO = ")


def kl_of(change: Callable[[Any, Any], Tensor]) -> Mutation:
    """Replace the KL divergence of the encoder's Gaussian from the standard one."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setitem(_KL_REGISTRY, (DiagonalNormal, StandardNormal), change)
        patch.setattr("torch.distributions.kl._KL_MEMOIZE", {})

    return mutate


def true_kl(q: Any, p: Any) -> Tensor:
    return (0.5 * (q.loc**2 + q.scale**2 - 1) - q.log_scale).sum(-1).expand(q.batch_shape)


def reversed_kl(q: Any, p: Any) -> Tensor:
    return (0.5 * ((1 + q.loc**2) / q.scale**2 - 1) + q.log_scale).sum(-1)


KL_MUTANTS = {
    "flipped sign": kl_of(lambda q, p: -true_kl(q, p)),
    "doubled": kl_of(lambda q, p: 2 * true_kl(q, p)),
    "the other way around": kl_of(reversed_kl),
    "without the log-scales": kl_of(lambda q, p: true_kl(q, p) + q.log_scale.sum(-1)),
    "of the first unit alone": kl_of(
        lambda q, p: true_kl(DiagonalNormal(q.loc[..., :1], q.log_scale[..., :1]), p)
    ),
}


@pytest.mark.parametrize("mutant", KL_MUTANTS)
def test_kl_of_the_posterior(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = testing.randomize_parameters(vae(), 0.3).eval()
    # Far from the prior, where a wrong divergence shows, and narrow, so that noise hides nothing.
    model.encoder.mlp.layers[-1].bias.data += torch.tensor([2.0, 2.0, -1.0, -1.0])

    def law() -> None:
        testing.check_estimators_agree(model, binary(3), num_runs=30)

    assert_caught(law, KL_MUTANTS[mutant], monkeypatch, "Trace_ELBO = TraceMeanField_ELBO")


def wider(result: Tensor, self: Any, *_: Any) -> Tensor:
    return self.loc + self.scale * (result - self.loc)  # type: ignore[no-any-return]


POSTERIOR_MUTANTS = {
    "drawn with the variance for a scale": method_of(DiagonalNormal, "rsample", wider),
    "log-density of unit scales": method_of(
        DiagonalNormal, "log_prob", lambda r, self, *_: r + self.log_scale.sum(-1)
    ),
    "log-density of the other sign of the log-scale": method_of(
        DiagonalNormal, "log_prob", lambda r, self, *_: r + 2 * self.log_scale.sum(-1)
    ),
}


@pytest.mark.parametrize("mutant", POSTERIOR_MUTANTS)
def test_scale_of_the_posterior(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = testing.randomize_parameters(vae(), 0.4).eval()

    def law() -> None:
        testing.check_evidence_normalized(model, num_particles=4000)

    message = "evidence sums to one|effective number"
    assert_caught(law, POSTERIOR_MUTANTS[mutant], monkeypatch, message)


def cost_of_latents(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a step pays for the latents, in nats an example, and the KL divergence by units."""
    torch.manual_seed(0)
    loss = models.ELBOLoss(model)(x)
    torch.manual_seed(0)
    posterior = model.encode(x)
    reconstruction = -model.decode(posterior.rsample()).log_prob(x).mean()
    kl = 0.5 * (posterior.mean.square() + posterior.variance - 1 - posterior.variance.log())
    return loss - reconstruction, kl


def never_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LatentScale, "off", lambda self: contextlib.nullcontext())


def always_training(patch: pytest.MonkeyPatch) -> None:
    """Count whatever runs the guide as a step."""
    method_of(models.BetaVAE, "infer", lambda r, self, *_: self.latent_scale.advance())(patch)


WARMUP_MUTANTS: dict[str, Mutation] = {
    "never rises": lambda patch: patch.setattr(LatentScale, "advance", lambda self: None),
    "rises at every run of the guide": always_training,
    "rises beyond its end": lambda patch: patch.setattr(
        LatentScale, "value", property(lambda self: self.beta * self.step / self.warmup_steps)
    ),
    "ends at one, not at beta": method_of(LatentScale, "forward", lambda r, self: rescaled(self)),
    "stays while bounding": never_off,
    "rises from zero always": lambda patch: patch.setattr(
        LatentScale,
        "value",
        property(lambda self: self.beta * (1e-4 + (1 - 1e-4) * (self.step / 4).clamp(max=1.0))),
    ),
}


def rescaled(scale: LatentScale) -> Any:
    return pyro.poutine.scale(scale=scale.value / scale.beta if scale.is_on else 1.0)


@pytest.mark.parametrize("mutant", WARMUP_MUTANTS)
def test_warm_up(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = binary(3)

    def law(first: float | None = None) -> None:
        options = {"beta": 2.0, "warmup_steps": 4, "first_beta": first}
        model, weights = vae(models.BetaVAE, **options).train(), []
        for _ in range(6):
            cost, kl = cost_of_latents(model, x)
            weights.append((cost / kl.sum(-1).mean()).item())
            model.eval()
            bounded = torch.zeros(())
            with model.bounding():
                torch.manual_seed(1)
                bounded -= Trace_ELBO().loss(model.model, model.guide, x)
            torch.manual_seed(1)
            assert torch.allclose(bounded, model.log_weights(x).sum()), "a bound, at beta one"
            model.train()
        start = 2e-4 if first is None else first
        path = [start + (2 - start) * min(1.0, step / 4) for step in range(1, 7)]
        assert weights == pytest.approx(path), "the weight moves to beta"

    def laws() -> None:
        law()
        law(first=6.0)

    message = "the weight moves to beta|a bound, at beta one"
    assert_caught(laws, WARMUP_MUTANTS[mutant], monkeypatch, message)


def free_bits(change: Callable[[Any, Tensor], Tensor]) -> Mutation:
    return lambda patch: patch.setattr(LatentCost, "_with_free_bits", change)


FREE_BITS_MUTANTS = {
    "at most, not at least": free_bits(
        lambda self, kl: kl.mean(-2).clamp_max(self.free_bits).sum(-1).expand(len(kl))
    ),
    "of each example": free_bits(lambda self, kl: kl.clamp_min(self.free_bits).sum(-1)),
    "of all units together": free_bits(
        lambda self, kl: kl.sum(-1).mean().clamp_min(self.free_bits).expand(len(kl))
    ),
    "paid beyond": free_bits(
        lambda self, kl: (kl.mean(-2) - self.free_bits).clamp_min(0).sum(-1).expand(len(kl))
    ),
    "no clamp": free_bits(lambda self, kl: kl.sum(-1)),
}


@pytest.mark.parametrize("mutant", FREE_BITS_MUTANTS)
def test_free_bits(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = testing.randomize_parameters(vae(), 0.7), binary(8)
    kl = cost_of_latents(model, x)[1].mean(0)
    # Between the two units' divergences, so that one pays the clamp and one its own.
    model = testing.randomize_parameters(vae(free_bits=float(kl.mean())), 0.7)

    def law() -> None:
        cost, kl = cost_of_latents(model, x)
        expected = kl.mean(0).clamp_min(model.latent_cost.free_bits).sum()
        assert torch.allclose(cost, expected), "each unit pays its mean, or the free bits"

    assert_caught(law, FREE_BITS_MUTANTS[mutant], monkeypatch, "each unit pays")


def committed(name: str, change: Callable[..., float]) -> Mutation:
    """Replace what delta-VAE takes for its correlation or its log-scale."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(f"pyro_genmodels.models.vae.delta_vae.{name}", change)

    return mutate


DELTA_MUTANTS: dict[str, Mutation] = {
    "sequence: half the nats": committed("correlation_of", lambda d, n: correlation_of(d / 2, n)),
    "sequence: all nats in each feature": committed(
        "correlation_of", lambda d, n: correlation_of(2 * d, n)
    ),
    "sequence: a step more": committed("correlation_of", lambda d, n: correlation_of(d, n + 1)),
    "variance: half the nats": committed("log_scale_of", lambda d: log_scale_of(d / 2)),
    "variance: all nats in each unit": committed("log_scale_of", lambda d: log_scale_of(8 * d)),
    "variance: the variance for a scale": committed("log_scale_of", lambda d: 2 * log_scale_of(d)),
}


@pytest.mark.parametrize("mutant", DELTA_MUTANTS)
def test_least_rate(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest independent Gaussian is at delta, and no encoder comes nearer."""
    commitment, x = mutant.partition(":")[0], binary(50)

    def law() -> None:
        torch.manual_seed(0)
        model = models.DeltaVAE(
            (4,),
            num_levels=2,
            delta=3.0,
            commitment=models.RateCommitment(commitment, num_steps=4),
            latent_dim=8,
        )
        prior, none = model.prior_law(), torch.zeros(8)
        log_scale = model.encode(x).log_scale[0]
        if commitment == "sequence":
            correlation = prior.correlation
            place = torch.arange(4.0)
            dense = correlation ** (place[:, None] - place).abs()
            # By the precision of each entry given all others; features do not interact.
            log_scale = -0.5 * dense.inverse().diagonal().log().repeat_interleave(2)
        least = torch.distributions.kl_divergence(DiagonalNormal(none, log_scale), prior)
        assert torch.allclose(least, torch.tensor(3.0)), "the least rate is delta"
        for scale in (0.01, 0.5):
            posterior = testing.randomize_parameters(model, scale).encode(x)
            rate = torch.distributions.kl_divergence(posterior, prior)
            assert (rate > 3.0 - 1e-9).all(), "the least rate is delta"

    assert_caught(law, DELTA_MUTANTS[mutant], monkeypatch, "the least rate is delta")


def test_plates_that_are_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("pyro_genmodels.models.base.plates._outer_plates", lambda: ({}, set()))

    def law() -> None:
        wake_sleep_laws.test_every_model("VAE", 0.5, True)

    assert_caught(law, mutate, monkeypatch, "collide", error=ValueError)
