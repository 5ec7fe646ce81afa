"""What is declared as an integer is checked as one, in whatever is public: no size is a half."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pyro_genmodels import (
    compression,
    data,
    disentanglement,
    distributions,
    mcmc,
    metrics,
    models,
    plotting,
    training,
    transforms,
)
from pyro_genmodels._checks import check_integers, integers_declared, is_integer
from pyro_genmodels._configuration import Configured

pytestmark = pytest.mark.once
WRONG = [2.5, 16.0, "three", True, torch.tensor(2.5), None]

MODULES = [transforms, distributions, data, models, metrics, disentanglement, plotting]
MODULES += [training, compression, mcmc]

# What lets integers through unchecked, each with its reason.
EXEMPT: dict[str, str] = {
    "EMResult": "made by a fit",
    "EMStart": "made by a fit",
    "Environment": "read from a file's header, field by field",
    "Estimate": "made by `of`",
    "Components": "abstract",
    "ExactDistribution": "abstract",
    "Header": "read from a file's header, field by field",
    "ScoreMatchingLoss": "abstract",
    "AnnealedLangevin": "a dataclass, whose constructor the tests' type checker wraps",
    "StandardNormal": "made in each step, to which a check would add a hundredth; torch refuses",
    "TrainingSettings": "a dataclass, whose constructor the tests' type checker wraps: below",
}


def public() -> Iterator[tuple[str, Callable[..., Any], dict[str, str]]]:
    """Each exported function, and each constructor that :class:`Configured` does not check."""
    for module in MODULES:
        for name in module.__all__:
            part = getattr(module, name)
            plain = inspect.isclass(part) and not issubclass(part, Configured)
            if name not in EXEMPT and (plain or inspect.isfunction(part)):
                call = part.__init__ if plain else part
                declared = integers_declared(getattr(call, "__annotations__", {}))
                if declared:
                    yield f"{module.__name__.rpartition('.')[2]}.{name}", part, declared


PUBLIC = {name: (part, declared) for name, part, declared in public()}


def with_wrong(part: Callable[..., Any], argument: str, value: object) -> None:
    """Call with that argument alone wrong: the others are not looked at before it is refused."""
    needed = [
        name
        for name, parameter in inspect.signature(part).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    part(**{**dict.fromkeys(needed, 4), argument: value})


@pytest.mark.parametrize("name", PUBLIC)
def test_no_public_function_takes_half_of_anything(name: str) -> None:
    part, declared = PUBLIC[name]
    for argument, kinds in declared.items():
        for value in WRONG:
            allowed = (value is None and "None" in kinds) or (value == "three" and "str" in kinds)
            if not allowed:
                with pytest.raises(ValueError, match=f"`{argument}` must be (an )?integer"):
                    with_wrong(part, argument, value)


def pixelcnn() -> models.AutoregressiveModel:
    return models.pixelcnn((1, 4, 4), num_levels=3, hidden_channels=4, num_blocks=1).eval()


def vae() -> models.VAE:
    return models.VAE(
        (4,), num_levels=2, latent_dim=2, network=models.VAENetwork(hidden=(4,))
    ).eval()


def draw(**options: Any) -> torch.Tensor:
    return distributions.PixelCNN(pixelcnn().net).sample(**options)


def settings(**given: Any) -> None:
    made = training.TrainingSettings()
    vars(made).update(given)
    made.__post_init__()


METHODS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "sample, num_given": (
        "num_given",
        lambda n: draw(num_given=n or 2.5, given=torch.zeros(1, 4, 4)),
    ),
    "sample, window": ("window", lambda n: draw(window=n or 2.5, method="parallel")),
    "model.sample": ("num_samples", lambda n: vae().sample(n)),
    "autoregressive model.sample": ("num_samples", lambda n: pixelcnn().sample(n)),
    "complete": ("num_rows", lambda n: pixelcnn().complete(torch.zeros(1, 4, 4), n or 2.5)),
    "log_weights": ("num_particles", lambda n: vae().log_weights(torch.ones(4), num_particles=n)),
    "fit_ppca": ("latent_dim", lambda n: models.FactorAnalysis.fit_ppca(torch.randn(9, 4), n)),
    "VQVAE2.paper": ("num_maps", lambda n: models.VQVAE2.paper(num_maps=n)),
    "sample_factors": ("count", lambda n: data.Sprites().sample_factors(n)),
    "settings": ("batch_size", lambda n: settings(batch_size=n)),
    "settings, one that may be none": ("patience", lambda n: settings(patience=n or 2.5)),
    "an option of the network": ("num_blocks", lambda n: models.pixelcnn((1, 4, 4), num_blocks=n)),
    "an option of a flow": ("num_steps", lambda n: transforms.glow(4, num_steps=n)),
    "sequences": ("hidden", lambda n: models.made((4,), hidden=n)),
    "sequences, one of them": ("hidden", lambda n: models.made((4,), hidden=(4, n))),
    "MADE's order": ("order", lambda n: models.made((4,), order=n if n != "three" else 2.5)),
}


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("name", METHODS)
def test_no_method_takes_half_of_anything(name: str, value: object) -> None:
    argument, call = METHODS[name]
    with pytest.raises(ValueError, match=f"`{argument}` must be (an )?integer"):
        call(value)


def test_an_iterator_is_no_sequence() -> None:
    """Looking through it would leave nothing of it."""
    with pytest.raises(ValueError, match="`hidden` must be integers"):
        models.made((4,), hidden=(size for size in (4, 5)))  # type: ignore[arg-type]


def test_what_counts_as_an_integer() -> None:
    check_integers({"order": "Sequence[int]"}, {"order": torch.tensor([2, 0, 1])})
    assert models.made((4,), hidden=torch.Size([4]), order="random").net.order.shape == (4,)
    assert is_integer(torch.tensor(2))
    assert not is_integer(torch.tensor([1, 2]))


@pytest.mark.parametrize("shape", [(0,), (True,), (-1,)])
def test_impossible_shapes_are_named(shape: Any) -> None:
    with pytest.raises(ValueError, match="`event_shape` must be positive sizes"):
        distributions.UniformLevels(shape, 3)
    with pytest.raises(ValueError, match="`event_shape` must be positive sizes"):
        models.made(shape)
