"""Masked convolutions: no leak for any kernel, kind and number of colours; the row cache agrees."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.nets import MaskedConv2d
from pyro_genmodels.nets.autoregressive.row_cache import RowCache
from pyro_genmodels.nets.layers.masked_conv import causal_mask, group_of
from pyro_genmodels.nets.layers.pointwise import pointwise_conv
from pyro_genmodels.testing import randomize_parameters


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("colours", [1, 2, 3])
def test_each_feature_sees_exactly_its_past(kind: str, kernel_size: int, colours: int) -> None:
    ins, outs, height, width = 2 * colours, 3 * colours + 1, 4, 5
    layer = MaskedConv2d(ins, outs, kernel_size, kind=kind, num_groups=colours).double()
    randomize_parameters(layer)
    x = torch.randn(ins, height, width, dtype=torch.float64)
    seen = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], x) != 0
    grids = [torch.arange(height)[:, None], torch.arange(width)[None, :]]
    row, column = (grid.expand(height, width) for grid in grids)
    own = group_of(outs, colours)[:, None, None, None, None, None]
    other = group_of(ins, colours)[None, None, None, :, None, None]
    down = row[None, None] - row[:, :, None, None]
    right = column[None, None] - column[:, :, None, None]
    down, right = (offset[None, :, :, None] for offset in (down, right))
    reach = kernel_size // 2
    near = (down.abs() <= reach) & (right.abs() <= reach)
    past = (down < 0) | ((down == 0) & (right < 0))
    same = (down == 0) & (right == 0) & (other < own if kind == "A" else other <= own)
    assert torch.equal(seen, near & (past | same))


def test_weights_written_under_the_mask_change_nothing() -> None:
    layer = MaskedConv2d(3, 6, 3, kind="B", num_groups=3)
    x = torch.randn(2, 3, 4, 4)
    before = layer(x)
    with torch.no_grad():
        layer.weight[~layer.mask] = 100.0
    assert torch.equal(layer(x), before)


def test_the_mask_is_no_parameter_and_not_in_checkpoints() -> None:
    layer = MaskedConv2d(1, 2, 3, kind="A")
    assert set(layer.state_dict()) == {"weight", "bias"}
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin.mask, layer.mask)
    assert isinstance(build(configuration(layer)), MaskedConv2d)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kernel_size": 4, "kind": "A"}, "kernel_size"),
        ({"kernel_size": 3, "kind": "C"}, "kind"),
        ({"kernel_size": 3, "kind": "B", "num_groups": 3}, "in_channels"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        MaskedConv2d(2, 4, **options)


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("colours", [1, 3])
def test_row_cache_equals_the_convolution(kind: str, kernel_size: int, colours: int) -> None:
    ins, outs, batch, height, width = colours + 2, colours + 4, 2, 6, 3
    layer = MaskedConv2d(ins, outs, kernel_size, kind=kind, num_groups=colours).double()
    randomize_parameters(layer)
    x = torch.randn(batch, ins, height, width, dtype=torch.float64)
    colour_in = group_of(ins, colours)
    with torch.no_grad():
        cache, rows = RowCache(layer, batch, width), []
        for i in range(height):
            cache.start_row()
            for j in range(width):
                for c in range(colours):
                    own = x[:, colour_in == c, i, j]
                    if kind == "B":
                        cache.targets[j][c].copy_(own)
                    product = cache.inputs[j][c] @ cache.weights[c]
                    rows.append(cache.bases[j][c] + product)
                    cache.targets[j][c].copy_(own)
        found = torch.cat(rows, 1).view(batch, height, width, outs).permute(0, 3, 1, 2)
        torch.testing.assert_close(found, layer(x), rtol=0, atol=1e-12)


def test_causal_mask_of_the_first_layer_orders_the_colours() -> None:
    centre = causal_mask(3, 3, 3, kind="A", num_groups=3)[:, :, 1, 1]
    assert centre.tolist() == [[False, False, False], [True, False, False], [True, True, False]]


@pytest.mark.parametrize("channels", [3, 30], ids=["products", "conv2d"])
@pytest.mark.parametrize("batch_size", [0, 2])
@pytest.mark.parametrize("with_bias", [False, True])
def test_1x1_layers_are_convolutions(channels: int, batch_size: int, with_bias: bool) -> None:
    x = torch.randn(batch_size, channels, 4, 5, dtype=torch.double, requires_grad=True)
    weight = torch.randn(6, channels, 1, 1, dtype=torch.double, requires_grad=True)
    bias = torch.randn(6, dtype=torch.double, requires_grad=True) if with_bias else None
    given = [t for t in (x, weight, bias) if t is not None]
    found, known = (f(x, weight, bias) for f in (pointwise_conv, torch.nn.functional.conv2d))
    torch.testing.assert_close(found, known)
    slope = torch.randn_like(known)
    for ours, theirs in zip(
        *(torch.autograd.grad(y, given, slope) for y in (found, known)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
