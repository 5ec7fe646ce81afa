"""Score matching: what the losses are, their shapes, gradients and errors, and what trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_genmodels import models, nets, testing
from pyro_genmodels.models import ScoreMatchingLoss
from tests.models.score_laws import (
    MAKERS,
    check_score_matching,
    check_sliced_is_exact,
    mixture,
    score_of,
)

pytestmark = pytest.mark.usefixtures("double")
DERIVATIVES = [name for name in MAKERS if name != "denoising"]


def mlp(features: int, **options: Any) -> nets.MLP:
    return nets.MLP(features, features, hidden=(7,), activation="silu", **options)


@pytest.mark.parametrize("name", MAKERS)
def test_loss_is_the_fisher_divergence_up_to_a_constant(name: str) -> None:
    check_score_matching(name)


def test_sliced_is_exact_in_mean() -> None:
    check_sliced_is_exact()


def test_sliced_is_exact_in_one_dimension() -> None:
    score, x = mlp(1), torch.randn(6, 1)
    exact = models.ExactScoreMatching(score)(x)
    assert torch.equal(models.SlicedScoreMatching(score)(x), exact)


def test_exact_is_the_trace_of_the_jacobian() -> None:
    score, x = mlp(3), torch.randn(3)
    jacobian = torch.autograd.functional.jacobian(score, x)
    expected = 0.5 * score(x).square().sum() + jacobian.trace()
    torch.testing.assert_close(models.ExactScoreMatching(score)(x), expected)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("batch_shape", [(), (1,), (4,), (2, 3), (0,)], ids=str)
def test_any_batch_shape(name: str, batch_shape: tuple[int, ...]) -> None:
    loss = MAKERS[name](mlp(3))
    assert loss(torch.randn(*batch_shape, 3)).shape == batch_shape


@pytest.mark.parametrize("name", MAKERS)
def test_images_and_labels(name: str) -> None:
    net = nets.ConvNet(2, 2, hidden=(4,), activation="silu", num_classes=3)
    loss = MAKERS[name](net, event_dim=3)
    assert loss(torch.randn(5, 2, 3, 4), torch.tensor([0, 1, 2, 2, 0])).shape == (5,)
    assert loss(torch.randn(5, 2, 3, 4), torch.tensor(1)).shape == (5,)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_examples_do_not_depend_on_each_other(name: str) -> None:
    loss, x = MAKERS[name](mlp(3)), torch.randn(2, 4, 3)
    torch.manual_seed(3)
    together = loss(x)
    x = x.clone()
    x[0, 0] += 5
    torch.manual_seed(3)
    changed = loss(x)
    assert torch.equal(together.flatten()[1:], changed.flatten()[1:])
    assert together[0, 0] != changed[0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_dtype(name: str, dtype: torch.dtype) -> None:
    loss = MAKERS[name](mlp(2).to(dtype))
    assert loss(torch.randn(3, 2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", ["network", "energy"])
def test_gradients_of_gradients(name: str, kind: str) -> None:
    """By finite differences, of parameters and of data."""
    score = mlp(2) if kind == "network" else nets.EnergyGradient(mlp(2))
    loss, weight = MAKERS[name](score), next(score.parameters())
    x = torch.randn(3, 2, requires_grad=True)

    def value(weight: Tensor, x: Tensor) -> Tensor:
        torch.manual_seed(4)
        given = {next(iter(dict(loss.named_parameters()))): weight}
        return torch.func.functional_call(loss, given, (x,)).sum()

    assert torch.autograd.gradcheck(value, (weight, x))
    assert torch.autograd.gradgradcheck(value, (weight, x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["network", "energy", "labels"])
@pytest.mark.parametrize("name", MAKERS)
def test_evaluation_without_gradients(name: str, kind: str, mode: Callable[[], Any]) -> None:
    score = mlp(2, num_classes=3 if kind == "labels" else None)
    loss = MAKERS[name](nets.EnergyGradient(score) if kind == "energy" else score)
    x, labels = torch.randn(5, 2), torch.tensor([0, 1, 2, 1, 0])
    torch.manual_seed(5)
    expected = loss(x, *([labels] if kind == "labels" else []))
    torch.manual_seed(5)
    with mode():
        given = [labels.clone()] if kind == "labels" else []  # born in that mode
        value = loss(x.clone(), *given)
    assert expected.requires_grad
    assert not value.requires_grad
    torch.testing.assert_close(value, expected.detach())


@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_score_that_does_not_depend_on_the_data(name: str) -> None:
    x = torch.randn(4, 2)
    assert torch.equal(MAKERS[name](torch.ones_like)(x), torch.ones(4))
    relu = nets.EnergyGradient(nets.MLP(2, 1, hidden=(), activation="relu"))
    torch.testing.assert_close(MAKERS[name](relu)(x), 0.5 * relu(x).square().sum(-1))


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpointed_network(name: str) -> None:
    """Whose activations are computed again, in gradients of gradients too."""
    from pyro_genmodels.nets.layers import checkpointed

    net, x = mlp(2), torch.randn(4, 2)
    gradients = []
    for score in (net, lambda x: checkpointed(net, x)):
        torch.manual_seed(6)
        losses = MAKERS[name](score)(x)
        gradients.append(torch.autograd.grad(losses.sum(), net.parameters()))
    for kept, repeated in zip(*gradients, strict=True):
        torch.testing.assert_close(repeated, kept)


@pytest.mark.parametrize("name", MAKERS)
def test_data_and_features_must_be_finite(name: str) -> None:
    loss, x = MAKERS[name](mlp(2, context_shape=(3,))), torch.randn(4, 2)
    testing.check_context_validation(lambda context: loss(x, context), torch.randn(4, 3))
    with pytest.raises(ValueError, match="`x` must be finite; got 8 NaN or infinite elements"):
        loss(x * torch.nan, torch.randn(4, 3))
    with pyro.validation_enabled(False):
        assert loss(x * torch.nan, torch.randn(4, 3)).isnan().all()


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "no noise": (
        lambda: models.DenoisingScoreMatching(mlp(2), 0.0),
        "`noise_scale` must be positive; got 0.0",
    ),
    "no projections": (
        lambda: models.SlicedScoreMatching(mlp(2), num_projections=0),
        "`num_projections` must be positive; got 0",
    ),
    "event_dim": (
        lambda: models.ExactScoreMatching(mlp(2), event_dim=0),
        "`event_dim` must be positive; got 0",
    ),
}
CALLS: dict[str, tuple[Callable[[type[ScoreMatchingLoss]], Any], str]] = {
    "integers": (
        lambda make: make(mlp(2))(torch.ones(3, 2, dtype=torch.long)),
        "`x` must be of a floating dtype; got torch.int64",
    ),
    "too few dimensions": (
        lambda make: make(mlp(2), event_dim=3)(torch.ones(3, 2)),
        r"`x` must have at least 3 dimensions, those of one example; got shape \(3, 2\)",
    ),
    "another shape": (
        lambda make: make(nets.MLP(2, 1))(torch.ones(3, 2)),
        r"`score` must return values of its input's shape, \(3, 2\); got shape \(3, 1\)",
    ),
    "more contexts than data": (
        lambda make: make(mlp(2, num_classes=3))(torch.ones(2), torch.tensor([0, 1])),
        r"`score` must return values of its input's shape, \(2,\); got shape \(2, 2\)",
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_impossible_arguments_are_named(error: str) -> None:
    call, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("error", CALLS)
def test_impossible_calls_are_named(error: str, name: str) -> None:
    call, message = CALLS[error]
    with pytest.raises(ValueError, match=message):
        call(MAKERS[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MAKERS)
def test_it_trains(name: str) -> None:
    """A network with each loss comes near the score of a mixture."""
    torch.manual_seed(0)
    score = nets.MLP(2, 2, hidden=(32,), activation="silu")
    loss, target = MAKERS[name](score), mixture(0.6 if name == "denoising" else 0.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    x = target.sample((1000,))
    true = score_of(target, x).detach()
    before = (score(x) - true).square().mean()
    for _ in range(300):
        optimizer.zero_grad()
        loss(mixture().sample((256,))).mean().backward()
        optimizer.step()
    assert (score(x) - true).square().mean() < 0.2 * before
