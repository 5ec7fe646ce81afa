"""Mutants of masses, and of what every distribution promises."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor
from torch.distributions import constraints

from pyro_genmodels import distributions, nets, testing
from tests.cases import multiscale, vivid
from tests.distributions.test_normals import LOC, LOG_SCALE
from tests.distributions.test_normals import test_kl_is_that_of_plain_normals as kl_law
from tests.mutants.mutation import Mutation, assert_caught
from tests.mutants.parts import small_pixelcnn

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def scores_small_pixels_again(patch: pytest.MonkeyPatch) -> None:
    """Take the large network's word for the small image too, which it was given."""

    def evaluate(self: Any, x: Tensor, features: Tensor | None) -> Tensor:
        return self.large.evaluate(x, self.enlarged(self.reduced(x), None))

    patch.setattr(nets.MultiScaleNet, "evaluate", evaluate)


def test_multiscale_that_scores_the_small_image_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = vivid(testing.randomize_parameters(multiscale(1, 2, 3)).eval())
    law = distributions.MultiScalePixelRNN(net)
    assert_caught(
        lambda: testing.check_normalized(law), scores_small_pixels_again, monkeypatch, "sum to one"
    )


def test_weights_that_ignore_the_earlier_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels drawn from components of their own, each by the pixel's weights, still sum to one.

    The published formula, one component for all channels, is what tells: tests of the mixture.
    """
    from pyro_genmodels import _logistic_mixture
    from tests.distributions.test_logistic_mixture import (
        test_linked_channels_are_the_published_mixture_over_pixels as published,
    )

    original = _logistic_mixture.channel_laws

    def unlinked(raw: Tensor, channels: int, levels: int, **options: Any) -> Any:
        laws = original(raw, channels, levels, **options)
        law = next(laws)
        weights = law.chunk(3, -1)[0]
        for i in range(channels):
            level = yield torch.cat([weights, *law.chunk(3, -1)[1:]], -1)
            law = laws.send(level) if i + 1 < channels else law

    assert_caught(
        lambda: published(5),
        lambda patch: patch.setattr(_logistic_mixture, "channel_laws", unlinked),
        monkeypatch,
        "not close",
    )


class Tailless(distributions.DiscretizedLogistic):
    """Gives every bin the density's mass between its edges: the outer bins lose their tails."""

    def log_prob(self, value: Tensor) -> Tensor:
        half = 1 / (self.num_levels - 1)
        centre, scale = 2 * value * half - 1, self.log_scale.exp()
        upper = torch.sigmoid((centre + half - self.loc) / scale)
        return (upper - torch.sigmoid((centre - half - self.loc) / scale)).log()


class RightTailTwice(distributions.DiscretizedLogistic):
    """A published test of the right tail catches the last level but one too."""

    def log_prob(self, value: Tensor) -> Tensor:
        half = 1 / (self.num_levels - 1)
        lower = (2 * value * half - 1 - half - self.loc) / self.log_scale.exp()
        tail = torch.nn.functional.logsigmoid(-lower)
        return torch.where(value >= self.num_levels - 2, tail, super().log_prob(value))


@pytest.mark.parametrize("mutant", [Tailless, RightTailTwice])
def test_log_mass(mutant: type[distributions.DiscretizedLogistic]) -> None:
    loc, log_scale = torch.tensor([-0.9, 0.3, 0.95]), torch.tensor([-1.0, -2.0, -1.0])
    testing.check_normalized(distributions.DiscretizedLogistic(loc, log_scale, 256))
    with pytest.raises(AssertionError, match="sum to one"):
        testing.check_normalized(mutant(loc, log_scale, 256))


def mask_swallowed(patch: pytest.MonkeyPatch) -> None:
    original = distributions.PixelCNN.log_prob
    patch.setattr(
        distributions.PixelCNN,
        "log_prob",
        lambda self, value: original(self, value).mean().expand(original(self, value).shape),
    )


def validation_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(distributions.PixelCNN, "_validate_sample", lambda *_: None)


def expand_forgets_validation(patch: pytest.MonkeyPatch) -> None:
    original = distributions.PixelCNN.expand

    def expand(self: Any, batch_shape: Any, _instance: Any = None) -> Any:
        new = original(self, batch_shape, _instance)
        new._validate_args = False
        return new

    patch.setattr(distributions.PixelCNN, "expand", expand)


