"""Transforms of nflows: held to the laws as parts of this package."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("nflows")

import torch
from nflows.nn.nets import ConvResidualNet, ResidualNet
from nflows.transforms import (
    ActNorm,
    AffineCouplingTransform,
    CompositeTransform,
    LULinear,
    MaskedAffineAutoregressiveTransform,
    OneByOneConvolution,
    PiecewiseRationalQuadraticCouplingTransform,
    RandomPermutation,
    ReversePermutation,
    SqueezeTransform,
)
from torch import nn

from pyro_genmodels import models, testing
from pyro_genmodels.transforms import Chain, ConditionalFlow, NFlowsTransform

# nflows 0.14 solves with a function that torch has announced to remove.
pytestmark = [
    pytest.mark.usefixtures("double"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.skipif(not hasattr(torch, "triangular_solve"), reason="nflows 0.14 needs it"),
]


def dense(inputs: int, outputs: int, context: int | None = None) -> nn.Module:
    return ResidualNet(
        inputs, outputs, 6, context_features=context, num_blocks=1, activation=torch.tanh
    )


def conv(inputs: int, outputs: int) -> nn.Module:
    return ConvResidualNet(inputs, outputs, 4, num_blocks=1, activation=torch.tanh)


def spline(mask: list[int], make_net: Callable = dense) -> nn.Module:
    return PiecewiseRationalQuadraticCouplingTransform(
        mask, make_net, num_bins=4, tails="linear", tail_bound=3.0
    )


def image_flow() -> nn.Module:
    layers = [ActNorm(3), OneByOneConvolution(3), AffineCouplingTransform([0, 1, 1], conv)]
    return CompositeTransform([*layers, OneByOneConvolution(3), spline([1, 0, 1], conv)])


VECTORS: dict[str, Callable[[], nn.Module]] = {
    "act norm": lambda: ActNorm(4),
    "composite": lambda: CompositeTransform([LULinear(4), spline([0, 1, 0, 1]), ActNorm(4)]),
    "linear": lambda: LULinear(4),
    "masked autoregressive": lambda: MaskedAffineAutoregressiveTransform(4, 8, num_blocks=1),
    "permutation": lambda: RandomPermutation(4),
    "spline coupling": lambda: spline([1, 0, 1, 0]),
}
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "affine coupling": lambda: AffineCouplingTransform([1, 0, 1], conv),
    "glow": image_flow,
    "linear": lambda: OneByOneConvolution(3),
    "spline coupling": lambda: spline([0, 1, 1], conv),
}
CASES = [
    *(pytest.param(make, (4,), id=f"vector, {name}") for name, make in VECTORS.items()),
    *(pytest.param(make, (3, 2, 3), id=f"image, {name}") for name, make in IMAGES.items()),
]


def wrapped(make: Callable[[], nn.Module], event_shape: tuple[int, ...]) -> NFlowsTransform:
    flow = NFlowsTransform(make(), event_dim=len(event_shape))
    return testing.randomize_parameters(flow, 0.3).eval()


@pytest.mark.parametrize(
    "law",
    [
        testing.check_inverse,
        testing.check_log_det,
        testing.check_single_evaluation,
        testing.check_no_stale_value,
        testing.check_gradients_survive,
    ],
    ids=lambda law: law.__name__,
)
@pytest.mark.parametrize(("make", "event_shape"), CASES)
def test_laws(make, event_shape, law) -> None:
    law(wrapped(make, event_shape), torch.randn(2, *event_shape))


@pytest.mark.parametrize(("make", "event_shape"), CASES)
def test_any_batch_shape(make, event_shape) -> None:
    testing.check_shapes(wrapped(make, event_shape), torch.randn(event_shape))


@pytest.mark.parametrize(("make", "event_shape"), CASES)
def test_scores_as_nflows_does(make, event_shape) -> None:
    """Their forward is from data to noise, our ``inv`` is."""
    flow, y = wrapped(make, event_shape), torch.randn(5, *event_shape)
    noise, log_det = flow.transform(y)
    x = flow.inv(y)
    assert torch.equal(x, noise)
    assert torch.equal(flow.log_abs_det_jacobian(x, y), -log_det)


def test_a_context_broadcasts_and_one_evaluation_serves_a_density() -> None:
    inner = MaskedAffineAutoregressiveTransform(3, 8, context_features=2, num_blocks=1)
    flow = NFlowsTransform(inner, context_shape=(2,))
    testing.randomize_parameters(flow).eval()
    contexts, y = torch.randn(4, 1, 2), torch.randn(5, 3)
    conditioned = ConditionalFlow(flow).condition(contexts)
    x = conditioned.inv(y)
    assert x.shape == (4, 5, 3)
    torch.testing.assert_close(x[2], inner(y, contexts[2].expand(5, 2))[0])
    testing.check_single_evaluation(ConditionalFlow(flow).condition(contexts[0, 0]), y)
    with pytest.raises(ValueError, match="context"):
        ConditionalFlow(flow).condition(torch.randn(4, 3))


def test_stands_in_a_chain_with_our_parts_and_trains_in_a_model() -> None:
    def make() -> models.FlowModel:
        parts = [NFlowsTransform(spline([0, 1, 0])), NFlowsTransform(LULinear(3))]
        return models.FlowModel((3,), Chain(parts), num_levels=4).float()

    torch.set_default_dtype(torch.float32)
    testing.check_trains(make, torch.randint(4, (8, 3)))


def test_act_norm_starts_from_the_first_data() -> None:
    """Its parameters change while it is evaluated, which is no reason to evaluate again."""
    flow, y = NFlowsTransform(ActNorm(3), event_dim=3), 3 * torch.randn(64, 3, 4, 4) + 1
    x = flow.inv(y)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3))
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)
    expected = flow.transform.log_scale.sum().neg() * 16
    torch.testing.assert_close(flow.log_abs_det_jacobian(x, y), expected.expand(64))


def test_no_data_at_all() -> None:
    flow = NFlowsTransform(ReversePermutation(3)).eval()
    assert flow.inv(torch.zeros(0, 4, 3)).shape == (0, 4, 3)


def test_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`transform` must be a module .*; got Linear\."):
        NFlowsTransform(nn.Linear(2, 2))


def test_a_changed_shape_is_refused() -> None:
    flow = NFlowsTransform(SqueezeTransform(), event_dim=3)
    message = r"`transform` must keep the shape of an event, \(1, 4, 4\); got \(4, 2, 2\)\."
    with pytest.raises(ValueError, match=message):
        flow.inv(torch.zeros(2, 1, 4, 4))
