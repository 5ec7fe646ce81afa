"""Mutants of samplers: what a cache forgets, and draws of another law than is scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, testing
from tests import cases
from tests.cases import vivid
from tests.mutants.mutation import Mutation, assert_caught
from tests.mutants.parts import (
    code_hierarchy_net,
    gated_net,
    pixelrnn_net,
    plus_plus,
    small_pixelcnn,
)

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("double")]


def test_gated_sampler_that_forgets_the_row_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.gated_pixelcnn.layer_cache import VerticalCache

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(VerticalCache, "make_room", lambda self: self.newest.zero_())

    law = distributions.GatedPixelCNN(gated_net())
    assert_caught(
        lambda: testing.check_sampling_methods_agree(law, sample_shape=(100,)),
        mutate,
        monkeypatch,
        "draws as 'cached' does",
    )


def sampler_forgets(owner: str, method: str) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(f"pyro_genmodels.nets.{owner}.{method}", lambda *_: None)

    return mutate


SAMPLER_MUTANTS = {
    "no right way": ("diagonal", sampler_forgets("pixelrnn.incremental.RightWay", "start_row")),
    "nothing above": (
        "diagonal",
        sampler_forgets("pixelrnn.layer_cache.DiagonalLayerEvaluation", "read_above"),
    ),
    "no row above": (
        "row",
        sampler_forgets("pixelrnn.layer_cache.RowLayerEvaluation", "read_above"),
    ),
}


@pytest.mark.parametrize("mutant", SAMPLER_MUTANTS)
def test_pixelrnn_sampler(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, mutation = SAMPLER_MUTANTS[mutant]
    law = distributions.PixelRNN(pixelrnn_net(1, 3, 4, layer=layer))
    assert_caught(
        lambda: testing.check_sampling_methods_agree(law, sample_shape=(100,)),
        mutation,
        monkeypatch,
        "draws as 'cached' does",
    )


def test_sampler_that_forgets_a_row_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.pixelcnn_pp.layer_cache import RowConv

    original = RowConv.feed

    def forgetful(self: Any, row: Tensor) -> None:
        original(self, row)
        self._rows[0].zero_()

    law = distributions.PixelCNNPlusPlus(plus_plus(1, 6, 4, num_levels=17))
    assert_caught(
        lambda: testing.check_sampling_methods_agree(law, sample_shape=(20,)),
        lambda patch: patch.setattr(RowConv, "feed", forgetful),
        monkeypatch,
        "draws as 'cached' does",
    )


def unrounded(patch: pytest.MonkeyPatch) -> None:
    """Condition on a value between levels, as two published samplers do."""
    from pyro_genmodels.nets.pixelcnn.pixelcnn import PixelCNNEvaluation

    original = PixelCNNEvaluation.append

    def append(self: Any, level: Tensor) -> None:
        original(self, 0.5 * level + 0.5)

    patch.setattr(PixelCNNEvaluation, "append", append)


def test_unrounded_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    pixelcnn = small_pixelcnn()

    def law() -> None:
        testing.check_sampler(pixelcnn, num_samples=20_000)

    assert_caught(law, unrounded, monkeypatch, "total variation|chi-square")


def test_cached_sampler_that_forgets_the_row_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.pixelcnn.pixelcnn import RowCache

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = RowCache.start_row

        def start_row(self: Any, extra: Tensor | None = None) -> None:
            self._row.zero_()
            original(self, extra)

        patch.setattr(RowCache, "start_row", start_row)

    pixelcnn = small_pixelcnn()

    def law() -> None:
        testing.check_sampling_methods_agree(pixelcnn, sample_shape=(100,))

    assert_caught(law, mutate, monkeypatch, "draws as 'cached' does")


def test_a_sampler_that_forgets_the_maps_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.code_priors.code_hierarchy import HierarchyEvaluation

    law = distributions.HierarchicalVQPrior(code_hierarchy_net())
    original = HierarchyEvaluation._start_map

    def forgetful(self: Any) -> None:
        self._above = [torch.zeros_like(codes) for codes in self._above]
        original(self)

    assert_caught(
        lambda: testing.check_sampling_methods_agree(law, sample_shape=(50,)),
        lambda patch: patch.setattr(HierarchyEvaluation, "_start_map", forgetful),
        monkeypatch,
        "draws as 'cached' does",
    )


def test_codes_drawn_from_another_prior_than_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior that is drawn from at a temperature and scored at none."""
    torch.manual_seed(0)
    law = distributions.VQPrior(
        vivid(testing.randomize_parameters(cases.snail_net(2, 2, embedding_size=2)))  # type: ignore[arg-type]
    )
    original = distributions.VQPrior.sample

    def colder(self: Any, *arguments: Any, **options: Any) -> Tensor:
        return original(self, *arguments, **{**options, "temperature": 0.5})

    assert_caught(
        lambda: testing.check_sampler(law),
        lambda patch: patch.setattr(distributions.VQPrior, "sample", colder),
        monkeypatch,
        "",
    )