DISTRIBUTION_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "scores mixed over the batch": (mask_swallowed, "one by one"),
    "no validation": (validation_off, "is a ValueError"),
    "expand forgets validation": (expand_forgets_validation, "keeps validate_args"),
}


@pytest.mark.parametrize("mutant", DISTRIBUTION_MUTANTS)
def test_distribution(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, message = DISTRIBUTION_MUTANTS[mutant]
    pixelcnn = small_pixelcnn()
    assert_caught(lambda: testing.check_distribution(pixelcnn), mutation, monkeypatch, message)


def everywhere_observed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        distributions.ObservedPart, "log_prob", lambda self, value: self.base.log_prob(value)
    )


def test_missing_elements_that_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    base = dist.Normal(torch.zeros(3), 1.0, validate_args=False).to_event(1)
    law = distributions.ObservedPart(base)
    message = "an element may be missing|ValueError"
    assert_caught(lambda: testing.check_validation(law), everywhere_observed, monkeypatch, message)


def test_scales_that_reparameterisers_cannot_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the distribution's parameter was the logarithm."""
    normal = distributions.DiagonalNormal

    def mutate(patch: pytest.MonkeyPatch) -> None:
        names = {"loc": constraints.real_vector, "log_scale": constraints.real_vector}
        patch.setattr(normal, "arg_constraints", names)

    def law() -> None:
        config = {"z": LocScaleReparam(0.5)}
        program = poutine.reparam(lambda: pyro.sample("z", normal(LOC, LOG_SCALE)), config=config)
        program()

    assert_caught(law, mutate, monkeypatch, "`scale` must", error=ValueError)


def test_kl_between_other_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summed over the first one's rank, whatever the second one's is."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("pyro_genmodels.distributions.gaussian.check_same_rank", lambda q, p: None)

    def law() -> None:
        kl_law("DiagonalNormal", "DiagonalNormal/rank 3")

    message, error = "DID NOT RAISE", pytest.fail.Exception
    assert_caught(law, mutate, monkeypatch, message, error=error)


def test_kl_to_plain_normals_of_variances(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        plain = lambda d: dist.Normal(d.loc, d.variance).to_event(d.event_dim)  # noqa: E731
        patch.setattr("pyro_genmodels.distributions.gaussian._plain", plain)

    def law() -> None:
        kl_law("DiagonalNormal", "DiagonalNormal")

    assert_caught(law, mutate, monkeypatch, "not close")


def theta_is_a_dispersion(patch: pytest.MonkeyPatch) -> None:
    original = distributions.NegativeBinomial.__init__

    def init(self: Any, mu: Tensor, theta: Tensor, **options: Any) -> None:
        original(self, mu, 1 / theta, **options)

    patch.setattr(distributions.NegativeBinomial, "__init__", init)


def by_log_gamma_alone(patch: pytest.MonkeyPatch) -> None:
    """The formula as printed: sums to one, and loses its digits for large counts."""

    def log_prob(self: Any, value: Tensor) -> Tensor:
        mu, theta = self.mu, self.theta
        nats = torch.lgamma(value + theta) - torch.lgamma(theta) - torch.lgamma(value + 1)
        return nats + theta * (theta / (theta + mu)).log() + value * (mu / (theta + mu)).log()

    patch.setattr(distributions.NegativeBinomial, "log_prob", log_prob)


def zeros_twice(patch: pytest.MonkeyPatch) -> None:
    """Score a zero as an additional one only."""

    def log_prob(self: Any, value: Tensor) -> Tensor:
        nats = distributions.NegativeBinomial.log_prob(self, value)
        zero = torch.where(value == 0, self.zero_logits.expand_as(nats), nats)
        return zero - torch.nn.functional.softplus(self.zero_logits)

    patch.setattr(distributions.ZeroInflatedNegativeBinomial, "log_prob", log_prob)


COUNT_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "theta is a dispersion": (theta_is_a_dispersion, "not close"),
    "by log-gamma alone": (by_log_gamma_alone, "assert"),
    "zeros are additional ones": (zeros_twice, "not close"),
}


@pytest.mark.parametrize("mutant", COUNT_MUTANTS)
def test_counts(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.distributions import test_negative_binomial as laws

    mutation, message = COUNT_MUTANTS[mutant]

    def law() -> None:
        laws.test_log_mass_is_that_of_scipy()
        laws.test_extreme_parameters_keep_their_digits(torch.float64, 1e-12)

    assert_caught(law, mutation, monkeypatch, message)
