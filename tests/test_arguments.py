"""Arguments a person can read: few, all of them shown and described."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from torch.distributions import Transform

from pyro_genmodels import models, transforms

PACKAGE = models.__name__.partition(".")[0]
PARTS = ("transforms", "nets", "distributions", "models")
MOST, MOST_OF_A_MODEL = 16, 12

# Takes the options of whichever builder is named; has torch's constructor, being abstract.
EXEMPT = {"models.preset", "models.LatentPrior"}


def makers() -> dict[str, Callable[..., Any]]:
    """What a user calls to make something: public classes and functions by name."""
    found = {}
    for part in PARTS:
        namespace = importlib.import_module(f"{PACKAGE}.{part}")
        for name in namespace.__all__:
            maker = getattr(namespace, name)
            is_error = inspect.isclass(maker) and issubclass(maker, Exception)
            if callable(maker) and not is_error:
                found[f"{part}.{name}"] = maker
    return found


MAKERS = makers()


def faults(maker: Callable[..., Any]) -> list[str]:
    """What makes a signature hard to read."""
    parameters = inspect.signature(maker).parameters.values()
    hidden = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
    is_model = inspect.isclass(maker) and issubclass(maker, models.GenerativeModel)
    most = MOST_OF_A_MODEL if is_model else MOST
    problems = [f"hides arguments in **{name}" for name in hidden]
    return problems + [f"{len(parameters)} arguments"] * (len(parameters) > most)


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - EXEMPT))
def test_arguments_are_few_and_shown(name: str) -> None:
    assert not faults(MAKERS[name])


def signature_of(count: int) -> inspect.Signature:
    """So many arguments."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature([inspect.Parameter(f"option_{i}", kind) for i in range(count)])


class Hiding(transforms.ConditionalFlow):
    """A flow as its twins were: its arguments are somebody else's."""

    def __init__(self, event_shape: int, **options: Any) -> None:
        super().__init__(transforms.Glow(event_shape, **options))


def test_what_is_hard_to_read_is_found() -> None:
    for base, most in ((models.FactorAnalysis, 12), (transforms.Glow, 16)):
        for count in (most, most + 1):
            made = type("Made", (base,), {"__signature__": signature_of(count)})
            assert faults(made) == [f"{count} arguments"] * (count - most)
    assert faults(Hiding) == ["hides arguments in **options"]


def passes_on(maker: Callable[..., Any]) -> bool:
    """Whether it shows arguments of something else as its own."""
    made_by = vars(maker).get("__init__", maker) if inspect.isclass(maker) else maker
    return hasattr(made_by, "__signature__")


@pytest.mark.parametrize("name", [n for n in MAKERS if passes_on(MAKERS[n])])
def test_arguments_that_are_passed_on_are_described(name: str) -> None:
    described = inspect.getdoc(MAKERS[name]) or ""
    for argument in inspect.signature(MAKERS[name]).parameters:
        assert f"\n    {argument}: " in described, argument


WITH_CACHE = r"argument 'cache_size': `cache_size` is now set by `with_cache\(cache_size\)`"


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
