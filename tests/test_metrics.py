"""Units, estimates and bounds on models whose evidence is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyro_genmodels import metrics, models
from pyro_genmodels.metrics import (
    Estimate,
    bits_per_dim,
    elbo,
    importance_weighted_bound,
    paired_gap,
)


class Conjugate(nn.Module):
    """z ~ N(0, 1), x | z ~ N(z, 1), guide N(x / 2 + offset, 1/2): the evidence is N(0, 2)."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset, self.largest, self.was_training = offset, 0, False

    def log_weights(self, x: Tensor, context: Tensor | None, *, num_particles: int) -> Tensor:
        self.largest = max(self.largest, num_particles * len(x))
        self.was_training |= self.training
        assert not torch.is_grad_enabled()
        normal = torch.distributions.Normal
        guide = normal(x[:, 0] / 2 + self.offset, math.sqrt(0.5))
        z = guide.sample((num_particles,))
        likelihood = normal(z, 1.0).log_prob(x[:, 0] if context is None else x[:, 0] - context)
        return normal(0.0, 1.0).log_prob(z) + likelihood - guide.log_prob(z)

    def evidence(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, math.sqrt(2)).log_prob(x[:, 0]).double()


def test_bits_per_dim_of_a_fair_coin_per_pixel_is_one() -> None:
    assert bits_per_dim(192 * math.log(2), (3, 8, 8)) == pytest.approx(1)
    assert torch.equal(bits_per_dim(torch.tensor([2.0]) * math.log(2), (2,)), torch.ones(1))


def test_bits_per_dim_refuses_an_impossible_shape() -> None:
    with pytest.raises(ValueError, match="event_shape"):
        bits_per_dim(1.0, (0,))


def test_estimate_is_mean_and_standard_error() -> None:
    values = torch.randn(400, dtype=torch.float64)
    estimate = Estimate.of(values)
    assert estimate.mean == pytest.approx(values.mean().item())
    assert estimate.standard_error == pytest.approx(values.std().item() / 20)
    assert estimate.n == 400
    halved = estimate.bits_per_dim((2,))
    assert halved.standard_error == pytest.approx(estimate.standard_error / math.log(4))


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(1.80423, 0.0112, 360), "1.804 ± 0.011 (n=360)"),
        (Estimate(1234.5, 23.4, 10), "1234 ± 23 (n=10)"),
        (Estimate(2.0, 0.0, 5), "2.0000 ± 0.0000 (n=5)"),
        (Estimate(2.0, math.nan, 1), "2.0000 ± nan (n=1)"),
    ],
)
def test_estimate_reads_well(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text


def test_estimate_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        Estimate.of(torch.empty(0))


def test_estimate_of_float32_is_summed_in_float64() -> None:
    values = torch.full((100_000,), 1e4) + 0.25
    assert Estimate.of(values).mean == pytest.approx(10000.25, abs=1e-9)


def test_the_paired_gap_pairs() -> None:
    truth = 10 * torch.randn(1000)
    gap = paired_gap(truth, truth - 0.5)
    assert gap.mean == pytest.approx(0.5, abs=1e-5)
    assert gap.standard_error < 1e-6
    with pytest.raises(ValueError, match="`log_p_model` must have shape"):
        paired_gap(truth, truth[:1])


def test_bounds_are_exact_under_the_exact_posterior() -> None:
    model, x = Conjugate(), torch.randn(7, 1)
    for bound in (elbo, importance_weighted_bound):
        torch.testing.assert_close(
            bound(model, x, num_particles=5), model.evidence(x), atol=1e-5, rtol=1e-5
        )


def test_bounds_are_ordered_and_approach_the_evidence() -> None:
    model, x = Conjugate(offset=0.5), torch.randn(50, 1)
    truth = model.evidence(x).mean()
    loose = elbo(model, x, num_particles=2000).mean()
    tighter = importance_weighted_bound(model, x, num_particles=5).mean()
    tight = importance_weighted_bound(model, x, num_particles=20_000).mean()
    # KL(q || posterior) of two Gaussians a half apart with variance one half.
    assert loose == pytest.approx((truth - 0.25).item(), abs=0.02)
    assert loose < tighter < tight + 0.02
    assert tight == pytest.approx(truth.item(), abs=0.01)


@pytest.mark.parametrize("num_particles", [1, 3, 7, 20])
@pytest.mark.parametrize("chunk_size", [1, 2, 6, 1000])
def test_chunks_bound_the_memory_and_change_nothing(num_particles: int, chunk_size: int) -> None:
    model, x = Conjugate(), torch.randn(11, 1)
    for bound in (elbo, importance_weighted_bound):
        values = bound(model, x, num_particles=num_particles, chunk_size=chunk_size)
        torch.testing.assert_close(values, model.evidence(x), atol=1e-5, rtol=1e-5)
    assert model.largest <= chunk_size


def test_context_is_split_with_the_data() -> None:
    x, shift = torch.randn(5, 1), torch.arange(5.0)
    model = Conjugate()
    torch.manual_seed(0)
    whole = elbo(model, x, shift, num_particles=1, chunk_size=5)
    torch.manual_seed(0)
    parts = elbo(model, x, shift, num_particles=1, chunk_size=1)
    torch.testing.assert_close(whole, parts)


def test_bounds_run_in_eval_mode_and_leave_each_part_as_it_was() -> None:
    model = Conjugate()
    model.frozen = nn.Dropout().eval()
    importance_weighted_bound(model, torch.randn(2, 1), num_particles=2)
    assert not model.was_training
    assert model.training
    assert not model.frozen.training


@pytest.mark.parametrize("argument", ["num_particles", "chunk_size"])
def test_counts_must_be_positive(argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        elbo(Conjugate(), torch.zeros(1, 1), **{argument: 0})


def test_no_data_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        elbo(Conjugate(), torch.zeros(0, 1))


@pytest.mark.parametrize("chunk_size", [3, 7, 1000])
def test_both_bounds_come_from_the_same_weights(chunk_size: int) -> None:
    model, x = models.VAE((4,), latent_dim=2), torch.randn(2, 3, 4)
    options = {"num_particles": 5, "chunk_size": chunk_size}
    found = []
    for bound in (metrics.evidence_bounds, metrics.elbo, metrics.importance_weighted_bound):
        torch.manual_seed(0)
        found.append(bound(model, x, **options))
    both, elbo, importance_weighted = found
    assert torch.equal(both.elbo, elbo)
    assert torch.equal(both.importance_weighted, importance_weighted)
    assert both.elbo.shape == (2, 3)
    assert both.elbo.dtype == torch.float64
    assert bool((both.elbo < both.importance_weighted).all())
    one = metrics.evidence_bounds(model, x, num_particles=1)
    assert torch.equal(one.elbo, one.importance_weighted)
