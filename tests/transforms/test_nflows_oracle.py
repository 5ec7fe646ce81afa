"""nflows as an oracle: with its weights our parts give its densities."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("nflows")

import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.transforms import (
    ActNorm,
    AdditiveCouplingTransform,
    AffineCouplingTransform,
    CompositeTransform,
    LULinear,
    OneByOneConvolution,
    PiecewiseRationalQuadraticCouplingTransform,
)
from torch import Tensor, nn

import pyro_genmodels.transforms as ours
from pyro_genmodels import models, nets, testing
from pyro_genmodels.transforms.couplings.spline import _UNIT_SLOPE

# nflows 0.14 solves with a function that torch has announced to remove.
pytestmark = [
    pytest.mark.usefixtures("double"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.skipif(not hasattr(torch, "triangular_solve"), reason="nflows 0.14 needs it"),
]

NUM_BINS, BOUND = 5, 2.0
MASKS = {
    "half": (ours.HalfMask(), (5,)),
    "other half": (ours.HalfMask(inverted=True), (5,)),
    "alternating": (ours.AlternatingMask(inverted=True), (5,)),
    "channels": (ours.ChannelMask(), (3, 2, 3)),
    "other channels": (ours.ChannelMask(inverted=True), (3, 2, 3)),
}


Copied = tuple[nn.Module, ours.FlowTransform]
"""A transform of nflows, from data to noise, and ours with its weights."""


def their_coupling(cls: Any, mask: Any, shape: tuple[int, ...], **options: Any) -> Any:
    """Theirs with a network of this package, whose outputs they only order in another way."""
    passes = mask(shape).expand(shape).reshape(shape[0], -1)[:, 0]
    context = options.pop("context", None)
    make = nets.MLP if len(shape) == 1 else nets.ConvNet
    extra = {"hidden": (6,), "activation": "tanh", "context_shape": context}
    coupling = cls((~passes).int(), lambda i, o: make(i, o, **extra), **options)
    return testing.randomize_parameters(coupling)


def last_layer(net: nn.Module) -> Any:
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def reordered(net: nn.Module, order: Tensor) -> Any:
    """The network with its outputs in another order."""
    net = copy.deepcopy(net)
    last = last_layer(net)
    with torch.no_grad():
        last.weight.copy_(last.weight[order])
        last.bias.copy_(last.bias[order])
    return net


def additive(mask: Any, shape: tuple[int, ...]) -> Copied:
    theirs = their_coupling(AdditiveCouplingTransform, mask, shape)
    return theirs, ours.AdditiveCoupling(mask, copy.deepcopy(theirs.transform_net))


def affine(mask: Any, shape: tuple[int, ...], **options: Any) -> Copied:
    """Their shifts come first, our scales do."""
    theirs = their_coupling(AffineCouplingTransform, mask, shape, **options)
    order = torch.arange(2 * theirs.num_transform_features).roll(theirs.num_transform_features)
    net = reordered(theirs.transform_net, order)
    return theirs, ours.AffineCoupling(mask, net, scale="sigmoid")


def spline(mask: Any, shape: tuple[int, ...]) -> Copied:
    """Theirs keep a feature's parameters together; and our zeros are the identity's slopes."""
    options = {"num_bins": NUM_BINS, "tails": "linear", "tail_bound": BOUND}
    theirs = their_coupling(PiecewiseRationalQuadraticCouplingTransform, mask, shape, **options)
    features, count = theirs.num_transform_features, 3 * NUM_BINS - 1
    net = reordered(
        theirs.transform_net, torch.arange(features * count).view(features, count).T.flatten()
    )
    with torch.no_grad():
        last_layer(net).bias[2 * NUM_BINS * features :] -= _UNIT_SLOPE
    return theirs, ours.SplineCoupling(mask, net, num_bins=NUM_BINS, bound=BOUND)


def act_norm(features: int, event_dim: int) -> Copied:
    theirs = testing.randomize_parameters(ActNorm(features))
    part = ours.ActNorm(features, event_dim=event_dim, initialized=True)
    with torch.no_grad():
        part.log_scale.copy_(theirs.log_scale / part.log_scale_factor)
        part.shift.copy_(theirs.shift / theirs.scale)
    return theirs, part


def linear(features: int, event_dim: int) -> Copied:
    """Factor by factor; without a bias, which ours leaves to act norm, and a permutation."""
    make = OneByOneConvolution if event_dim == 3 else LULinear
    theirs: Any = testing.randomize_parameters(make(features))
    if event_dim == 3:
        theirs.permutation._permutation.copy_(torch.arange(features))
    part = ours.InvertibleLinear(features, event_dim=event_dim)
    lower, upper = theirs._create_lower_upper()
    with torch.no_grad():
        theirs.bias.zero_()
        part.permutation.copy_(torch.eye(features))
        part.signs.fill_(1.0)
        part.factors.copy_(lower.tril(-1) + upper.triu(1) + upper.diagonal().log().diag())
    return theirs, part


def whole_matrix(features: int) -> Copied:
    """Theirs permutes first."""
    theirs: Any = testing.randomize_parameters(OneByOneConvolution(features))
    part = ours.InvertibleLinear(features, lu=False)
    with torch.no_grad():
        theirs.bias.zero_()
        permutation = torch.eye(features)[theirs.permutation._permutation]
        part.weight.copy_(theirs.weight() @ permutation)
    return theirs, part


def glow_steps(num_steps: int) -> Copied:
    """Two steps of a Glow of images: theirs from data to noise, ours from noise to data."""
    pairs: list[Copied] = []
    for step in range(num_steps):
        mask = ours.ChannelMask(inverted=step % 2 == 1)
        pairs += [act_norm(3, 3), whole_matrix(3), affine(mask, (3, 2, 3)), spline(mask, (3, 2, 3))]
    theirs, parts = zip(*pairs, strict=True)
    return CompositeTransform(theirs), ours.Chain(parts[::-1])


CASES: dict[str, tuple[Callable[[], Copied], tuple[int, ...]]] = {
    "act norm": (lambda: act_norm(4, 1), (4,)),
    "act norm, image": (lambda: act_norm(3, 3), (3, 2, 2)),
    "glow": (lambda: glow_steps(2), (3, 2, 3)),
    "linear": (lambda: linear(4, 1), (4,)),
    "linear, image": (lambda: linear(3, 3), (3, 2, 3)),
    "linear, image, whole matrix": (lambda: whole_matrix(3), (3, 2, 3)),
}
for name, (mask, shape) in MASKS.items():
    for kind in (additive, affine, spline):
        make = (lambda kind=kind, mask=mask, shape=shape: kind(mask, shape), shape)
        CASES[f"{kind.__name__}, {name}"] = make


@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES)
def test_our_parts_give_their_densities(make, shape) -> None:
    theirs, part = make()
    y = 1.5 * torch.randn(64, *shape)  # some of it beyond the splines' bounds
    expected = Flow(theirs.eval(), StandardNormal(shape)).log_prob(y)
    density = models.FlowModel(shape, part.eval()).double().density()
    torch.testing.assert_close(density.log_prob(y), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(part.inv(y), theirs(y)[0], atol=1e-6, rtol=0)
    wrapped = ours.NFlowsTransform(theirs, event_dim=len(shape))
    torch.testing.assert_close(part(y), wrapped(y), atol=1e-6, rtol=1e-6)


def test_our_conditional_coupling_gives_their_densities() -> None:
    theirs, part = affine(ours.HalfMask(), (5,), context=(2,))
    y, context = torch.randn(64, 5), torch.randn(64, 2)
    expected = Flow(theirs, StandardNormal((5,))).log_prob(y, context)
    model = models.FlowModel((5,), ours.ConditionalFlow(part), context_shape=(2,)).double()
    torch.testing.assert_close(model.density(context).log_prob(y), expected, atol=1e-6, rtol=0)
