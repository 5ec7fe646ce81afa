"""What the builders' defaults see: all of the past, or all but what their docstrings say."""

from __future__ import annotations

import inspect
import itertools
import typing
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_genmodels import models, nets, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.nets import AutoregressiveNet
from tests import cases
from tests.test_laws import past_of

pytestmark = pytest.mark.usefixtures("double")

Shape = tuple[int, ...]
# Small, large, and of two channels: much wider than high, and the reverse.
SHAPES = [(1, 8, 8), (1, 16, 16), (2, 4, 16), (2, 16, 4)]
LEVELS = 3
# Thin networks see as far as others.
THIN = {"made": {"activation": "tanh"}, "ngram": {}, "char_rnn": {}, "wavenet": {}}


def prepared(net: AutoregressiveNet) -> AutoregressiveNet:
    cases.vivid(testing.randomize_parameters(net.double()).eval())
    return net


def blind_spot(net: nets.PixelCNNNet) -> Tensor:
    _, height, width = net.event_shape
    blocks = [block.spatial.kernel_size for block in net.blocks]
    inside = itertools.product(range(-height, 1), range(-width, width))
    seen = past_of([net.first.kernel_size, *blocks])
    return testing.raster_field(net.event_shape, seen & set(inside))


def triangle(net: nets.PixelRNNNet) -> Tensor:
    _, height, width = net.event_shape
    half = net.first.kernel_size // 2
    above = {(-down, right) for down in range(1, height) for right in range(-width, half + down)}
    return testing.raster_field(net.event_shape, above | {(0, -j) for j in range(width)})


def short_rows(net: nets.PixelCNNPlusPlusNet) -> Tensor:
    """Only the full size shows a pixel of an odd row its own row, and the right of that above."""
    num_resnets = 2
    grid = torch.stack(torch.meshgrid(*map(torch.arange, net.event_shape), indexing="ij"))
    _, row, column = grid.flatten(1)
    up, right = row[:, None] - row, column - column[:, None]
    far = ((up == 0) | ((up == 1) & (right > 0))) & (right.abs() > 4 * num_resnets + 2)
    return testing.raster_field(net.event_shape) & ~(far & (row[:, None] % 2 == 1))


def last_few(net: nets.NGramNet) -> Tensor:
    place = testing.raster_order(net.event_shape)
    behind = place[:, None] - place
    return (behind >= 1) & (behind <= net.receptive_field)


# Of each builder what it does not see by default, in the words of its docstring.
UNSEEN: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "pixelcnn": ("it does not see its blind spot", blind_spot),
    "row_lstm": ("it does not see what lies", triangle),
    "pixelcnn_pp": ("does not see what lies further", short_rows),
    "ngram": ("does not see those before the last ``order``", last_few),
}
# No rectifier hides a dependence at some images.
SMOOTH = {"made", "pixelcnn_pp"}
# What was long ago has an effect, but below rounding.
FADES = {"char_rnn", "wavenet"}
BUILDERS = [
    "char_rnn",
    "diagonal_bilstm",
    "gated_pixelcnn",
    "made",
    "ngram",
    "pixelcnn",
    "pixelcnn_pp",
    "pixelsnail",
    "row_lstm",
    "wavenet",
]


