"""PixelSNAIL's network: all pixels before one and none else, by pixels as in one go."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyro_genmodels.nets import PixelSNAILNet
from pyro_genmodels.testing import check_receptive_field, randomize_parameters, raster_field
from tests.cases import vivid
from tests.nets.test_gated_pixelcnn import differences


def network(event_shape: tuple[int, ...], num_levels: int = 3, **options: Any) -> PixelSNAILNet:
    options = {"hidden_channels": 8, "num_blocks": 1, "num_layers": 1, **options}
    return randomize_parameters(PixelSNAILNet(event_shape, num_levels, **options).double())


@pytest.mark.parametrize("event_shape", [(1, 4, 7), (3, 3, 4)])
@pytest.mark.parametrize("embedding_size", [None, 3])
def test_one_attention_sees_every_earlier_sub_pixel(
    event_shape: tuple[int, ...], embedding_size: int | None
) -> None:
    """Without it, one layer with a 3x3 kernel would see four pixels."""
    torch.manual_seed(0)
    # Wide enough that at no place all rectifiers are off, which would hide what is seen.
    sizes = {"hidden_channels": 24, "num_layers": 0, "kernel_size": 3}
    net = network(event_shape, embedding_size=embedding_size, **sizes)
    expected = raster_field(event_shape)
    vivid(net.eval())
    check_receptive_field(net, event_shape, expected, num_levels=3, num_probes=6)


@pytest.mark.parametrize(
    ("event_shape", "options"),
    [
        ((1, 5, 6), {"num_layers": 2, "num_blocks": 2}),
        ((1, 4, 5), {"embedding_size": 4, "num_layers": 0}),
        ((3, 3, 4), {"hidden_channels": 7, "num_blocks": 3, "num_heads": 1}),
        ((3, 3, 2), {"embedding_size": 2, "num_heads": 3, "head_size": 2}),
        ((2, 4, 1), {"context_shape": (2, 4, 1)}),
        ((2, 1, 4), {"context_shape": (5,)}),
        ((1, 1, 1), {}),
        ((1, 4, 5), {"residual_channels": 11, "num_layers": 2, "num_output_layers": 1}),
        ((3, 3, 2), {"residual_channels": 5, "num_output_layers": 2, "output_channels": 7}),
        ((2, 3, 3), {"num_output_layers": 1}),
    ],
)
def test_by_pixels_as_in_one_go(event_shape: tuple[int, ...], options: dict[str, Any]) -> None:
    net = network(event_shape, **options).eval()
    shape = options.get("context_shape")
    context = None if shape is None else torch.randn(shape, dtype=torch.float64)
    assert differences(net, context) < 1e-12


def test_the_place_counts() -> None:
    """Coordinates tell apart what convolutions far from the edges cannot."""
    net = network((1, 3, 40), num_layers=0, kernel_size=3)
    logits = net(torch.zeros(1, 3, 40))[0, 2]
    assert (logits[19] - logits[20]).abs().max() > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_blocks": 0}, "num_blocks"),
        ({"num_heads": 0}, "num_heads"),
        ({"head_size": 0}, "head_size"),
        ({"embedding_size": 0}, "embedding_size"),
        ({"num_layers": -1}, "num_layers"),
        ({"num_output_layers": -1}, "num_output_layers"),
        ({"residual_channels": 0}, "residual_channels"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        PixelSNAILNet((1, 8, 8), 4, **options)
