"""The gated PixelCNN network: the whole past and nothing else, by rows and pixels as in one go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels.nets import AutoregressiveNet, GatedPixelCNNNet
from pyro_genmodels.nets.autoregressive.base import WholeEvaluation
from pyro_genmodels.testing import (
    check_autoregressive,
    check_receptive_field,
    randomize_parameters,
    raster_field,
)
from tests.cases import vivid

Offsets = set[tuple[int, int]]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(event_shape: tuple[int, ...], num_levels: int = 3, **options: Any) -> GatedPixelCNNNet:
    # Wide enough that at no place all rectifiers are off, which would hide what is seen.
    options = {"hidden_channels": 24, "num_layers": 1, **options}
    return randomize_parameters(GatedPixelCNNNet(event_shape, num_levels, **options).double())


def around(seen: Offsets, taps: Offsets) -> Offsets:
    return {(a + i, b + j) for a, b in seen for i, j in taps}


def published_field(layers: int, first: int = 7, kernel: int = 3) -> Offsets:
    """Offsets that the two stacks see: rows above without a blind spot, and the left."""
    reach, step = first // 2, kernel // 2
    sides = range(-reach, reach + 1)
    above = {(-up, side) for up in range(1, reach + 1) for side in sides}
    beside = above | {(0, -left) for left in range(reach + 1)}
    for _ in range(layers):
        upward = {(-up, side) for up in range(step + 1) for side in range(-step, step + 1)}
        above = around(above, upward)
        beside = beside | around(beside, {(0, -left) for left in range(step + 1)}) | above
    return beside


@pytest.mark.parametrize(
    ("layers", "event_shape"), [(0, (1, 5, 9)), (1, (1, 6, 10)), (2, (2, 4, 8)), (1, (3, 2, 6))]
)
def test_receptive_field_is_the_published_one(layers: int, event_shape: tuple[int, ...]) -> None:
    net = vivid(network(event_shape, num_layers=layers).eval())
    expected = raster_field(event_shape, published_field(layers))
    check_receptive_field(net, event_shape, expected, num_levels=3, num_probes=6)


@pytest.mark.parametrize("event_shape", [(1, 6, 6), (3, 4, 5)])
def test_enough_layers_see_every_earlier_sub_pixel(event_shape: tuple[int, ...]) -> None:
    """What the original PixelCNN's blind spot forbids however deep it is."""
    net = vivid(network(event_shape, num_layers=4, kernel_size=3).eval())
    check_receptive_field(net, event_shape, raster_field(event_shape), num_levels=3, num_probes=6)


@pytest.mark.parametrize("context_shape", [(2,), (2, 6, 8)])
def test_a_context_opens_no_leak_and_reaches_every_logit(context_shape: tuple[int, ...]) -> None:
    net = network((3, 3, 4), context_shape=context_shape)
    one, two = torch.randn(2, *context_shape, dtype=torch.float64)
    check_autoregressive(lambda x: net(x, one), (3, 3, 4), num_levels=3)
    x = torch.zeros(3, 3, 4)
    assert ((net(x, one) - net(x, two)).abs().amax(-1) > 0).all()


def differences(net: AutoregressiveNet, context: Tensor | None = None) -> float:
    """How far incremental evaluation is from evaluating the whole network."""
    x = torch.randint(net.num_levels, (3, *net.event_shape)).double()
    features = net.context_features(context)
    if features is not None:
        features = features.expand(3, *features.shape)
    worst = 0.0
    with torch.inference_mode():
        pair = (net.incremental(3, features), WholeEvaluation(net, 3, features))
        for level in x.flatten(1)[:, net.order].unbind(1):
            one, other = (evaluation.parameters() for evaluation in pair)
            worst = max(worst, float((one - other).abs().max()))
            for evaluation in pair:
                evaluation.append(level)
    return worst


@pytest.mark.parametrize(
    ("event_shape", "options"),
    [
        ((1, 5, 6), {"num_layers": 3}),
        ((1, 4, 5), {"kernel_size": 5, "layer_kernel_size": 5}),
        ((1, 4, 5), {"layer_kernel_size": 1}),
        ((3, 3, 4), {"hidden_channels": 7}),
        ((3, 3, 2), {"output_channels": 4, "num_classes": 3}),
        ((2, 4, 1), {"context_shape": (2, 4, 1), "num_layers": 2}),
        ((2, 1, 4), {"context_shape": (5,), "num_layers": 0}),
    ],
)
def test_by_rows_and_pixels_as_in_one_go(
    event_shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    net = network(event_shape, **options).eval()
    shape = options.get("context_shape")
    context = None if shape is None else torch.randn(shape, dtype=torch.float64)
    if "num_classes" in options:
        context = torch.tensor(2)
    assert differences(net, context) < 1e-12


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"event_shape": (8,)}, "event_shape"),
        ({"event_shape": (16, 8, 8), "hidden_channels": 8}, "hidden_channels"),
        ({"event_shape": (3, 8, 8), "output_channels": 2}, "output_channels"),
        ({"num_layers": -1}, "num_layers"),
        ({"kernel_size": 1}, "kernel_size"),
        ({"layer_kernel_size": 2}, "kernel_size"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        GatedPixelCNNNet(**{"event_shape": (1, 8, 8), "num_levels": 4, **options})


def test_dropout_acts_in_training_mode_only() -> None:
    net, x = network((1, 4, 4), dropout=0.5), torch.zeros(1, 4, 4)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