def some_outputs(net: AutoregressiveNet) -> list[int]:
    """The last element, the first and the middle of the last row, and the middle of the image."""
    count, row = net.event_shape.numel(), net.event_shape.numel() // net.event_shape[-2]
    places = {count - 1, count - row, count - row // 2 - 1, count // 2, count // 2 + row // 2}
    return net.order[sorted(places)].tolist()


def check_sees_its_past(name: str, shape: Shape, **options: int) -> None:
    torch.manual_seed(0)
    thin = THIN.get(name, {"hidden_channels": 6})
    net = prepared(getattr(models, name)(shape, num_levels=LEVELS, **thin, **options).net)
    expected = UNSEEN[name][1](net) if name in UNSEEN else testing.raster_field(shape)
    outputs = some_outputs(net)
    probes = 1 if name in SMOOTH else 4
    testing.check_receptive_field(
        net, shape, expected, num_levels=LEVELS, num_probes=probes, outputs=outputs
    )


def test_every_builder_is_here() -> None:
    builders = {
        name
        for name in models.__all__
        if inspect.isfunction(maker := getattr(models, name))
        and typing.get_type_hints(maker).get("return") is models.AutoregressiveModel
    }
    assert builders == {*BUILDERS, "multiscale_pixelrnn"}


@pytest.mark.parametrize(
    "shape",
    [pytest.param(s, marks=[pytest.mark.slow] if 16 in s[1::2] else []) for s in SHAPES],
    ids=str,
)
@pytest.mark.parametrize("name", BUILDERS)
def test_defaults_see_the_past(name: str, shape: Shape) -> None:
    if name in FADES and torch.Size(shape).numel() > 64:
        pytest.skip("what was long ago has faded")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sees_its_past(name, shape)


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_not_seen_stands_in_the_docstring(name: str) -> None:
    text = " ".join((inspect.getdoc(getattr(models, name)) or "").split())
    assert UNSEEN[name][0] in text


def test_a_large_image_does_not_see_the_small_one_ahead() -> None:
    shape = (1, 8, 8)
    net = prepared(models.multiscale_pixelrnn(shape, num_levels=LEVELS, hidden_channels=6).net)
    found = testing.dependencies(net, shape, num_levels=LEVELS, num_probes=2)
    place = net.order.argsort()
    missing = (place[:, None] > place) & ~found
    ahead = torch.zeros(64, dtype=torch.bool)
    ahead[net.small_indices] = True
    raster = torch.arange(64)
    assert missing.any()
    assert not (missing & ~(ahead & (raster > raster[:, None]))).any()
    text = " ".join((inspect.getdoc(models.multiscale_pixelrnn) or "").split())
    assert "does not see all of the small image that lies ahead" in text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gated_pixelcnn", {"num_layers": 2}),
        ("gated_pixelcnn", {"num_layers": 1, "layer_kernel_size": 1}),
        ("gated_pixelcnn", {"num_layers": 3, "layer_kernel_size": 5}),
        ("pixelcnn", {"num_blocks": 1}),
        ("row_lstm", {"num_layers": 1}),
    ],
)
def test_defaults_fit_the_other_options(name: str, options: dict[str, int]) -> None:
    check_sees_its_past(name, (1, 13, 11), **options)


@pytest.mark.parametrize("options", [{}, {"num_blocks": 1}, {"num_blocks": 3, "kernel_size": 3}])
@pytest.mark.parametrize("elements", [127, 128, 129, 500, 3072])
def test_a_wavenet_is_just_deep_enough(elements: int, options: dict[str, int]) -> None:
    """By the property that ``tests/nets/test_sequences.py`` holds to what a small one sees."""
    net = models.wavenet((elements,), num_levels=2, channels=4, **options).net
    assert net.receptive_field >= elements - 1
    layers = len(net.layers) // options.get("num_blocks", 2)
    options = {**options, "layers_per_block": layers - 1}
    fewer = models.wavenet((elements,), num_levels=2, channels=4, **options).net
    assert layers == 6 or fewer.receptive_field < elements - 1


def seen_by(net: AutoregressiveNet, output: int) -> Tensor:
    """What an output of a large event depends on, by its gradient alone, at some images."""
    x = torch.randint(2, (16, *net.event_shape)).double().requires_grad_()
    first = net(x).flatten(1, len(net.event_shape))[:, output, 0]
    return (torch.autograd.grad(first.sum(), x)[0] != 0).any(0)


def test_made_is_as_wide_as_its_elements() -> None:
    """With fewer units than elements the nearest ones would be hidden."""
    net = prepared(models.made((1, 24, 24), activation="tanh").net)
    assert [int(seen_by(net, output).sum()) for output in (573, 574, 575)] == [573, 574, 575]


@pytest.mark.parametrize("name", ["gated_pixelcnn", "pixelcnn", "row_lstm"])
def test_a_larger_image_is_seen_as_far_as_a_warning_says(name: str) -> None:
    options = {"num_levels": 2, "hidden_channels": 8}
    with pytest.warns(
        UserWarning, match=r"sees \d of the 31 pixels before it.*kernel_size="
    ) as met:
        large = getattr(models, name)((1, 32, 32), **options)
    reach = int(str(met[0].message).split()[3])
    net, last = prepared(large.net), 32 * 32 - 1
    assert seen_by(net, last)[0, -1].nonzero().min() == 31 - reach
    kernel_size = int(str(met[0].message).split("kernel_size=")[1].split()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = getattr(models, name)((1, 32, 32), kernel_size=kernel_size, **options)
    assert seen_by(prepared(wide.net), last)[0, -1].sum() == 31


@pytest.mark.parametrize("name", ["gated_pixelcnn", "pixelcnn", "row_lstm", "wavenet", "made"])
def test_what_a_default_chose_is_written_down(name: str) -> None:
    """A checkpoint loads the same network whatever a later version's default is."""
    model = getattr(models, name)((1, 16, 16), num_levels=2)
    chosen = {"wavenet": "layers_per_block", "made": "hidden"}.get(name, "kernel_size")
    description = configuration(model)
    assert description["arguments"]["net"]["arguments"][chosen]
    again = build(description)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_presets_keep_the_papers_kernels() -> None:
    for name in ("gated_pixelcnn", "pixelcnn", "row_lstm"):
        for group in models.presets()[name].values():
            assert group["model"]["kernel_size"] == 7
