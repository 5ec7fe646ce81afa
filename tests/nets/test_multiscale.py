"""Two scales: the small image's pixels first, the rest given them, by any networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyro_genmodels import distributions, models, nets
from pyro_genmodels.nets import AutoregressiveNet, MultiScaleNet
from pyro_genmodels.nets.autoregressive.multiscale import small_shape
from pyro_genmodels.testing import (
    check_normalized,
    check_sampling_methods_agree,
    dependencies,
    randomize_parameters,
)
from tests.cases import gated_net, made, multiscale, pixelrnn, vivid
from tests.nets.test_gated_pixelcnn import differences


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_small_image_comes_first_and_the_rest_in_raster_order() -> None:
    order = multiscale(2, 2, 3).order.tolist()
    small = [0, 6, 2, 8]  # pixel by pixel, its channels one after another
    assert order == [*small, 1, 7, 3, 9, 4, 10, 5, 11]


def test_what_is_seen() -> None:
    """The small image sees itself only; the rest their past in raster order, and the small image.

    What of the small image's future is seen is what the enlarged image shows.
    """
    shape, scale = (1, 4, 6), 2
    net = MultiScaleNet(
        pixelrnn(1, 2, 3, hidden_channels=12),
        pixelrnn(*shape, context_shape=(12, 4, 6), hidden_channels=12),
        scale=scale,
    )
    net = vivid(randomize_parameters(net.double()).eval())
    found = dependencies(net, shape, num_levels=3)
    small = torch.zeros(shape, dtype=torch.bool)
    small[:, ::scale, ::scale] = True
    small, place = small.flatten(), net.order.argsort()
    raster = torch.ones(24, 24, dtype=torch.bool).tril(-1)
    earlier = place[:, None] > place[None, :]
    assert torch.equal(found[small], (earlier & small)[small])
    assert (found | ~raster)[~small].all()
    assert not (found & ~raster & ~small)[~small].any()
    assert found[1, [2, 12, 14]].all()  # pixels to the right and below, which are known
    assert not (found & ~earlier).any()


def mixed(shape: tuple[int, ...], scale: int, kind: str, **options: Any) -> MultiScaleNet:
    sizes = small_shape(shape, scale)
    small: AutoregressiveNet = gated_net(*sizes, **options)
    if kind == "made":
        small = made(*sizes, order="random")
    large = nets.PixelCNNNet(
        shape, 3, hidden_channels=6, num_blocks=1, context_shape=(5, *shape[1:])
    )
    return randomize_parameters(MultiScaleNet(small, large, scale=scale).double()).eval()


@pytest.mark.parametrize(
    ("shape", "scale", "options"),
    [
        ((1, 5, 6), 2, {}),
        ((1, 4, 5), 3, {"num_classes": 3}),
        ((3, 3, 2), 2, {"context_shape": (4,)}),
        ((2, 1, 5), 2, {"context_shape": (2, 3, 3)}),
        ((2, 3, 1), 4, {}),
        ((1, 1, 1), 2, {}),
    ],
)
def test_by_pixels_as_in_one_go(
    shape: tuple[int, ...], scale: int, options: dict[str, Any]
) -> None:
    net, shape_ = mixed(shape, scale, "gated", **options), options.get("context_shape")
    context = None if shape_ is None else torch.randn(shape_, dtype=torch.float64)
    if "num_classes" in options:
        context = torch.tensor(2)
    assert differences(net, context) < 1e-12


@pytest.mark.parametrize("kind", ["gated", "made"])
def test_any_networks_make_one_law(kind: str) -> None:
    law = distributions.MultiScalePixelRNN(vivid(mixed((1, 2, 3), 2, kind)))
    check_normalized(law)
    check_sampling_methods_agree(law, sample_shape=(20,))


@pytest.mark.parametrize("method", ["cached", "parallel", "naive"])
def test_a_given_small_image_is_kept(method: str) -> None:
    net = randomize_parameters(multiscale(3, 3, 4)).eval()
    law = distributions.MultiScalePixelRNN(net)
    given = torch.randint(3, (3, 3, 4)).float()
    x = law.sample((5,), method=method, given=given, num_given=3 * 2 * 2)
    assert torch.equal(net.reduced(x), net.reduced(given).expand(5, 3, 2, 2))
    assert not torch.equal(x[0], x[1])


def test_both_networks_get_their_gradients() -> None:
    net = multiscale(1, 3, 3, num_classes=3)
    net(torch.zeros(2, 1, 3, 3), torch.tensor([0, 1])).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("small", "large", "options", "named"),
    [
        (gated_net(1, 2, 2), gated_net(1, 4, 4), {}, "large"),
        (gated_net(1, 2, 2), gated_net(1, 5, 4, context_shape=(2, 5, 4)), {}, "small"),
        (made(1, 2, 2, num_levels=4), gated_net(1, 4, 4, context_shape=(2, 4, 4)), {}, "small"),
        (gated_net(1, 4, 4), gated_net(1, 4, 4, context_shape=(2, 4, 4)), {"scale": 1}, "scale"),
    ],
)
def test_bad_arguments_are_named(
    small: AutoregressiveNet, large: AutoregressiveNet, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        MultiScaleNet(small, large, **options)


@pytest.mark.parametrize(
    ("shape", "scale", "named"),
    [((4, 4), 2, r"`event_shape` .* got \(4, 4\)"), ((1, 4, 4), 0, "`scale` must")],
)
def test_the_model_names_what_gives_no_small_image(
    shape: tuple[int, ...], scale: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        models.multiscale_pixelrnn(shape, scale=scale)
