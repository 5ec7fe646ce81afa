"""Laws over drawn shapes, masks, levels and contexts, by hypothesis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("hypothesis", reason="comes with the testing extra")

from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_genmodels import distributions, nets, testing, transforms
from pyro_genmodels.testing import strategies

strategies.load_profile(max_examples=15)


@pytest.fixture(autouse=True, scope="module")
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def _fresh_state() -> None:
    """In place of the session's, which would put float32 back before each test."""


# The shape checks of the tests sample list items by the `random` module.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

MASKS = st.sampled_from([transforms.Checkerboard, transforms.ChannelMask])
VECTOR_MASKS = st.sampled_from([transforms.HalfMask, transforms.AlternatingMask])
WHOLE_FLOWS = st.sampled_from(
    [
        lambda shape, n: transforms.RealNVP(shape, num_couplings=n, width=4, num_blocks=1),
        lambda shape, n: transforms.NICE(shape, num_couplings=n, width=4, num_layers=1),
        lambda shape, n: transforms.Glow(
            shape, num_steps=n, width=4, coupling=transforms.GlowCoupling(log_scale_factor=1)
        ),
    ]
)
KINDS = st.sampled_from(["additive", "affine", "spline"])


def small_coupling(kind: str, mask: Any, shape: tuple[int, ...]) -> Any:
    """A coupling, or ``None`` where the mask leaves a part of such events empty."""
    make = getattr(transforms, f"{kind}_coupling")
    divisible = shape[0] if isinstance(mask, transforms.ChannelMask) else math.prod(shape[-2:])
    if divisible > 1 or len(shape) == 1:
        return testing.randomize_parameters(
            make(shape, mask=mask, hidden=(3,), activation="tanh").eval()
        )
    with pytest.raises(ValueError, match="`mask` must leave no part of an event empty"):
        make(shape, mask=mask)
    return None


@given(
    shape=strategies.image_shapes(max_side=4),
    kind=KINDS,
    mask=MASKS,
    inverted=st.booleans(),
    data=st.data(),
)
def test_coupling_of_any_image(
    shape: tuple[int, int, int], kind: str, mask: Any, inverted: bool, data: Any
) -> None:
    layer = small_coupling(kind, mask(inverted=inverted), shape)
    if layer is not None:
        x = data.draw(strategies.real_tensors(shape))
        testing.check_inverse(layer, x)
        testing.check_log_det(layer, x)


@given(
    shape=strategies.vector_shapes(),
    kind=KINDS,
    mask=VECTOR_MASKS,
    inverted=st.booleans(),
    data=st.data(),
)
def test_coupling_of_any_vector(
    shape: tuple[int], kind: str, mask: Any, inverted: bool, data: Any
) -> None:
    layer = small_coupling(kind, mask(inverted=inverted), shape)
    if layer is not None:
        x = data.draw(strategies.real_tensors(shape))
        testing.check_inverse(layer, x)
        testing.check_log_det(layer, x)


@given(shape=strategies.vector_shapes(), make=WHOLE_FLOWS, count=st.integers(1, 4), data=st.data())
def test_whole_flow_of_any_vector(shape: tuple[int], make: Any, count: int, data: Any) -> None:
    flow = make(shape, count)
    x = data.draw(strategies.real_tensors(shape))
    testing.randomize_parameters(flow).eval()
    testing.check_inverse(flow, x)
    testing.check_log_det(flow, x)


@given(
    shape=strategies.image_shapes(channels=(1, 3), max_side=2, multiple_of=2),
    num_classes=st.integers(1, 3),
    data=st.data(),
)
def test_conditional_real_nvp_over_any_contexts(
    shape: tuple[int, int, int], num_classes: int, data: Any
) -> None:
    flow = transforms.ConditionalRealNVP(shape, num_classes=num_classes, width=4, num_couplings=1)
    testing.randomize_parameters(flow).eval()
    labels = data.draw(strategies.contexts(num_classes=num_classes))
    x = data.draw(strategies.real_tensors(shape, batch_shape=labels.shape))
    testing.check_inverse(flow.condition(labels), x)
    testing.check_log_det(flow.condition(labels), x)


@given(shape=strategies.image_shapes(channels=(1, 2, 3), max_side=3), levels=st.integers(2, 5))
def test_pixelcnn_of_any_image_leaks_nothing(shape: tuple[int, int, int], levels: int) -> None:
    net = nets.PixelCNNNet(shape, levels, hidden_channels=2 * shape[0], num_blocks=1)
    testing.randomize_parameters(net).eval()
    testing.check_autoregressive(net, shape, num_levels=levels, num_probes=1)


@settings(max_examples=10)
@given(data=st.data())
def test_pixelcnn_scores_any_batch_of_images(data: Any) -> None:
    net = nets.PixelCNNNet((1, 3, 2), 4, hidden_channels=4, num_blocks=1)
    pixelcnn = distributions.PixelCNN(net.eval())
    x: Tensor = data.draw(strategies.discrete_tensors((1, 3, 2), 4))
    scores = pixelcnn.log_prob(x)
    assert scores.shape == x.shape[:-3]
    one_by_one = torch.stack([pixelcnn.log_prob(image) for image in x.reshape(-1, 1, 3, 2)])
    torch.testing.assert_close(scores, one_by_one.reshape(scores.shape))


@given(shape=strategies.event_shapes(), data=st.data())
def test_strategies_keep_their_promises(shape: tuple[int, ...], data: Any) -> None:
    levels = data.draw(strategies.discrete_tensors(shape, 3, batch_shape=(2,)))
    assert levels.shape == (2, *shape)
    assert set(levels.unique().tolist()) <= {0.0, 1.0, 2.0}
    mask = data.draw(strategies.masks(shape))
    assert mask.shape == shape
    assert mask.numel() == 1 or (mask.any() and not mask.all())
    context = data.draw(strategies.contexts(context_shape=(2,), batch_shape=(3,)))
    assert context.shape == (3, 2)
    both = data.draw(strategies.contexts(num_classes=2, context_shape=(2, 3), batch_shape=(4,)))
    assert both.shape == (4, 3, 3)
    labels, _ = nets.split_context(both, 2)
    assert set(labels.unique().tolist()) <= {0, 1}
    assert torch.equal(both[:, 0], labels[:, None].expand(4, 3).to(both.dtype))


def test_profile_is_deterministic_and_bounded() -> None:
    profile = settings.get_profile(strategies.PROFILE)
    assert profile.derandomize
    assert profile.database is None
    assert profile.deadline is None
    assert profile.max_examples <= 20
