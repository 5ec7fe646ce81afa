"""Mutants of the masks of couplings and of the halves that are factored out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import testing, transforms
from tests.mutants.mutation import Mutation, assert_caught, is_bijection, method_of
from tests.mutants.parts import factor_out, image_coupling, points

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def mask_mutant(method: str, change: Callable[..., Any]) -> Mutation:
    """Replace a method of the checkerboard by ``change(original, self, ...)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = getattr(transforms.Checkerboard, method)
        patch.setattr(
            transforms.Checkerboard, method, lambda *arguments: change(original, *arguments)
        )

    return mutate


def swapped_rows(original: Any, self: Any, x: Tensor, changed: Tensor) -> Tensor:
    return original(self, x, changed.roll(1, -1))  # type: ignore[no-any-return]


MASK_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "shows what changes": (mask_mutant("seen", lambda _, self, x: x), "inverse|forward"),
    "puts pixels in others' places": (mask_mutant("merge", swapped_rows), "inverse|forward"),
    "overwrites what passes": (
        mask_mutant("merge", lambda original, self, x, c: original(self, 0 * x, c)),
        "inverse|forward",
    ),
}


@pytest.mark.parametrize("mutant", MASK_MUTANTS)
def test_mask(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = testing.randomize_parameters(image_coupling()).eval()
    x = points(layer, 3, 2, 3, 4)
    mutation, message = MASK_MUTANTS[mutant]
    assert_caught(lambda: is_bijection(layer, x), mutation, monkeypatch, message)


def test_answers_of_the_wrong_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Still a bijection, but no coupling of this mask: the values tell."""
    layer = testing.randomize_parameters(image_coupling()).eval()
    x = points(layer, 1, 2, 3, 4)[0]

    def law() -> None:
        h, shift = layer.net(layer.mask.seen(x)).chunk(2)
        scale = torch.exp(torch.as_tensor(layer.rescale) * torch.tanh(h))
        expected = torch.where(layer.mask(x.shape), x, x * scale + shift)
        assert torch.allclose(layer.inv(x), expected), "the map is its equation"

    mutation = mask_mutant("answers", lambda original, self, output: self.changed(output.flip(-1)))
    assert_caught(law, mutation, monkeypatch, "its equation")


HALVES = {
    "the one that goes on is factored out too": lambda kept, out: (kept, kept),
    "the one that is factored out goes on too": lambda kept, out: (out, out),
    "swapped": lambda kept, out: (out, kept),
}


@pytest.mark.parametrize("mutant", HALVES)
def test_factored_out_half(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = testing.randomize_parameters(factor_out()).eval()
    x = points(layer, 3, 2, 3, 4)
    mutation = method_of(transforms.ChannelMask, "divide", lambda r, *_: HALVES[mutant](*r))
    assert_caught(lambda: is_bijection(layer, x), mutation, monkeypatch, "inverse|slogdet")


def test_prior_of_the_wrong_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior changes the half that goes on: a bijection, but no factored-out half."""
    torch.manual_seed(0)
    layer, x = testing.randomize_parameters(factor_out()).eval(), points(None, 3, 2, 3, 4)

    def law() -> None:
        y = x.clone()
        y[:, 1:] += 1
        before, after = layer.inv(x)[:, :1], layer.inv(y)[:, :1]
        assert torch.equal(before, after), "what goes on does not see what was factored out"

    def mutate(patch: pytest.MonkeyPatch) -> None:
        assert layer.prior is not None
        patch.setattr(layer.prior, "mask", transforms.ChannelMask(inverted=True))

    assert_caught(law, mutate, monkeypatch, "factored out")
