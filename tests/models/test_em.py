"""Expectation-maximisation on tensors: against dense oracles, scikit-learn and its own laws."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_genmodels import data
from pyro_genmodels.models.em import (
    CategoricalFamily,
    CollapsedComponentError,
    GaussianFamily,
    GaussianPriors,
    MixtureWeights,
    run_em,
)
from pyro_genmodels.models.em.gaussian import low_rank
from tests.models import em_laws
from tests.models.em_laws import COVARIANCES, PRIORS, SHARED, gaussian_family, rows

SKLEARN = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


@pytest.mark.parametrize("priors", [None, PRIORS], ids=["likelihood", "priors"])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("missing", [0.0, 0.3], ids=["complete", "missing"])
@pytest.mark.parametrize("covariance", SHARED)
def test_a_step_is_the_dense_oracles(
    covariance: str, missing: float, weighted: bool, priors: GaussianPriors | None
) -> None:
    em_laws.check_step(covariance, missing=missing, weighted=weighted, priors=priors)


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "repeated"])
@pytest.mark.parametrize("covariance", SHARED)
def test_a_step_is_scikit_learns(covariance: str, weighted: bool) -> None:
    mixture = pytest.importorskip("sklearn.mixture")
    x = rows(num_rows=300)
    number = torch.arange(len(x)) % 3 + 1 if weighted else torch.ones(len(x), dtype=torch.long)
    repeated = x.repeat_interleave(number, 0).numpy()
    peer = mixture.GaussianMixture(3, covariance_type=SKLEARN[covariance], reg_covar=0)
    peer.fit(repeated)
    weights = number.double()
    family = GaussianFamily(x, 3, covariance, weights=weights)
    structure = MixtureWeights(
        3, weights=weights, read=lambda: torch.as_tensor(peer.weights_, dtype=torch.float64)
    )
    structure.read()
    family.set_moments(torch.as_tensor(peer.means_), torch.as_tensor(peer.covariances_))
    nats, shares = structure.expect(family.log_probs())
    close = {"rtol": 1e-9, "atol": 1e-9}
    assert nats == pytest.approx(peer.score_samples(repeated).sum(), rel=1e-9)
    wanted = torch.as_tensor(peer.predict_proba(x.numpy())) * weights[:, None]
    torch.testing.assert_close(shares, wanted, **close)
    assert family.num_parameters + structure.num_parameters == peer._n_parameters()
    result = run_em(family, structure, weights=weights, num_starts=1, max_iterations=1)
    assert result.num_rows == float(weights.sum())
    structure.read()
    family.set_moments(torch.as_tensor(peer.means_), torch.as_tensor(peer.covariances_))
    _, log_shares = peer._e_step(repeated)
    peer._m_step(repeated, log_shares)
    family.maximise(shares)
    means, covariances = family.moments()
    torch.testing.assert_close(means, torch.as_tensor(peer.means_), **close)
    torch.testing.assert_close(covariances, torch.as_tensor(peer.covariances_), **close)


@pytest.mark.parametrize("priors", [None, PRIORS], ids=["likelihood", "priors"])
@pytest.mark.parametrize("missing", [0.0, 0.2], ids=["complete", "missing"])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_objective_never_falls(
    covariance: str, missing: float, priors: GaussianPriors | None
) -> None:
    x = rows(missing=missing)
    weights = 0.5 + torch.rand(len(x), generator=torch.Generator().manual_seed(0)).double()
    family = gaussian_family(covariance, x, weights=weights, priors=priors)
    structure = MixtureWeights(3, weights=weights, concentration=1.0 if priors is None else 2.0)
    em_laws.check_never_falls(family, structure)


def test_the_objective_has_all_priors() -> None:
    em_laws.check_objective()


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("missing", [0.0, 0.2], ids=["complete", "missing"])
def test_other_units_give_the_scaled_fit(covariance: str, missing: float) -> None:
    x = rows(missing=missing)
    fits = []
    for scale in (1.0, 1000.0):
        family = gaussian_family(covariance, scale * x, priors=PRIORS)
        result = run_em(family, MixtureWeights(3), num_starts=2)
        means, covariances = family.moments()
        full = em_laws.dense(covariances, covariance, *means.shape)
        nats = result.log_likelihood + int((~x.isnan()).sum()) * math.log(scale)
        fits.append((nats, means / scale, full / scale**2))
    assert fits[0][0] == pytest.approx(fits[1][0], rel=1e-9)
    torch.testing.assert_close(fits[0][1:], fits[1][1:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance", SHARED)
def test_data_far_from_zero_fit(covariance: str) -> None:
    x = rows()
    far = 1e6 + 0.01 * (x - x.mean(0)) / x.std(0)
    fits = []
    for values in (far - 1e6, far):
        family = gaussian_family(covariance, values)
        result = run_em(family, MixtureWeights(3), num_starts=2)
        covariances = em_laws.dense(family.moments()[1], covariance, 3, 3)
        fits.append((result.log_likelihood, covariances))
    assert fits[0][0] == pytest.approx(fits[1][0], rel=1e-6)
    torch.testing.assert_close(fits[0][1], fits[1][1], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("covariance", SHARED)
def test_clusters_far_apart_keep_their_digits(covariance: str) -> None:
    em_laws.check_far_clusters(covariance)


@pytest.mark.parametrize("missing", [0.0, 0.2], ids=["complete", "missing"])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_integer_weights_are_repeated_rows(covariance: str, missing: float) -> None:
    em_laws.check_repeated_rows(covariance, missing)


def test_low_rank_is_factor_analysis() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    generator = torch.Generator().manual_seed(0)
    factors, loading, noise = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((500, 2), (2, 6), (500, 6))
    )
    x = factors @ loading + 0.7 * noise
    peer = decomposition.FactorAnalysis(2, tol=1e-8, max_iter=10_000, svd_method="lapack")
    peer.fit(x.numpy())
    family = GaussianFamily(x, 1, "low_rank", rank=2)
    result = run_em(family, MixtureWeights(1), num_starts=1, tol=1e-9)
    assert result.log_likelihood / len(x) == pytest.approx(peer.score(x.numpy()), abs=1e-5)


@pytest.mark.parametrize("prior", [(0.0, 0.0), (5.0, 0.3), (1.0, 1e-4)])
def test_noise_of_low_rank_is_at_its_maximum(prior: tuple[float, float]) -> None:
    em_laws.check_noise_is_a_maximum(prior)


def test_low_rank_reaches_its_maximum_soon() -> None:
    """Where a noise ends at zero, EM of the factors took more than a thousand iterations."""
    x = rows(num_rows=150)
    result = run_em(gaussian_family("low_rank", x, number=1), MixtureWeights(1), num_starts=1)
    assert result.converged
    assert result.num_iterations < 30
    full = run_em(GaussianFamily(x, 1), MixtureWeights(1), num_starts=1)
    assert result.log_likelihood < full.log_likelihood


def test_many_dimensions_of_low_rank_reach_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    x = x.double() + torch.randn(300, 8, generator=generator, dtype=torch.float64)
    reached = []
    for narrow in (256, 0):
        monkeypatch.setattr(low_rank, "_NARROW", narrow)
        family = GaussianFamily(x, 1, "low_rank", rank=2, priors=PRIORS)
        reached.append(run_em(family, MixtureWeights(1), num_starts=1, tol=1e-10).objective)
        em_laws.check_never_falls(family, MixtureWeights(1))
    assert reached[0] == pytest.approx(reached[1], abs=1e-4)


def test_low_rank_scores_are_dense() -> None:
    for missing in (0.0, 0.3):
        x = rows(missing=missing, num_rows=50)
        family = gaussian_family("low_rank", x)
        family.start(torch.Generator().manual_seed(0))
        means, covariances = family.moments()
        full = em_laws.dense(covariances, "low_rank", *means.shape)
        wanted = em_laws.oracle_log_probs(x, means, full)
        torch.testing.assert_close(family.log_probs(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance", [name for name in COVARIANCES if name != "spherical"])
def test_constant_columns_are_named(covariance: str) -> None:
    x = rows()
    x[:, 1] = 5.0
    with pytest.raises(ValueError, match=r"`x` must vary in every column.*constant column 1"):
        gaussian_family(covariance, x)
    x[:, 1] = torch.nan
    with pytest.raises(ValueError, match="observed value in every column; got column 1"):
        gaussian_family(covariance, x)


@pytest.mark.parametrize("covariance", [name for name in COVARIANCES if name != "spherical"])
def test_columns_that_vary_by_rounding_are_named(covariance: str) -> None:
    x = rows()
    x[:, 1] = 1e6 / 3
    x[::2, 1] *= 1 + 1e-15
    for missing in (False, True):
        x[3, 0] = torch.nan if missing else 1.0
        with pytest.raises(ValueError, match=r"`x` must vary in every column.*constant column 1"):
            gaussian_family(covariance, x, priors=GaussianPriors())


def test_a_spherical_covariance_allows_a_constant_column() -> None:
    x = rows()
    x[:, 1] = 5.0
    result = run_em(gaussian_family("spherical", x), MixtureWeights(3), num_starts=1)
    assert math.isfinite(result.log_likelihood)


@pytest.mark.parametrize("missing", [0.0, 0.1], ids=["complete", "missing"])
@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
def test_a_collapse_is_named_or_held(covariance: str, missing: float) -> None:
    x = rows(missing=missing)
    repeated = torch.full((20, 3), 500.0).double()
    x = torch.cat([x, repeated])
    family = gaussian_family(covariance, x)
    if covariance != "low_rank":
        with pytest.raises(CollapsedComponentError, match=r"component \d is singular in column \d"):
            run_em(family, MixtureWeights(3))
    held = gaussian_family(covariance, x, priors=GaussianPriors())
    result = run_em(held, MixtureWeights(3))
    assert result.converged
    assert math.isfinite(result.objective)


def test_eight_gaussians_from_any_seed() -> None:
    """The gap is that of the exact maximum of the likelihood, p / (2 N) on average."""
    torch.manual_seed(0)
    source = data.EightGaussians()
    x = source.sample((10_000,)).double()
    reached = []
    for seed in range(20):
        family, structure = GaussianFamily(x, 8), MixtureWeights(8)
        reached.append(run_em(family, structure, seed=seed).log_likelihood / len(x))
    assert max(reached) - min(reached) < 1e-4
    held_out = source.sample((100_000,)).double()
    scored = GaussianFamily(held_out, 8)
    scored.set_moments(*family.moments())
    joint = scored.log_probs() + structure.probabilities.log()
    assert float((source.log_prob(held_out) - joint.logsumexp(1)).mean()) < 0.0045


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_saddle_is_not_convergence(covariance: str) -> None:
    """Components that are all alike stay so for ever, unless they are parted."""
    torch.manual_seed(0)
    x = data.EightGaussians().sample((1000,)).double()
    family = gaussian_family(covariance, x, number=4)
    alone = gaussian_family(covariance, x, number=1)
    one = run_em(alone, MixtureWeights(1), num_starts=1, tol=1e-9)
    family._read = family.moments
    structure = MixtureWeights(4)
    structure._read = lambda: structure.probabilities
    if covariance == "low_rank":
        loading, noise = alone.moments()[1]
        covariances = loading.expand(4, -1, -1), noise.expand(4, -1)
        family.set_moments(alone.moments()[0].expand(4, -1), covariances)
    result = run_em(family, structure, num_starts=0)
    assert result.converged
    assert result.log_likelihood > one.log_likelihood + 0.2 * len(x)
    changes = torch.tensor(result.history).diff()
    assert float(changes.min()) > -1e-6


def test_an_empty_component_gets_the_rows_explained_worst() -> None:
    x = rows(num_rows=300)
    family = GaussianFamily(x, 3, "diagonal", priors=GaussianPriors())
    means, covariances = family.moments()
    means = means + torch.tensor([0.0, 1.0, 1e5])[:, None]
    family._read = lambda: (means, covariances)
    structure = MixtureWeights(3, read=lambda: torch.full((3,), 1 / 3))
    result = run_em(family, structure, num_starts=0)
    assert result.converged
    assert float(structure.probabilities.min()) > 0.01


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_fewer_rows_than_components_are_named(covariance: str) -> None:
    x = rows(num_rows=5)
    family = gaussian_family(covariance, x, priors=GaussianPriors(), number=12)
    table = CategoricalFamily(torch.arange(5)[:, None] % 2, 2, 12, concentration=1.5)
    for each in (family, table):
        with pytest.raises(ValueError, match="`num_components` must be at most"):
            run_em(each, MixtureWeights(12))


@pytest.mark.parametrize("max_iterations", [9, 10, 11, 12, 13])
def test_a_saddle_out_of_iterations_is_not_convergence(max_iterations: int) -> None:
    x = rows(num_rows=300)
    family, structure = GaussianFamily(x, 3, "diagonal"), MixtureWeights(3)
    family._read, structure._read = family.moments, lambda: structure.probabilities
    result = run_em(family, structure, num_starts=0, max_iterations=max_iterations)
    assert result.num_iterations <= max_iterations
    assert not result.converged
    longer = run_em(family, structure, num_starts=0)
    assert longer.converged
    assert longer.objective > result.objective


def test_starts_leave_the_global_generator_alone() -> None:
    x = rows()
    before = torch.get_rng_state()
    first, again = (run_em(GaussianFamily(x, 3), MixtureWeights(3), seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert run_em(GaussianFamily(x, 3), MixtureWeights(3), seed=4).history != first.history


def test_a_result_describes_the_fit() -> None:
    x = rows()
    written: list[object] = []
    family = GaussianFamily(x, 2, write=lambda *moments: written.append(moments))
    result = run_em(family, MixtureWeights(2), num_starts=3)
    assert len(result.starts) == 3
    assert max(start.objective for start in result.starts) == pytest.approx(result.objective)
    assert result.history[-1] == result.objective == result.log_likelihood
    assert result.num_parameters == 1 + 2 * 3 + 2 * 6
    assert result.bic == -2 * result.log_likelihood + 19 * math.log(200)
    assert result.aic == -2 * result.log_likelihood + 38
    torch.testing.assert_close(written, [family.moments()])
    assert "converged, best of 3 starts; 19 parameters, BIC" in repr(result)


def test_known_labels_name_the_components() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(4, (400,), generator=generator)
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    x = centres[truth] + torch.randn(400, 2, generator=generator)
    labels = truth.where(torch.arange(400) < 20, -1)
    structure = MixtureWeights(4, labels=labels)
    family = GaussianFamily(x, 4)
    run_em(family, structure, num_starts=1)
    _, shares = structure.expect(family.log_probs())
    assert torch.equal(shares.argmax(1), truth)
    assert torch.equal(shares[:20], torch.eye(4).double()[truth[:20]])
    with pytest.raises(ValueError, match="`labels` must be from -1"):
        MixtureWeights(3, labels=labels)


@pytest.mark.parametrize("concentration", [1.0, 2.5])
@pytest.mark.parametrize("missing", [0.0, 0.3], ids=["complete", "missing"])
def test_categorical_components(missing: float, concentration: float) -> None:
    family = em_laws.categorical(missing, concentration=concentration)
    family.start(torch.Generator().manual_seed(0))
    shares = torch.rand(60, 3, generator=torch.Generator().manual_seed(1)).double()
    family.maximise(shares)
    levels = family._levels.mT
    wanted = torch.zeros(3, 5, 4).double() + concentration - 1
    for row, share in zip(levels, shares, strict=True):
        for d, level in enumerate(row.tolist()):
            if level < 4:
                wanted[:, d, level] += share
    wanted = wanted / wanted.sum(-1, keepdim=True)
    torch.testing.assert_close(family.probabilities, wanted)
    scores = [
        sum(wanted[:, d, level].log() for d, level in enumerate(row.tolist()) if level < 4)
        for row in levels
    ]
    torch.testing.assert_close(family.log_probs(), torch.stack(scores))
    structure = MixtureWeights(3, concentration=concentration)
    em_laws.check_never_falls(family, structure)
    assert run_em(family, structure).converged
    assert family.num_parameters == 3 * 5 * 3


def test_categorical_weights_are_repeated_rows() -> None:
    x = torch.randint(3, (50, 4), generator=torch.Generator().manual_seed(0))
    number = torch.arange(50) % 3
    results = []
    for rows_, given in ((x, number.double()), (x.repeat_interleave(number, 0), None)):
        family = CategoricalFamily(rows_, 3, 2, weights=given, concentration=2.0)
        structure = MixtureWeights(2, weights=given)
        result = run_em(family, structure, weights=given, num_starts=2)
        results.append((result.log_likelihood, result.num_rows, family.probabilities))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


def test_arguments_are_checked() -> None:
    x = rows()
    with pytest.raises(ValueError, match="`rank` must be given for low-rank"):
        GaussianFamily(x, 2, "low_rank")
    with pytest.raises(ValueError, match="`rank` must be from 1 to the 3 dimensions; got 4"):
        GaussianFamily(x, 2, "low_rank", rank=4)
    with pytest.raises(ValueError, match="`weights` must not be negative"):
        GaussianFamily(x, 2, weights=-torch.ones(len(x)))
    with pytest.raises(ValueError, match="`x` must hold integers from 0 to 2"):
        CategoricalFamily(torch.tensor([[3]]), 3, 1)
    with pytest.raises(ValueError, match="`concentration` must be at least 1"):
        MixtureWeights(3, concentration=0.5)
    with pytest.raises(ValueError, match="`scale` must be positive"):
        GaussianPriors(0.0)
    with pytest.raises(ValueError, match="`num_starts` must not be negative"):
        run_em(GaussianFamily(x, 2), MixtureWeights(2), num_starts=-1)
