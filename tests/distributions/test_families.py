"""Every autoregressive network: sums to one before training, and is drawn as it is scored."""

from __future__ import annotations

import pytest
import torch

from pyro_genmodels.testing import check_normalized, check_sampler, check_sampling_methods_agree
from tests.distributions.families import CONTEXTS, NETWORKS, make

# Shapes are (C, H, W): two pixels by two of three binary colours, and so on.
ENUMERABLE = {"2x2x3 binary": ((3, 2, 2), 2), "2x1x3, 4 levels": ((3, 2, 1), 4)}
ENUMERABLE["3x3x1 binary"] = ((1, 3, 3), 2)

each_family = pytest.mark.parametrize("name", NETWORKS)


@pytest.mark.parametrize("context", ["plain", "label"])
@pytest.mark.parametrize("size", ENUMERABLE)
@each_family
def test_probabilities_sum_to_one_before_training(name: str, size: str, context: str) -> None:
    check_normalized(make(name, *ENUMERABLE[size], batch=(2,), **CONTEXTS[context]))


@each_family
def test_probabilities_sum_to_one_given_a_vector(name: str) -> None:
    check_normalized(make(name, (2, 2, 1), 3, batch=(2,), **CONTEXTS["vector"]))


@each_family
def test_probabilities_sum_to_one_at_256_levels(name: str) -> None:
    one = {"num_masks": 1} if name == "MADE" else {}
    check_normalized(make(name, (1, 1, 2), 256, num_classes=4, **one))


@each_family
def test_no_image_at_all_has_scores_and_gradients_too(name: str) -> None:
    law = make(name, (2, 3, 2), 3, batch=(0,), **CONTEXTS["label"])
    x = law.sample((2,))
    assert x.shape == (2, 0, 2, 3, 2)
    nats = law.log_prob(x)
    assert nats.shape == (2, 0)
    nats.sum().backward()


@pytest.mark.parametrize(("dtype", "levels"), [(torch.bfloat16, 257), (torch.float16, 2049)])
@each_family
def test_a_dtype_too_coarse_for_the_levels_is_an_error(
    name: str, dtype: torch.dtype, levels: int
) -> None:
    one = {"num_masks": 1} if name == "MADE" else {}
    top = make(name, (1, 1, 2), levels, dtype=dtype, **one)
    assert top.log_prob(torch.full((1, 1, 2), levels - 1)).dtype == torch.float32
    law = make(name, (1, 1, 2), levels + 1, dtype=dtype, **one)
    with pytest.raises(ValueError, match="`net` must have a dtype that holds"):
        law.sample()
    with pytest.raises(ValueError, match="`net` must have a dtype that holds"):
        law.log_prob(torch.full((1, 1, 2), levels))


@each_family
def test_sampler_draws_what_log_prob_scores(name: str) -> None:
    law = make(name, (3, 2, 1), 4)
    check_sampler(law)
    check_sampling_methods_agree(law, methods=("cached", "parallel"), sample_shape=(100,))


@pytest.mark.parametrize("context", CONTEXTS)
@each_family
def test_autocast_changes_no_sample(name: str, context: str) -> None:
    """Samplers switch it off, for what they take of a context too."""
    law = make(name, (2, 2, 2), 3, batch=(2,), dtype=torch.float32, **CONTEXTS[context])
    torch.manual_seed(1)
    expected = law.sample((2,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(1)
        assert torch.equal(law.sample((2,)), expected)
        assert law.log_prob(expected).dtype == torch.float32
