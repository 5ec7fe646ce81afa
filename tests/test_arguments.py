"""Arguments a person can read: what is gone or has moved is named in the error."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from torch.distributions import Transform

from pyro_genmodels import transforms

WITH_CACHE = r"unexpected keyword argument 'cache_size': `with_cache\(cache_size\)` of a transform"


@pytest.mark.parametrize("name", transforms.__all__)
def test_no_transform_is_made_with_a_cache_size(name: str) -> None:
    assert "cache_size" not in inspect.signature(getattr(transforms, name)).parameters


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: transforms.Squeeze(**o),
        lambda **o: transforms.Chain([transforms.Squeeze()], **o),
        lambda **o: transforms.Glow(4, width=8, **o),
        lambda **o: transforms.ConditionalFlow(transforms.ActNorm(3, num_classes=2), **o),
    ],
)
def test_a_cache_size_is_an_error_that_names_with_cache(make: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=WITH_CACHE):
        make(cache_size=1)


class OfAnEarlierVersion(transforms.Squeeze):
    """A transform of a user, as the guide once had it."""

    def __init__(self, *, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)  # type: ignore[call-arg]


def test_a_transform_of_an_earlier_version_is_an_error_that_names_with_cache() -> None:
    with pytest.raises(TypeError, match=WITH_CACHE):
        OfAnEarlierVersion()


@pytest.mark.parametrize("cache_size", [0, 1])
def test_with_cache_is_of_each_transform(cache_size: int) -> None:
    flow: Transform = transforms.affine_coupling(3)
    for made in (flow, flow.inv, transforms.Chain([flow])):
        assert made.with_cache(cache_size)._cache_size == cache_size
