"""Objects as plain data: what was made can be made again, and nothing else can."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch

from pyro_genmodels import models, nets, transforms
from pyro_genmodels._configuration import Configured, build, configuration, resolve


class Own(Configured):
    """A class of a user, outside the package."""

    def __init__(self, size: int, *, part: Configured | None = None, **options: object) -> None:
        self.size, self.part, self.options = size, part, options


class Derived(Own):
    def __init__(self, half: int) -> None:
        super().__init__(2 * half)


class Inheriting(Own):
    pass


ALLOWED = [f"{__name__}.{cls.__name__}" for cls in (Own, Derived, Inheriting)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.VAE(
            (1, 4, 4), num_levels=5, latent_dim=3, network=models.VAENetwork(hidden=(8,))
        ),
        lambda: models.pixelcnn((1, 4, 4), num_levels=5, hidden_channels=4, num_classes=3),
        lambda: models.realnvp((1, 4, 4), num_levels=5),
        lambda: models.FlowModel((4,), [transforms.RealNVP((4,)), transforms.RealNVP(4)]),
        lambda: models.VAE((4,), likelihood=models.GaussianLikelihood((4,), scale=0.5)),
        lambda: nets.MLP(3, 2, hidden=(4,)),
    ],
)
def test_a_described_object_is_made_again(make) -> None:
    made = make()
    described = json.loads(json.dumps(configuration(made)))
    again = build(described)
    assert type(again) is type(made)
    assert configuration(again) == described
    again.load_state_dict(made.state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_keep_their_description(copied) -> None:
    made = models.VAE((4,), latent_dim=3)
    assert configuration(copied(made)) == configuration(made)


def test_arguments_are_recorded_as_given_to_the_outermost_constructor() -> None:
    described = configuration(Derived(3))
    assert described == {"class": f"{__name__}.Derived", "arguments": {"half": 3}}
    inherited = configuration(Inheriting(3, part=Own(1), colour="red"))
    assert inherited["arguments"]["colour"] == "red"
    again = build(inherited, allow=ALLOWED)
    assert (type(again), again.size, again.part.size) == (Inheriting, 3, 1)
    assert again.options == {"colour": "red"}


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "models.nothing",
        "models._base.GenerativeModel",
        "torch.load",
        "models.pixelcnn",
        "nets.torch",
        "",
        ".",
        "models.ELBOLoss.forward",
        ALLOWED[0],
    ],
)
def test_nothing_outside_the_public_lists_is_imported(name) -> None:
    with pytest.raises(ValueError, match="public class of this package, or allowed by name"):
        build({"class": name, "arguments": {}})


def test_allowing_is_by_full_name() -> None:
    assert resolve(ALLOWED[0], allow=ALLOWED) is Own
    with pytest.raises(ValueError, match="`class` must name a class"):
        resolve("os.system", allow=["os.system"])
    with pytest.raises(ValueError, match="`class` must name a class that can be imported"):
        resolve("tests.nowhere.Thing", allow=["tests.nowhere.Thing"])


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "mapping with a 'class'"),
        ({"arguments": {}}, "mapping with a 'class'"),
        (
            {"class": "models.VAE", "arguments": {"no_such": 1}},
            "`class` must take the arguments given",
        ),
        ({"class": "models.VAE", "arguments": {}}, "`class` must take the arguments given"),
        ({"class": "models.VAE", "arguments": {"event_shape": []}}, "`event_shape` must be"),
    ],
)
def test_a_bad_description_is_one_clear_error(description, message) -> None:
    with pytest.raises(ValueError, match=message):
        build(description)


def test_what_is_not_plain_is_named() -> None:
    model = models.VAE((4,), network=models.VAENetwork(encoder=torch.nn.Linear(4, 64)))
    with pytest.raises(
        ValueError, match=r"`models.VAENetwork\(encoder=\)` must be plain data.*Linear"
    ):
        configuration(model)


def test_wrong_arguments_raise_the_constructors_own_error() -> None:
    with pytest.raises(TypeError, match="half"):
        Derived()
