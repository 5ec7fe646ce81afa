"""PixelRNN: its published fields of view, its gradient, and by pixels as in one go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels.nets import PixelRNNNet
from pyro_genmodels.nets.pixelrnn.scan import LSTMScan
from pyro_genmodels.nets.pixelrnn.wavefront import Wavefront, diagonal_wavefront, row_wavefront
from pyro_genmodels.testing import (
    check_autoregressive,
    check_receptive_field,
    randomize_parameters,
    raster_field,
)
from tests.cases import vivid
from tests.nets.test_gated_pixelcnn import Offsets, around, differences


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(event_shape: tuple[int, ...], num_levels: int = 3, **options: Any) -> PixelRNNNet:
    options = {"hidden_channels": 6, "num_layers": 1, "kernel_size": 3, **options}
    return randomize_parameters(PixelRNNNet(event_shape, num_levels, **options).double())


def triangle(layers: int, height: int, kernel_size: int) -> Offsets:
    """Offsets that Row LSTMs see: each row above a pixel reads one more to each side."""
    reach = kernel_size // 2
    seen = {(-up, side) for up in range(1, reach + 1) for side in range(-reach, reach + 1)}
    seen |= {(0, -left) for left in range(reach + 1)}
    one = {(-up, side) for up in range(height) for side in range(-up - 1, up + 1)}
    for _ in range(layers):
        seen = around(seen, one)
    return seen


@pytest.mark.parametrize(
    ("layers", "kernel_size", "event_shape"),
    [(1, 3, (1, 3, 11)), (2, 3, (1, 3, 9)), (1, 7, (3, 2, 6)), (1, 3, (2, 4, 5))],
)
@pytest.mark.parametrize("residual", [True, False])
def test_row_lstm_sees_a_triangle(
    layers: int, kernel_size: int, event_shape: tuple[int, ...], residual: bool
) -> None:
    options = {"num_layers": layers, "kernel_size": kernel_size, "hidden_channels": 24}
    net = vivid(network(event_shape, layer="row", residual=residual, **options).eval())
    expected = raster_field(event_shape, triangle(layers, event_shape[1], kernel_size))
    check_receptive_field(net, event_shape, expected, num_levels=3, num_probes=6)


@pytest.mark.parametrize("event_shape", [(1, 4, 5), (3, 3, 4), (2, 1, 5), (2, 5, 1), (1, 2, 9)])
@pytest.mark.parametrize("skip", [True, False])
def test_diagonal_bilstm_sees_the_whole_past(event_shape: tuple[int, ...], skip: bool) -> None:
    """One layer is enough."""
    net = vivid(network(event_shape, skip=skip, hidden_channels=24).eval())
    check_receptive_field(net, event_shape, raster_field(event_shape), num_levels=3, num_probes=6)


@pytest.mark.parametrize("layer", ["row", "diagonal"])
@pytest.mark.parametrize("context_shape", [(2,), (2, 6, 8)])
def test_a_context_opens_no_leak_and_reaches_every_logit(
    layer: str, context_shape: tuple[int, ...]
) -> None:
    net = network((3, 3, 4), layer=layer, hidden_channels=12, context_shape=context_shape)
    one, two = torch.randn(2, *context_shape, dtype=torch.float64)
    check_autoregressive(lambda x: net(x, one), (3, 3, 4), num_levels=3)
    x = torch.zeros(3, 3, 4)
    assert ((net(x, one) - net(x, two)).abs().amax(-1) > 0).all()


@pytest.mark.parametrize("layer", ["row", "diagonal"])
@pytest.mark.parametrize(
    ("event_shape", "options"),
    [
        ((1, 5, 6), {"num_layers": 3}),
        ((3, 3, 4), {"hidden_channels": 7, "num_layers": 2, "kernel_size": 7}),
        ((3, 3, 2), {"output_channels": 4, "num_classes": 3}),
        ((2, 4, 1), {"context_shape": (2, 4, 1), "num_layers": 2}),
        ((2, 1, 4), {"context_shape": (5,), "residual": False}),
        ((1, 4, 3), {"residual": False, "skip": False, "embedding_size": 2, "num_layers": 2}),
        ((1, 4, 3), {"skip": False, "context_shape": (2, 4, 3)}),
    ],
)
def test_by_rows_and_pixels_as_in_one_go(
    layer: str, event_shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    net = network(event_shape, layer=layer, **options).eval()
    shape = options.get("context_shape")
    context = None if shape is None else torch.randn(shape, dtype=torch.float64)
    if "num_classes" in options:
        context = torch.tensor(2)
    assert differences(net, context) < 1e-12


def floats_of(part: Any, seen: set[int]) -> int:
    """Number of floats that an evaluation holds, each piece of memory counted once."""
    if isinstance(part, Tensor):
        storage = part.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return new * storage.nbytes() // part.element_size()
    if isinstance(part, list | tuple):
        return sum(floats_of(one, seen) for one in part)
    inside = vars(part) if hasattr(part, "__dict__") and not callable(part) else {}
    return sum(floats_of(one, seen) for one in inside.values())


@pytest.mark.parametrize("layer", ["row", "diagonal"])
def test_memory_of_sampling_is_a_row(layer: str) -> None:
    def held(height: int, width: int) -> int:
        net = network((1, height, width), layer=layer, num_layers=2)
        evaluation = net.incremental(50, None)
        with torch.inference_mode():
            for _ in range(height * width):
                evaluation.parameters()
                evaluation.append(torch.zeros(50))
        return floats_of(evaluation, set())

    assert held(12, 4) == held(3, 4)
    assert held(3, 8) < 2 * held(3, 4)


WAVEFRONTS = [
    diagonal_wavefront(3, 4),
    diagonal_wavefront(5, 2),
    diagonal_wavefront(1, 3),
    row_wavefront(3, 4),
    row_wavefront(2, 1),
]


def scan_and_arguments(front: Wavefront) -> tuple[LSTMScan, Tensor, Tensor]:
    width = 1 + max(j for _, j in front.pixels)
    scan = LSTMScan(front, width, (False, True))
    gates = torch.randn(len(front.pixels), 3, 2 * 4 * 5, dtype=torch.float64)
    weight = torch.randn(2, front.num_taps * 5, 4 * 5, dtype=torch.float64)
    return scan, gates.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize("front", WAVEFRONTS, ids=lambda front: str(front.pixels[-1]))
def test_the_written_out_gradient_is_autograds(front: Wavefront) -> None:
    scan, gates, weight = scan_and_arguments(front)
    fast, plain = scan(gates, weight), scan.step_by_step(gates, weight)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-14)
    upstream = torch.randn_like(fast)
    found = torch.autograd.grad(fast, (gates, weight), upstream, retain_graph=True)
    again = torch.autograd.grad(fast, (gates, weight), upstream)
    expected = torch.autograd.grad(plain, (gates, weight), upstream)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(found, again, rtol=0, atol=0)


def test_under_functional_transforms() -> None:
    scan, gates, weight = scan_and_arguments(diagonal_wavefront(2, 3))
    two = torch.stack([gates, 2 * gates]).detach()
    mapped = torch.func.vmap(scan, (0, None))(two, weight.detach())
    torch.testing.assert_close(mapped, torch.stack([scan(x, weight) for x in two]))
    tangent = torch.func.grad(lambda x: scan(x, weight.detach()).sum())(two[0])
    (expected,) = torch.autograd.grad(scan(gates, weight).sum(), gates)
    torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("layer", ["row", "diagonal"])
def test_trains_under_autocast(layer: str) -> None:
    net = network((1, 3, 4), layer=layer).float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(torch.zeros(2, 1, 3, 4))
        logits.float().square().mean().backward()
    exact = net(torch.zeros(2, 1, 3, 4))
    assert float((logits - exact).detach().abs().max()) < 0.1
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def count(**options: Any) -> int:
    return sum(
        p.numel() for p in PixelRNNNet((1, 4, 4), 3, hidden_channels=8, **options).parameters()
    )


def test_connections_are_switched() -> None:
    one = {"num_layers": 1, "output_channels": 5}
    both = count(**one)
    assert both - count(skip=False, **one) == 8 * 16
    # Without residual connections a layer carries h features.
    narrower = 7 * 4 * 8 + 8 + 8 * 32 * 2 + 8 * 16 + 8 * 8 + 8 * 5
    assert both - count(residual=False, **one) == narrower


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"event_shape": (8, 8)}, "event_shape"),
        ({"event_shape": (16, 8, 8), "hidden_channels": 8}, "hidden_channels"),
        ({"event_shape": (3, 8, 8), "output_channels": 2}, "output_channels"),
        ({"layer": "column"}, "layer"),
        ({"num_layers": 0}, "num_layers"),
        ({"kernel_size": 2}, "kernel_size"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        PixelRNNNet(**{"event_shape": (1, 8, 8), "num_levels": 4, **options})


def test_dropout_acts_in_training_mode_only() -> None:
    net, x = network((1, 4, 4), dropout=0.5), torch.zeros(1, 4, 4)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
