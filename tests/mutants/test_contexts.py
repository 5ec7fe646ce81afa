"""Mutants of contexts: of the check that they are finite, and of a label beside features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, models, nets, testing, transforms
from pyro_genmodels.distributions.autoregressive import base as distributions_base
from pyro_genmodels.models.base import arguments
from pyro_genmodels.nets.layers import context as layers_context
from pyro_genmodels.transforms.base import conditional
from tests.mutants.mutation import assert_caught

pytestmark = pytest.mark.once


def _call_a_model() -> Callable[[Tensor], Any]:
    model = models.VAE(
        (3,), latent_dim=2, network=models.VAENetwork(hidden=(4,)), context_shape=(2,)
    )
    return lambda context: model.model(torch.zeros(3, 3), context)


def _make_a_distribution() -> Callable[[Tensor], Any]:
    net = nets.MADENet((3,), 2, hidden=(4,), context_shape=(2,))
    return lambda context: distributions.MADE(net, context)


def _condition_a_transform() -> Callable[[Tensor], Any]:
    return transforms.conditional_affine_coupling(3, 2).condition


PARTS: dict[str, tuple[Any, Callable[[], Callable[[Tensor], Any]]]] = {
    "model": (arguments, _call_a_model),
    "distribution": (distributions_base, _make_a_distribution),
    "transform": (conditional, _condition_a_transform),
}


def _unless(fits: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    def check(context: Tensor) -> None:
        if not bool(fits(context).all()):
            raise ValueError("`context` must be finite; got 1 NaN or infinite elements.")

    return check


CHECKS: dict[str, Callable[[Tensor], None]] = {
    "none": lambda context: None,
    "of NaN alone": _unless(lambda context: ~context.isnan()),
    "of the first element": _unless(lambda context: context.flatten()[0].isfinite()),
    "from above": _unless(lambda context: context < torch.inf),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("part", PARTS)
def test_context_validation(part: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, make = PARTS[part]
    call = make()

    def law() -> None:
        testing.check_context_validation(call, torch.zeros(3, 2))

    def mutation(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, "check_finite_context", CHECKS[check])

    assert_caught(law, mutation, monkeypatch, "is an error: ")


def _pair_law() -> None:
    net = nets.MLP(3, 2, hidden=(8,), num_classes=4, context_shape=(2, 3, 4))
    x, maps = torch.linspace(-1, 1, 6).view(2, 3), torch.linspace(-1, 1, 48).view(2, 2, 3, 4)

    net = testing.randomize_parameters(net)
    labels = torch.tensor([1, 2])
    testing.check_context_pair(lambda context: net(x, context), labels, maps, num_classes=4)


def _embedding(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Any:
    """Split the context otherwise: ``change`` is given the labels and the features."""

    def split(context: Tensor, event_dim: int | None) -> tuple[Tensor, Tensor]:
        return change(*nets.split_context(context, event_dim))

    return split


PAIR_SPLITS: dict[str, tuple[Any, str]] = {
    "label ignored": (_embedding(lambda label, rest: (label * 0, rest)), "the label counts"),
    "features ignored": (_embedding(lambda label, rest: (label, rest * 0)), "the features counts"),
    "label of another example": (
        _embedding(lambda label, rest: (label.roll(1, 0), rest)),
        "the label of one example moves no other's values",
    ),
    "features of another example": (
        _embedding(lambda label, rest: (label, rest.roll(1, 0))),
        "the features of one example moves no other's values",
    ),
}


@pytest.mark.parametrize("name", PAIR_SPLITS)
def test_split_of_a_pair(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    split, message = PAIR_SPLITS[name]

    def mutation(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(layers_context, "split_context", split)

    assert_caught(_pair_law, mutation, monkeypatch, message)


def _last_elements(context: Tensor, rank: int) -> Tensor:
    return context.flatten(-rank)[..., -1]


def _truncated(context: Tensor, num_classes: int, rank: int) -> None:
    first = context.flatten(-rank)[..., 0].long()
    if not bool(((first >= 0) & (first < num_classes)).all()):
        raise ValueError("`context` must begin with labels, whole numbers; got another.")


PAIR_CHECKS: dict[str, tuple[str, Any, str]] = {
    "none": ("_check_joint_labels", lambda context, num_classes, rank: None, "is an error"),
    "of a truncated label": ("_check_joint_labels", _truncated, "label 0.5 is an error"),
    "label read from the last channel": ("_first_elements", _last_elements, "is an error|label"),
}


@pytest.mark.parametrize("name", PAIR_CHECKS)
def test_check_of_a_pair(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, broken, message = PAIR_CHECKS[name]

    def mutation(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(layers_context, function, broken)

    errors = (AssertionError, ValueError, IndexError)
    assert_caught(_pair_law, mutation, monkeypatch, message, error=errors)


def _size_factors_law() -> None:
    """The mean of counts is proportional to the size factor, not to the label in front of it."""
    likelihood = models.PoissonLikelihood((3,), size_factors=True)
    vae = models.VAE((3,), latent_dim=2, likelihood=likelihood, num_classes=3, context_shape=(2,))
    vae = testing.randomize_parameters(vae.double(), 0.1).eval()
    x = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 5.0]], dtype=torch.double)

    def call(context: Tensor) -> Tensor:
        torch.manual_seed(0)
        return vae.log_weights(x, context)[0]

    factors = torch.tensor([[0.5, 1.0], [2.0, 0.3]], dtype=torch.double)
    testing.check_context_pair(call, torch.tensor([1, 2]), factors, num_classes=3)


def test_a_likelihood_that_takes_the_label_for_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutation(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(models.VAE, "_likelihood_context", lambda self, given: given[..., :-1])

    message = "begin with a positive size factor"
    assert_caught(_size_factors_law, mutation, monkeypatch, message, error=ValueError)
