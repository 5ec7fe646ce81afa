"""PixelCNN++: the published size, the whole past and nothing else, by pixels as in one go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels.nets import PixelCNNPlusPlusNet
from pyro_genmodels.nets.layers.data_dependent_init import awaits_data
from pyro_genmodels.nets.pixelcnn_pp.layers import ShiftedConv2d
from pyro_genmodels.testing import check_receptive_field, randomize_parameters, raster_field


def network(*shape: int, num_levels: int = 5, **options: Any) -> PixelCNNPlusPlusNet:
    small = {"hidden_channels": 4, "num_resnets": 1, "num_scales": 2, "num_mixtures": 2}
    net = PixelCNNPlusPlusNet(shape, num_levels, **{**small, **options})
    return randomize_parameters(net.double(), 0.6).eval()


def levels(net: PixelCNNPlusPlusNet, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(net.num_levels, (batch, *net.event_shape), generator=generator).double()


def test_has_as_many_parameters_as_the_published_network() -> None:
    with torch.device("meta"):
        net = PixelCNNPlusPlusNet((3, 32, 32), 256, hidden_channels=160, num_resnets=5)
    # Counted from the published code, layer by layer: F = 160, two streams.
    first = 160 * 4 * (6 + 3 + 2)
    down = 15 * (320 * 480 * (6 + 4) + 320 * 160)
    up = 17 * (320 * 480 * (6 + 4) + 320 * 160 + 640 * 160)
    resizes = 2 * 2 * 160 * 160 * (6 + 4)
    lengths_and_biases = 2 * (3 * 160 + 15 * (2 * 480 + 160) + 17 * (2 * 480 + 320) + 8 * 160 + 100)
    total = first + down + up + resizes + 160 * 100 + lengths_and_biases
    assert sum(p.numel() for p in net.parameters()) == total == 53_659_080


@pytest.mark.parametrize(
    ("event_shape", "scales"), [((1, 4, 8), 3), ((3, 4, 4), 2), ((2, 3, 4), 1)]
)
def test_sees_every_earlier_sub_pixel_and_no_other(
    event_shape: tuple[int, ...], scales: int
) -> None:
    net = network(*event_shape, num_scales=scales, num_resnets=2)
    check_receptive_field(net, event_shape, raster_field(event_shape), num_levels=5, num_probes=6)


@pytest.mark.parametrize("context", ["plain", "label", "vector", "map", "another map"])
@pytest.mark.parametrize(
    ("event_shape", "scales", "resnets"),
    [((1, 4, 8), 3, 1), ((3, 4, 6), 2, 2), ((2, 3, 1), 1, 1), ((1, 4, 4), 3, 0)],
)
def test_pixel_by_pixel_as_in_one_go(
    event_shape: tuple[int, ...], scales: int, resnets: int, context: str
) -> None:
    kinds: dict[str, tuple[dict[str, Any], Tensor | None]] = {
        "plain": ({}, None),
        "label": ({"num_classes": 3}, torch.tensor([0, 2])),
        "vector": ({"context_shape": (2,)}, torch.randn(2, 2).double()),
        "map": (
            {"context_shape": (2, *event_shape[1:])},
            torch.randn(2, 2, *event_shape[1:]).double(),
        ),
        "another map": ({"context_shape": (1, 9, 9)}, torch.randn(2, 1, 9, 9).double()),
    }
    options, given = kinds[context]
    net = network(*event_shape, num_scales=scales, num_resnets=resnets, **options)
    x = levels(net, 2)
    with torch.inference_mode():
        whole = net(x, given).flatten(1, 3)
        state = net.incremental(2, net.context_features(given))
        for index in net.order.tolist():
            torch.testing.assert_close(state.parameters(), whole[:, index], rtol=0, atol=1e-10)
            state.append(x.flatten(1)[:, index])


def test_first_data_in_training_set_lengths_and_biases_once() -> None:
    net = PixelCNNPlusPlusNet((3, 8, 8), 17, hidden_channels=6, num_resnets=1)
    x = levels(net, 4).float()
    net.eval()(x)
    assert awaits_data(net)
    outputs = []
    layers = [m for m in net.modules() if isinstance(m, ShiftedConv2d)]
    hooks = [m.register_forward_hook(lambda m, _, y: outputs.append((m, y))) for m in layers]
    net.train()(x)
    for layer, y in outputs:
        rows = y.movedim(1, 0).flatten(1)
        torch.testing.assert_close(rows.mean(1), torch.zeros(len(y[0])), rtol=0, atol=1e-4)
        expected = torch.full((len(y[0]),), layer.scale)
        torch.testing.assert_close(rows.std(1, correction=0), expected, rtol=1e-3, atol=0)
    for hook in hooks:
        hook.remove()
    assert not awaits_data(net)
    state = copy.deepcopy(net.state_dict())
    net(levels(net, 2).float() / 2)
    loaded = PixelCNNPlusPlusNet((3, 8, 8), 17, hidden_channels=6, num_resnets=1)
    loaded.load_state_dict(net.state_dict())
    loaded.train()(x / 3)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_weights_are_normed_for_each_output_channel_in_transposed_layers_too() -> None:
    for step in ("same", "down", "up"):
        layer = ShiftedConv2d(3, 5, (2, 3), left=False, step=step)
        norms = layer.weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, layer.length)


def test_memory_of_sampling_grows_with_rows_not_with_their_number() -> None:
    def kept(height: int) -> int:
        net = network(1, height, 8, num_scales=3)
        own = {p.untyped_storage().data_ptr() for p in net.parameters()}
        state, sizes, seen = net.incremental(2, None), {}, set()
        for _ in range(8 * 5):  # into a later row
            state.parameters()
            state.append(torch.zeros(2))
        stack: list[object] = [state]
        while stack:
            x = stack.pop()
            if id(x) in seen:
                continue
            seen.add(id(x))
            if isinstance(x, Tensor):
                if x.untyped_storage().data_ptr() not in own:
                    sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            elif isinstance(x, list | tuple):
                stack += x
            elif hasattr(x, "__dict__") and not isinstance(x, torch.nn.Module):
                stack += vars(x).values()
        return sum(sizes.values())

    with torch.inference_mode():
        assert kept(64) == kept(8)


def test_sides_that_cannot_be_halved_are_an_error() -> None:
    with pytest.raises(ValueError, match="sides divisible by 4"):
        PixelCNNPlusPlusNet((1, 8, 6), 2)
    assert PixelCNNPlusPlusNet((1, 8, 6), 2, num_scales=2).event_shape == (1, 8, 6)


@pytest.mark.parametrize(
    "options",
    [
        {"num_resnets": -1},
        {"num_scales": 0},
        {"num_mixtures": 0},
        {"dropout": 1.0},
        {"min_log_scale": 0.0},
    ],
)
def test_impossible_options_are_errors(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}` must"):
        PixelCNNPlusPlusNet((1, 4, 4), 2, **options)
