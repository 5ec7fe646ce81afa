"""Scores of representations whose scores are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_genmodels import disentanglement as scores


class Grid:
    """Data that are their factors."""

    factor_sizes = (4, 5, 3)

    def sample_factors(self, count: int) -> Tensor:
        return torch.stack([torch.randint(n, (count,)) for n in self.factor_sizes], 1)

    def render(self, factors: Tensor) -> Tensor:
        return factors.float()


def aligned(factors: Tensor) -> Tensor:
    """Permuted, scaled, bent, and a unit that does nothing."""
    z = factors.float()
    return torch.stack([3 * z[:, 2], -z[:, 0], 0.1 * z[:, 1], 0 * z[:, 0]], 1)


def rotated(factors: Tensor) -> Tensor:
    """All there, but each factor in two units alike: a reflection at the plane of equal means."""
    z = (factors - factors.float().mean(0)) / factors.float().std(0)
    return z @ (torch.eye(3) - 2 / 3)


def noise(factors: Tensor) -> Tensor:
    return torch.randn(len(factors), 4)


@pytest.fixture
def factors() -> Tensor:
    torch.manual_seed(0)
    return Grid().sample_factors(3000)


def test_mutual_information_is_exact_on_a_grid() -> None:
    factors = torch.cartesian_prod(torch.arange(4), torch.arange(5))
    codes = torch.stack([factors[:, 0] // 2, factors[:, 1]], 1).float()
    expected = torch.tensor([[math.log(2), 0.0], [0.0, math.log(5)]])
    torch.testing.assert_close(scores.mutual_information(codes, factors), expected)


def test_mig(factors: Tensor) -> None:
    assert scores.mig(aligned(factors), factors) > 0.99
    assert scores.mig(rotated(factors), factors) < 0.15
    assert scores.mig(noise(factors), factors) < 0.05
    twice = aligned(factors).repeat(1, 2)  # every factor in two units: no gap
    assert scores.mig(twice, factors) < 1e-6


def test_sap(factors: Tensor) -> None:
    assert scores.sap(aligned(factors), factors) > 0.99
    assert scores.sap(rotated(factors), factors) < 0.2
    assert scores.sap(noise(factors), factors) < 0.05


def test_sap_of_a_category(factors: Tensor) -> None:
    """Two values, which a line can part: accuracy one, and chance for the others."""
    pytest.importorskip("sklearn")
    binary = factors[:, :2].clamp(max=1)
    assert scores.sap(binary.float(), binary, categorical=(0, 1)) > 0.95
    assert scores.sap(noise(factors), binary, categorical=(0, 1)) < 0.1


def test_dci(factors: Tensor) -> None:
    pytest.importorskip("sklearn")
    best = scores.dci(aligned(factors), factors, num_trees=10)
    assert min(best.disentanglement, best.completeness, best.informativeness) > 0.97
    turned = scores.dci(rotated(factors), factors, num_trees=10)
    assert max(turned.disentanglement, turned.completeness) < 0.5
    assert turned.informativeness > 0.8
    worst = scores.dci(noise(factors), factors, num_trees=10)
    assert max(worst.disentanglement, worst.completeness) < 0.1
    assert worst.informativeness < 0.4


def test_dci_tells_its_two_halves_apart(factors: Tensor) -> None:
    """Two units for a factor: still disentangled, no longer complete."""
    pytest.importorskip("sklearn")
    twice = torch.cat([aligned(factors)[:, :3]] * 2, 1)
    score = scores.dci(twice, factors, num_trees=30)
    assert score.disentanglement > 0.95
    assert score.completeness < 0.75


def test_factor_vae_score() -> None:
    torch.manual_seed(0)
    options = {"num_votes": 150, "batch_size": 32}
    assert scores.factor_vae_score(aligned, Grid(), **options) == 1.0
    assert scores.factor_vae_score(noise, Grid(), **options) < 0.55
    assert scores.factor_vae_score(lambda x: torch.zeros(len(x), 3), Grid(), **options) == 0.0


def test_beta_vae_score() -> None:
    pytest.importorskip("sklearn")
    torch.manual_seed(0)
    options = {"num_points": 150, "batch_size": 32}
    assert scores.beta_vae_score(aligned, Grid(), **options) == 1.0
    assert scores.beta_vae_score(noise, Grid(), **options) < 0.55


def test_active_units(factors: Tensor) -> None:
    assert scores.active_units(aligned(factors)).tolist() == [True, True, True, False]
    assert scores.active_units(aligned(factors), threshold=0.5).tolist()[2] is False


def test_mistakes_are_named(factors: Tensor) -> None:
    with pytest.raises(ValueError, match="`factors` must be those of 7 codes; got 3000"):
        scores.mig(torch.zeros(7, 2), factors)
    with pytest.raises(ValueError, match="`codes` must have two units or more; got 1"):
        scores.mig(torch.zeros(3000, 1), factors)
    with pytest.raises(ValueError, match=r"`factors` must vary in every column; got .*\[1\]"):
        scores.mig(factors.double(), factors * torch.tensor([1, 0] + [1] * (factors.shape[1] - 2)))
    with pytest.raises(ValueError, match="`num_bins` must be positive; got 0"):
        scores.mig(factors.double(), factors, num_bins=0)
    with pytest.raises(ValueError, match="`codes` must be finite"):
        scores.sap(factors / torch.tensor(0.0), factors)
    with pytest.raises(ValueError, match="`num_trees` must be positive; got 0"):
        scores.dci(factors.double(), factors, num_trees=0)
    with pytest.raises(ValueError, match="`codes` must be of five data points or more; got 4"):
        scores.dci(factors[:4].double(), factors[:4])
    with pytest.raises(ValueError, match="`means` must be of two data points or more"):
        scores.active_units(torch.zeros(1, 2))
