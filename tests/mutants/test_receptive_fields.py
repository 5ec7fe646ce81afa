"""Mutants that leak, or that narrow what a network sees."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_genmodels import nets, testing
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d, VerticalConv2d
from tests.cases import vivid
from tests.models.test_receptive_fields import check_sees_its_past
from tests.mutants.mutation import Mutation, assert_caught
from tests.mutants.parts import code_hierarchy_net, gated_net, pixelrnn_net, plus_plus
from tests.test_laws import past_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def colour_net() -> nets.PixelCNNNet:
    torch.manual_seed(0)
    net = nets.PixelCNNNet((3, 3, 3), 4, hidden_channels=12, num_blocks=1, kernel_size=3)
    return testing.randomize_parameters(net).eval()


def mask_with(change: Callable[[MaskedConv2d, Tensor], Tensor]) -> Mutation:
    """Replace each masked convolution's mask when its network is made."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = MaskedConv2d.__init__

        def init(self: Any, *arguments: Any, **options: Any) -> None:
            original(self, *arguments, **options)
            self.mask.copy_(change(self, self.mask.clone()))

        patch.setattr(MaskedConv2d, "__init__", init)

    return mutate


def centre_leaks(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    if layer.kind == "A":
        mask[:, :, -1, layer.kernel_size // 2] = True
    return mask


def shifted_by_one(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    if layer.kernel_size > 1:
        mask[:, :, -1] = mask[:, :, -1].roll(1, -1)
    return mask


def shifted_back_by_one(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    if layer.kernel_size > 1:
        mask[:, :, -1, layer.kernel_size // 2 - 1 :] = False
    return mask


def colours_swapped(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    half = layer.kernel_size // 2
    mask[:, :, half, half] = mask[:, :, half, half].flip(0, 1)
    return mask


def colours_independent(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    if layer.kind == "A":
        mask[:, :, -1, layer.kernel_size // 2] = False
    return mask


LEAKS = {
    "leaking centre tap": centre_leaks,
    "mask shifted by one": shifted_by_one,
    "swapped RGB order": colours_swapped,
}


@pytest.mark.parametrize("mutant", LEAKS)
def test_leak(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def law() -> None:
        testing.check_autoregressive(colour_net(), (3, 3, 3), num_levels=4)

    assert_caught(law, mask_with(LEAKS[mutant]), monkeypatch, "leaks, the first")


def test_leak_through_batch_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a peer's PixelCNN: causal in eval mode, not in training mode."""
    net = colour_net().train()
    leaky = copy.deepcopy(net)
    leaky.first = nn.Sequential(net.first, nn.BatchNorm2d(net.first.out_channels))
    testing.check_autoregressive(net, (3, 3, 3), num_levels=4)
    testing.check_autoregressive(leaky.eval(), (3, 3, 3), num_levels=4)
    with pytest.raises(AssertionError, match="leaks"):
        testing.check_autoregressive(leaky.train(), (3, 3, 3), num_levels=4)


FIELDS = {
    "narrower by a pixel": shifted_back_by_one,
    "colours independent": colours_independent,
}


@pytest.mark.parametrize("mutant", FIELDS)
def test_receptive_field(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = testing.raster_field((3, 3, 3), past_of([3, 3]))

    def law() -> None:
        testing.check_receptive_field(colour_net(), (3, 3, 3), expected, num_levels=4)

    assert_caught(law, mask_with(FIELDS[mutant]), monkeypatch, "missing pairs")


def shifts(every_layer: bool) -> Mutation:
    """Shift the vertical stack again in each layer, or never."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = VerticalConv2d.__init__

        def init(self: Any, *arguments: Any, **options: Any) -> None:
            original(self, *arguments, **options)
            self.shift = every_layer

        patch.setattr(VerticalConv2d, "__init__", init)

    return mutate


VERTICAL_MUTANTS = {
    "not shifted": (shifts(every_layer=False), "unexpected pairs"),
    "shifted in every layer": (shifts(every_layer=True), "missing pairs"),
}


@pytest.mark.parametrize("mutant", VERTICAL_MUTANTS)
def test_vertical_stack(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = testing.raster_field((1, 5, 5))

    def law() -> None:
        testing.check_receptive_field(gated_net(), (1, 5, 5), expected, num_levels=3)

    mutation, message = VERTICAL_MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message)


def test_attention_to_the_pixel_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in their own places: the usual causal mask, whose diagonal is the answer."""
    torch.manual_seed(0)
    net = nets.PixelSNAILNet((1, 3, 3), 3, hidden_channels=8, num_blocks=1, num_layers=0)
    vivid(testing.randomize_parameters(net).eval())

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("pyro_genmodels.nets.gated_pixelcnn.attention.shifted", lambda x: x)

    def law() -> None:
        testing.check_autoregressive(net, (1, 3, 3), num_levels=3)

    assert_caught(law, mutate, monkeypatch, "leaks, the first")


def states_shifted(offset: int) -> Mutation:
    """Let each pixel of a row read what its neighbour should read."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        from pyro_genmodels.nets.pixelrnn import wavefront

        original = wavefront._wavefront

        def shifted(fronts: Any, offsets: Any, *, memory: int) -> Any:
            moved = [(down, right + offset * (down != 0)) for down, right in offsets]
            return original(fronts, moved, memory=memory)

        patch.setattr(wavefront, "_wavefront", shifted)

    return mutate


def right_not_moved_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("pyro_genmodels.nets.pixelrnn.layers.moved_down", lambda x, width: x)


def right_moved_down_twice(patch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.pixelrnn import layers

    original = layers.moved_down
    patch.setattr(layers, "moved_down", lambda x, width: original(x, 2 * width))


def levels_hidden_from_the_right(patch: pytest.MonkeyPatch) -> None:
    """As printed: nothing far away sees the last pixel of the row above."""
    from pyro_genmodels.nets.pixelrnn.layers import DiagonalLSTMLayer

    original = DiagonalLSTMLayer.forward
    patch.setattr(
        DiagonalLSTMLayer, "forward", lambda self, x, f, levels: original(self, x, f, 0 * levels)
    )


def colours_of_gates_swapped(patch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.layers.masked_conv import MaskedRowConv2d

    original = MaskedRowConv2d.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.mask[..., -1] = self.mask[..., -1].flip(0, 1).clone()

    patch.setattr(MaskedRowConv2d, "__init__", init)


PIXELRNN_MUTANTS: dict[str, tuple[Mutation, str, str]] = {
    "row: states shifted to the right": (states_shifted(1), "row", "unexpected pairs"),
    "row: states shifted to the left": (states_shifted(-1), "row", "unexpected pairs"),
    "right way not moved down": (right_not_moved_down, "diagonal", "unexpected pairs"),
    "right way moved down twice": (right_moved_down_twice, "diagonal", "missing pairs"),
    "levels hidden from the right": (levels_hidden_from_the_right, "diagonal", "missing pairs"),
    "colours of the gates swapped": (colours_of_gates_swapped, "diagonal", "unexpected pairs"),
}


@pytest.mark.parametrize("mutant", PIXELRNN_MUTANTS)
def test_pixelrnn(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.nets.test_pixelrnn import triangle

    mutation, layer, message = PIXELRNN_MUTANTS[mutant]
    shape, options = ((3, 3, 3), {}) if layer == "diagonal" else ((1, 3, 9), {"num_layers": 1})
    if layer == "row":
        expected = testing.raster_field(shape, triangle(1, 3, 3))
    else:
        expected = testing.raster_field(shape)

    def law() -> None:
        net = pixelrnn_net(*shape, layer=layer, **options)
        testing.check_receptive_field(net, shape, expected, num_levels=3)

    assert_caught(law, mutation, monkeypatch, message)


def test_streams_that_are_not_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    net = plus_plus(1, 4, 4)

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("pyro_genmodels.nets.pixelcnn_pp.pixelcnn_pp._moved_down", lambda x: x)

    def law() -> None:
        testing.check_autoregressive(net, (1, 4, 4), num_levels=3)

    assert_caught(law, mutate, monkeypatch, "leaks, the first")


def test_transposed_convolution_that_is_off_by_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.pixelcnn_pp.layers import ShiftedConv2d

    net, original = plus_plus(1, 4, 4), ShiftedConv2d._convolve

    def up(self: Any, x: Tensor) -> Tensor:
        y = original(self, x)
        return y if self.step != "up" else nn.functional.pad(y, (0, 0, -1, 1))

    def law() -> None:
        testing.check_autoregressive(net, (1, 4, 4), num_levels=3)

    assert_caught(
        law,
        lambda patch: patch.setattr(ShiftedConv2d, "_convolve", up),
        monkeypatch,
        "leaks, the first",
    )


def test_a_map_of_codes_that_sees_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    original = nets.CodeHierarchyNet.evaluate

    def mutated(self: Any, x: Tensor, features: Any) -> Tensor:
        _, bottom = self.split(x)
        # Both maps are of one size: the lower one in the place of the upper.
        return original(self, self.join([bottom, bottom]), features)

    def law() -> None:
        testing.check_autoregressive(code_hierarchy_net(), (8,), num_levels=3)

    def mutation(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(nets.CodeHierarchyNet, "evaluate", mutated)

    assert_caught(law, mutation, monkeypatch, "leaks, the first")


def kernels(change: Callable[[int], int]) -> Mutation:
    """Choose other kernels than those that span an image."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        from pyro_genmodels.models.autoregressive import builders

        original = builders.covering_kernel
        patch.setattr(
            builders, "covering_kernel", lambda *sides, **by: change(original(*sides, **by))
        )

    return mutate


def made_of_few_units(patch: pytest.MonkeyPatch) -> None:
    """The last elements before each would be hidden, the best predictors of all."""
    from pyro_genmodels.models.autoregressive import builders

    patch.setattr(
        builders, "MADENet", lambda *sizes, hidden, **by: nets.MADENet(*sizes, hidden=(16,), **by)
    )


DEFAULTS: dict[str, tuple[Mutation, str]] = {
    "gated: a paper's kernel, whatever the image": (kernels(lambda _: 7), "gated_pixelcnn"),
    "gated: narrower by a pixel": (kernels(lambda size: size - 2), "gated_pixelcnn"),
    "row: a paper's kernel, whatever the image": (kernels(lambda _: 7), "row_lstm"),
    "MADE: fewer units than elements": (made_of_few_units, "made"),
}


@pytest.mark.parametrize("mutant", DEFAULTS)
def test_builders_defaults(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, name = DEFAULTS[mutant]

    def law() -> None:
        check_sees_its_past(name, (1, 4, 16))

    assert_caught(law, mutation, monkeypatch, "missing pairs")
