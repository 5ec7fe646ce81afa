"""The PixelCNN network: causal before training, with the published receptive field."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.nets import PixelCNNNet
from pyro_genmodels.testing import (
    check_autoregressive,
    check_receptive_field,
    randomize_parameters,
    raster_field,
)


def network(event_shape: tuple[int, ...], num_levels: int = 3, **options: object) -> PixelCNNNet:
    options = {"hidden_channels": 8, "num_blocks": 1, **options}
    return randomize_parameters(PixelCNNNet(event_shape, num_levels, **options).double())


@pytest.mark.parametrize("event_shape", [(1, 5, 4), (2, 3, 4), (3, 3, 4), (4, 2, 3)])
@pytest.mark.parametrize("mode", [True, False])
def test_no_sub_pixel_sees_itself_or_its_future(event_shape: tuple[int, ...], mode: bool) -> None:
    net = network(event_shape).train(mode)
    check_autoregressive(net, event_shape, num_levels=3)


@pytest.mark.parametrize("context_shape", [(2,), (2, 6, 8)])
def test_a_context_opens_no_leak(context_shape: tuple[int, ...]) -> None:
    net = network((3, 3, 4), context_shape=context_shape)
    context = torch.randn(context_shape, dtype=torch.float64)
    check_autoregressive(lambda x: net(x, context), (3, 3, 4), num_levels=3)


def published_field(blocks: int) -> list[tuple[int, int]]:
    """Offsets seen by a 7x7 mask A and 3x3 masks B, with the blind spot to the upper right.

    Each 3x3 convolution climbs at most one row and moves at most one column to the right in it.
    """
    reach = 3 + blocks
    left = [(0, -right) for right in range(1, reach + 1)]
    upper = [
        (-up, right)
        for up in range(1, reach + 1)
        for right in range(-reach, 3 + min(blocks, up - 1) + 1)
    ]
    return left + upper


@pytest.mark.parametrize(
    ("blocks", "event_shape"), [(0, (1, 5, 9)), (1, (1, 7, 11)), (2, (2, 4, 8))]
)
def test_receptive_field_is_the_published_one(blocks: int, event_shape: tuple[int, ...]) -> None:
    expected = raster_field(event_shape, published_field(blocks))
    net = network(event_shape, num_blocks=blocks)
    check_receptive_field(net, event_shape, expected, num_levels=3, num_probes=6)
    _, height, width = event_shape
    beyond = torch.zeros(height, width, dtype=torch.bool)
    beyond[0, -1] = True  # in the past, yet in the blind spot of the pixel below on the left
    first_below = width  # pixel (1, 0) of the first channel
    assert not expected[first_below, : height * width][beyond.flatten()].any()


@pytest.mark.parametrize("batch", [(), (2,), (2, 1, 3)])
def test_any_leading_dimensions(batch: tuple[int, ...]) -> None:
    net = network((2, 3, 4), num_classes=5)
    x = torch.randint(3, (*batch, 2, 3, 4))
    labels = torch.randint(5, (4, *(1 for _ in batch)))
    logits = net(x, labels)
    assert logits.shape == (4, *batch, 2, 3, 4, 3)
    alone = net(x.reshape(-1, 2, 3, 4)[-1], labels.flatten()[-1])
    torch.testing.assert_close(logits.flatten(0, len(batch))[-1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"num_classes": 4}, {"context_shape": (3,)}, {"context_shape": (2, 6, 8)}]
)
def test_a_context_changes_every_logit(options: dict[str, object]) -> None:
    net = network((1, 3, 4), **options)
    shape = options.get("context_shape", ())
    one, two = (torch.tensor(2), torch.tensor(3)) if not shape else torch.randn(2, *shape)
    x = torch.zeros(1, 3, 4)
    assert ((net(x, one) - net(x, two)).abs().amax(-1) > 0).all()


@pytest.mark.parametrize(
    ("context", "named"),
    [(None, "context"), (torch.tensor(7), "context"), (torch.zeros(2), "context")],
)
def test_a_wrong_context_is_named(context: torch.Tensor | None, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        network((1, 3, 3), num_classes=4)(torch.zeros(1, 3, 3), context)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"event_shape": (8,)}, "event_shape"),
        ({"event_shape": (16, 8, 8), "hidden_channels": 8}, "out_channels"),
        ({"num_levels": 1}, "num_levels"),
        ({"dropout": 1.0}, "dropout"),
        ({"hidden_channels": 0}, "hidden_channels"),
        ({"num_blocks": -1}, "num_blocks"),
        ({"kernel_size": 2}, "kernel_size"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        PixelCNNNet(**{"event_shape": (1, 8, 8), "num_levels": 4, **options})


def test_copies_and_descriptions_make_the_same_network() -> None:
    net = network((3, 3, 4), num_classes=2)
    x, label = torch.randint(3, (3, 3, 4)), torch.tensor(1)
    twins = [
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
        build(configuration(net)).double(),
    ]
    twins[2].load_state_dict(net.state_dict())
    for twin in twins:
        assert torch.equal(twin(x, label), net(x, label))


def test_dropout_acts_in_training_mode_only() -> None:
    net, x = network((1, 4, 4), dropout=0.5), torch.zeros(1, 4, 4)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_a_map_of_another_size_is_averaged_to_fit() -> None:
    net = network((1, 3, 4), context_shape=(2, 9, 8))
    logits = net(torch.zeros(1, 3, 4), torch.zeros(2, 9, 8))
    assert logits.shape == (1, 3, 4, 3)
