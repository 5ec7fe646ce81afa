"""Cached sampling holds a row of activations a layer: never anything the size of the image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pyro_genmodels import nets
from pyro_genmodels.nets import AutoregressiveNet
from tests.nets.memory import held_bytes

BY_ROWS: dict[str, Callable[[int, int], AutoregressiveNet]] = {
    "PixelCNN": lambda h, w: nets.PixelCNNNet((2, h, w), 3, hidden_channels=4, num_blocks=2),
    "GatedPixelCNN": lambda h, w: nets.GatedPixelCNNNet(
        (2, h, w), 3, hidden_channels=4, num_layers=2
    ),
    "PixelCNN++": lambda h, w: nets.PixelCNNPlusPlusNet(
        (2, h, w), 3, hidden_channels=4, num_resnets=1, num_mixtures=2
    ),
    "Row LSTM": lambda h, w: nets.PixelRNNNet(
        (1, h, w), 3, layer="row", hidden_channels=4, num_layers=2
    ),
    "Diagonal BiLSTM": lambda h, w: nets.PixelRNNNet(
        (1, h, w), 3, layer="diagonal", hidden_channels=4, num_layers=2
    ),
}


def held(net: AutoregressiveNet) -> int:
    """Bytes held in the third row, before its end."""
    _, height, width = net.event_shape
    steps = net.event_shape.numel() // height * 2 + width // 2
    with torch.inference_mode():
        return held_bytes(net.eval(), steps)


@pytest.mark.parametrize("name", BY_ROWS)
def test_memory_of_sampling_grows_with_a_row_not_with_their_number(name: str) -> None:
    make = BY_ROWS[name]
    assert held(make(8, 8)) == held(make(32, 8))
    narrow, middle, wide = (held(make(8, width)) for width in (8, 16, 24))
    assert wide - middle == middle - narrow > 0


def test_attention_keeps_the_keys_and_values_of_all_pixels() -> None:
    """And of what does not depend on the image: the places of pixels, one map for all images."""

    def make(height: int) -> AutoregressiveNet:
        return nets.PixelSNAILNet((1, height, 8), 3, hidden_channels=8, num_blocks=2, num_layers=1)

    low, middle, high = (held(make(height)) for height in (8, 16, 24))
    assert high - middle == middle - low
    (attention, *others) = [x for x in make(8).layers if hasattr(x, "num_heads")]  # type: ignore[union-attr]
    sizes = attention.num_heads * attention.head_size * (1 + len(others))
    keys_and_values = 2 * sizes * 2 * 8 * 8 * 4  # of two images, eight rows of eight, in float32
    assert keys_and_values <= middle - low <= 2 * keys_and_values


@pytest.mark.parametrize("num_mixtures", [None, 2])
def test_memory_of_sampling_a_sequence_does_not_grow(num_mixtures: int | None) -> None:
    def make(length: int) -> AutoregressiveNet:
        return nets.WaveNetNet(
            (length,), 16, channels=4, layers_per_block=3, num_mixtures=num_mixtures
        ).eval()

    with torch.inference_mode():
        sizes = {held_bytes(make(length), 40) for length in (64, 256)}
        assert sizes == {held_bytes(make(64), 60)}
        assert held_bytes(nets.WaveNetNet((64,), 16, channels=4, layers_per_block=4), 40) > max(
            sizes
        )
