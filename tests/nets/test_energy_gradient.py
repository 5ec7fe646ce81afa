"""The gradient of an energy: which function it is, in which modes, and its contexts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pyro_genmodels import nets
from tests import cases

pytestmark = pytest.mark.usefixtures("double")
CASES = [name for name in cases.NETS if name.startswith("EnergyGradient")]


def mlp(**options: Any) -> nets.MLP:
    return nets.MLP(3, 2, hidden=(5,), activation="silu", **options)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_negative_gradient_of_its_energy(name: str) -> None:
    case = cases.NETS[name]()
    score = case.part.double()
    x = torch.randn(2, *case.event_shape, requires_grad=True)
    given = () if case.context is None else (case.context,)
    energy = score.energy(x, *given)
    assert energy.shape == (2,)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    torch.testing.assert_close(score(x, *given), -gradient)


@pytest.mark.parametrize("name", CASES)
def test_its_jacobian_is_symmetric(name: str) -> None:
    """As the Jacobian of an arbitrary network is not."""
    case = cases.NETS[name]()
    x = torch.randn(case.event_shape)
    given = () if case.context is None else (case.context[0],)

    def jacobian(function: nn.Module) -> torch.Tensor:
        rows = torch.autograd.functional.jacobian(lambda x: function(x, *given), x)
        return rows.reshape(x.numel(), -1)

    found = jacobian(case.part.double())
    torch.testing.assert_close(found, found.T)
    assert found.abs().max() > 1e-4
    arbitrary = jacobian(mlp() if given == () else case.part.net)
    assert arbitrary.shape[0] != arbitrary.shape[1] or not torch.allclose(arbitrary, arbitrary.T)


def test_an_energy_in_closed_form() -> None:
    class Quadratic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.5 * x.square()  # an output per dimension, which are summed

    x = torch.randn(4, 5, 3)
    score = nets.EnergyGradient(Quadratic())
    assert torch.equal(score(x), -x)
    torch.testing.assert_close(score.energy(x), 0.5 * x.square().sum(-1))
    assert torch.equal(score.potential_fn({"x": x}), score.energy(x).sum())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients(mode: Callable[[], Any]) -> None:
    score, x, labels = nets.EnergyGradient(mlp(num_classes=2)), torch.randn(4, 3), torch.tensor(1)
    expected = score(x, labels)
    with mode():
        value = score(x.clone(), labels.clone())
    assert expected.requires_grad
    assert not value.requires_grad
    torch.testing.assert_close(value, expected.detach())


def test_it_trains_by_gradients_of_gradients() -> None:
    score, x = nets.EnergyGradient(mlp()), torch.randn(4, 3, requires_grad=True)
    weight = score.net.layers[0].weight

    def value(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        given = {"net.layers.0.weight": weight}
        return torch.func.functional_call(score, given, (x,)).square().sum()

    assert torch.autograd.gradcheck(value, (weight, x))
    assert torch.autograd.gradgradcheck(value, (weight, x))


def test_the_bias_of_the_energy_gets_no_gradient() -> None:
    score = nets.EnergyGradient(mlp())
    score(torch.randn(4, 3)).square().sum().backward()
    assert [n for n, p in score.named_parameters() if p.grad is None] == ["net.layers.1.bias"]


def test_contexts_broadcast() -> None:
    """One example and several contexts: a score each, not their sum."""
    score, x, labels = nets.EnergyGradient(mlp(num_classes=3)), torch.randn(3), torch.arange(3)
    together = score(x, labels)
    assert together.shape == (3, 3)
    assert score.energy(x, labels).shape == (3,)
    torch.testing.assert_close(together, torch.stack([score(x, label) for label in labels]))
    assert score(torch.randn(4, 1, 3), labels).shape == (4, 3, 3)


def test_impossible_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`event_dim` must be positive; got 0"):
        nets.EnergyGradient(mlp(), event_dim=0)
    encoder = nets.EnergyGradient(nets.ConvEncoder((1, 4, 4), 1, channels=(2,)))
    with pytest.raises(ValueError, match=r"`net` must map inputs of batch shape \(2, 1, 4\)"):
        encoder(torch.randn(2, 1, 4, 4))  # an image, without event_dim=3
    with pytest.raises(ValueError, match=r"`params` must have one site, the data; got"):
        nets.EnergyGradient(mlp()).potential_fn(dict.fromkeys("xy", torch.zeros(3)))


def test_it_is_rebuilt_from_its_configuration() -> None:
    from pyro_genmodels._configuration import build, configuration

    score = nets.EnergyGradient(mlp(), event_dim=1)
    again = build(configuration(score))
    again.load_state_dict(score.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(again(x), score(x))
