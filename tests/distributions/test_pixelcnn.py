"""PixelCNN: sums to one before training, and its sampler draws what it scores."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from pyro_genmodels.distributions import PixelCNN
from pyro_genmodels.nets import PixelCNNNet
from pyro_genmodels.testing import (
    check_distribution,
    check_normalized,
    check_sampler,
    check_sampling_methods_agree,
    check_vmap,
    randomize_parameters,
)

# Shapes are (C, H, W): two pixels by two of three binary colours, and so on.
ENUMERABLE = {"2x2x3 binary": ((3, 2, 2), 2), "2x1x3, 4 levels": ((3, 2, 1), 4)}
ENUMERABLE["3x3x1 binary"] = ((1, 3, 3), 2)
CONTEXTS = {
    "plain": {},
    "label": {"num_classes": 3},
    "vector": {"context_shape": (2,)},
    "map": {"context_shape": (2, 4, 5)},
}


def make(
    event_shape: tuple[int, ...],
    num_levels: int,
    *,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    scale: float = 1.0,
    **options: object,
) -> PixelCNN:
    net = PixelCNNNet(event_shape, num_levels, **{"hidden_channels": 8, "num_blocks": 2, **options})
    randomize_parameters(net.to(dtype), scale)
    if net.num_classes is not None:
        return PixelCNN(net, torch.randint(net.num_classes, batch))
    if net.context_shape is not None:
        return PixelCNN(net, torch.randn(*batch, *net.context_shape, dtype=dtype))
    return PixelCNN(net)


@pytest.mark.parametrize("size", ENUMERABLE)
def test_probabilities_sum_to_one_given_a_map(size: str) -> None:
    """Plain, by label and by vector every family is held to this in ``test_families.py``."""
    check_normalized(make(*ENUMERABLE[size], batch=(2,), **CONTEXTS["map"]))


@pytest.mark.parametrize("size", ENUMERABLE)
def test_sampler_draws_what_log_prob_scores(size: str) -> None:
    law = make(*ENUMERABLE[size])
    check_sampler(law)
    check_sampling_methods_agree(law, sample_shape=(100,))


@pytest.mark.parametrize("context", ["label", "map"])
def test_conditional_sampler_draws_what_log_prob_scores(context: str) -> None:
    check_sampler(make((1, 2, 3), 2, batch=(3,), **CONTEXTS[context]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(
    ("event_shape", "levels"), [((1, 9, 7), 2), ((3, 5, 4), 17), ((2, 4, 6), 3)]
)
def test_methods_draw_the_same_values(
    event_shape: tuple[int, ...], levels: int, context: str, dtype: torch.dtype
) -> None:
    options = {"batch": (2, 1), "dtype": dtype, **CONTEXTS[context]}
    check_sampling_methods_agree(make(event_shape, levels, **options), sample_shape=(5, 3))


@pytest.mark.parametrize("context", CONTEXTS)
def test_is_a_pyro_citizen(context: str) -> None:
    check_distribution(make((2, 3, 3), 3, batch=(2, 1), **CONTEXTS[context]))


def test_scores_under_vmap() -> None:
    check_vmap(make((1, 3, 3), 3))


@pytest.mark.parametrize("num_levels", [2, 5])
def test_scores_any_dtype_alike(num_levels: int) -> None:
    law = make((1, 3, 3), num_levels)
    x = law.sample((4,))
    for dtype in (torch.uint8, torch.int64, torch.float32):
        assert torch.equal(law.log_prob(x.to(dtype)), law.log_prob(x))


def test_copies_score_alike() -> None:
    law = make((1, 3, 3), 3, num_classes=2, batch=(2,))
    x = law.sample()
    for twin in (copy.deepcopy(law), pickle.loads(pickle.dumps(law))):
        assert torch.equal(twin.log_prob(x), law.log_prob(x))
    assert "PixelCNNNet" in repr(law)


def test_log_prob_has_gradients_for_network_and_context() -> None:
    law = make((1, 3, 3), 3, context_shape=(2,), batch=(4,))
    law.context.requires_grad_()
    law.log_prob(law.sample()).sum().backward()
    assert all((p.grad != 0).any() for p in law.net.parameters())
    assert (law.context.grad != 0).any()
