"""Laws of expectation-maximisation, row by row and element by element, for tests and mutants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_genmodels.models.em import (
    CategoricalFamily,
    ComponentFamily,
    GaussianFamily,
    GaussianPriors,
    MixtureWeights,
    run_em,
)
from pyro_genmodels.models.em.gaussian import low_rank

SHARED = ("full", "tied", "diagonal", "spherical")
COVARIANCES = (*SHARED, "low_rank")
PRIORS = GaussianPriors(0.3, strength=3.0, mean_strength=2.0)


def rows(
    *, seed: int = 0, num_rows: int = 200, size: int = 3, number: int = 3, missing: float = 0.0
) -> Tensor:
    """Overlapping clusters of correlated dimensions in different units, far from zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(number, (num_rows,), generator=generator)
    x = 2 * normal(number, size)[labels] + normal(num_rows, size) @ normal(size, size)
    x = x * torch.logspace(0, 1, size, dtype=torch.float64) + 20
    gone = torch.rand(x.shape, generator=generator) < missing
    return x.masked_fill(gone, torch.nan)


def dense(covariances: Any, covariance: str, number: int, size: int) -> Tensor:
    """Covariance matrices ``(K, D, D)``."""
    if covariance == "low_rank":
        loading, noise = covariances
        return loading @ loading.mT + noise.diag_embed()
    if covariance == "tied":
        return covariances.expand(number, size, size)
    if covariance == "diagonal":
        return covariances.diag_embed()
    if covariance == "spherical":
        return covariances[:, None].expand(number, size).diag_embed()
    return covariances


def oracle_log_probs(x: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Log-densities of what was observed, row by row."""
    found = x.new_zeros(len(x), len(means))
    for n, row in enumerate(x):
        seen = (~row.isnan()).nonzero()[:, 0]
        for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
            if len(seen):
                part = covariance[seen][:, seen]
                found[n, k] = MultivariateNormal(mean[seen], part).log_prob(row[seen])
    return found


def oracle_moments(
    x: Tensor, means: Tensor, covariances: Tensor, shares: Tensor
) -> tuple[Tensor, Tensor]:
    """Means and squared offsets of the rows that the components complete, row by row."""
    new_means, scatters = torch.zeros_like(means), torch.zeros_like(covariances)
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        completed, rest = x.clone(), torch.zeros_like(covariance)
        for n, row in enumerate(x):
            gone, seen = row.isnan().nonzero()[:, 0], (~row.isnan()).nonzero()[:, 0]
            gain = covariance[gone][:, seen] @ covariance[seen][:, seen].inverse()
            completed[n, gone] = mean[gone] + gain @ (row[seen] - mean[seen])
            left = covariance[gone][:, gone] - gain @ covariance[seen][:, gone]
            rest[gone[:, None], gone] += shares[n, k] * left
        new_means[k] = shares[:, k] @ completed / shares[:, k].sum()
        offset = completed - new_means[k]
        scatters[k] = (shares[:, k] * offset.mT) @ offset + rest
    return new_means, scatters


def oracle_step(
    x: Tensor,
    moments: tuple[Tensor, Any],
    covariance: str,
    shares: Tensor,
    unit: Tensor,
    center: Tensor,
    priors: GaussianPriors | None,
) -> tuple[Tensor, Tensor]:
    """The maximum of the expected log-likelihood and prior in the data's units, dense."""
    number, size = moments[0].shape
    full = dense(moments[1], covariance, number, size)
    means, scatters = oracle_moments(x, moments[0], full, shares)
    counts = shares.sum(0)
    strength, variance, pull = 0.0, 0.0, 0.0
    if priors is not None:
        strength, variance, pull = priors.strength, priors.scale**2, priors.mean_strength
    offset = means - center
    share = (counts * pull / (counts + pull))[:, None, None]
    scatters = scatters + share * offset.unsqueeze(2) * offset.unsqueeze(1)
    new_means = center + offset * (counts / (counts + pull))[:, None]
    prior = strength * variance * unit.square().diag()
    weights = counts + float(pull > 0)
    if covariance == "tied":
        pooled = (scatters.sum(0) + prior) / (weights.sum() + strength)
        return new_means, pooled.expand(number, size, size)
    full = (scatters + prior) / (weights + strength)[:, None, None]
    if covariance == "full":
        return new_means, full
    variances = full.diagonal(dim1=-2, dim2=-1)
    if covariance == "spherical":
        variances = variances.mean(-1, keepdim=True).expand(number, size)
    return new_means, variances.diag_embed()


def check_step(
    covariance: str, *, missing: float, weighted: bool, priors: GaussianPriors | None
) -> None:
    """Scores, responsibilities and one step of EM are the dense oracle's."""
    x = rows(missing=missing, num_rows=80)
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(len(x), generator=generator, dtype=torch.float64) if weighted else None
    family = GaussianFamily(x, 3, covariance, weights=weights, priors=priors)
    structure = MixtureWeights(3, weights=weights)
    family.start(generator)
    for _ in range(2):
        family.maximise(structure.expect(family.log_probs())[1])
        structure.maximise()
    before = family.moments()
    full = dense(before[1], covariance, *before[0].shape)
    expected = oracle_log_probs(x, before[0], full)
    torch.testing.assert_close(family.log_probs(), expected, rtol=1e-9, atol=1e-9)
    _, shares = structure.expect(family.log_probs())
    rowwise = torch.ones(len(x), dtype=torch.float64) if weights is None else weights
    wanted = (expected + structure.probabilities.log()).softmax(1) * rowwise[:, None]
    torch.testing.assert_close(shares, wanted, rtol=1e-9, atol=1e-9)
    family.maximise(shares)
    center, unit = family.rows.shift, family.rows.scale
    means, covariances = oracle_step(x, before, covariance, wanted, unit, center, priors)
    after = family.moments()
    torch.testing.assert_close(after[0], means, rtol=1e-9, atol=1e-9)
    found = dense(after[1], covariance, *means.shape)
    torch.testing.assert_close(found, covariances, rtol=1e-9, atol=1e-9)


def check_never_falls(
    family: ComponentFamily, structure: MixtureWeights, iterations: int = 40
) -> None:
    """Log-likelihood plus log-prior rises from iteration to iteration."""
    generator = torch.Generator().manual_seed(3)
    family.start(generator)
    structure.start(generator)
    objectives = []
    for _ in range(iterations):
        nats, shares = structure.expect(family.log_probs())
        objectives.append(nats + family.log_prior() + structure.log_prior())
        family.maximise(shares)
        structure.maximise()
    changes = torch.tensor(objectives).double().diff()
    assert float(changes.min()) > -1e-8, f"the objective falls by {-float(changes.min())}"


def check_objective(concentration: float = 4.0) -> None:
    """The objective is the log-likelihood plus the log-priors of components and weights."""
    x = rows()
    family = GaussianFamily(x, 3, priors=PRIORS)
    structure = MixtureWeights(3, concentration=concentration)
    result = run_em(family, structure, num_starts=1)
    joint = family.log_probs() + structure.probabilities.log()
    torch.testing.assert_close(result.log_likelihood, float(joint.logsumexp(1).sum()))
    means, covariances = family.moments()
    unit = family.rows.scale
    precisions = (covariances / torch.outer(unit, unit)).inverse()
    log_dets, offset = -precisions.logdet(), (means - family.rows.shift) / unit
    traces = precisions.diagonal(dim1=-2, dim2=-1).sum(-1)
    pulls = torch.einsum("kd,kde,ke->k", offset, precisions, offset)
    wanted = -0.5 * PRIORS.strength * (log_dets + PRIORS.scale**2 * traces).sum()
    wanted -= 0.5 * (log_dets + PRIORS.mean_strength * pulls).sum()
    wanted += (concentration - 1) * structure.probabilities.log().sum()
    torch.testing.assert_close(result.objective - result.log_likelihood, float(wanted))


def gaussian_family(
    covariance: str,
    x: Tensor,
    *,
    weights: Tensor | None = None,
    priors: GaussianPriors | None = None,
    number: int = 3,
) -> GaussianFamily:
    rank = 1 if covariance == "low_rank" else None
    return GaussianFamily(x, number, covariance, rank=rank, weights=weights, priors=priors)


def check_noise_is_a_maximum(prior: tuple[float, float]) -> None:
    """Noise of low-rank covariances ends where no change of the last dimension's gains anything."""
    spread = torch.stack([rows(seed=seed, size=4).mT.corrcoef() for seed in range(3)])
    generator = torch.Generator().manual_seed(0)
    loading = 0.5 * torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    noise = 0.1 + torch.rand(3, 4, generator=generator, dtype=torch.float64)
    weight = torch.tensor([20.0, 50.0, 200.0], dtype=torch.float64)

    def objective(noise: Tensor) -> Tensor:
        covariances = loading @ loading.mT + noise.diag_embed()
        traces = torch.linalg.solve(covariances, spread).diagonal(dim1=-2, dim2=-1).sum(-1)
        priors = (noise.log() + prior[1] / noise).sum(-1)
        return -0.5 * (weight * (covariances.logdet() + traces) + prior[0] * priors)

    for _ in range(3):
        before, noise = noise, low_rank.noise_maxima(loading, noise, spread, weight, prior)
        assert bool((objective(noise) >= objective(before) - 1e-10).all()), "the objective falls"
    for factor in (0.9, 0.999, 1.001, 1.1):
        changed = torch.cat([noise[:, :-1], noise[:, -1:] * factor], 1)
        assert bool((objective(changed) < objective(noise)).all()), "a change gains"


def check_far_clusters(covariance: str) -> None:
    """Of clusters far apart beside their widths, the covariances are right to 1e-6."""
    x = rows(num_rows=300, size=2)
    labels = torch.arange(len(x)) % 2
    x = 1e-2 * (x - x.mean(0)) / x.std(0) + (labels * 2e5 - 1e5)[:, None]
    family = gaussian_family(covariance, x, number=2)
    shares = torch.nn.functional.one_hot(labels, 2).double()
    family.maximise(shares)
    if covariance == "low_rank":
        return
    means, found = family.moments()
    found = dense(found, covariance, 2, 2)
    parts = [x[labels == k] for k in range(2)]
    wanted = torch.stack([part.mT.cov(correction=0) for part in parts])
    if covariance == "tied":
        wanted = wanted.mean(0).expand(2, 2, 2)
    if covariance in ("diagonal", "spherical"):
        wanted = wanted.diagonal(dim1=-2, dim2=-1).diag_embed()
    if covariance == "spherical":
        wanted = wanted.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(2).double()
    assert float((found - wanted).abs().max()) < 1e-6 * 1e-4, "far clusters"
    scores = oracle_log_probs(x, means, found)
    own = scores.gather(1, labels[:, None])
    assert float((family.log_probs().gather(1, labels[:, None]) - own).abs().max()) < 1e-6


def check_repeated_rows(covariance: str, missing: float) -> None:
    """Integer weights fit as repeated rows do, from the start to the end."""
    x = rows(missing=missing, num_rows=120)
    number = torch.arange(len(x)) % 4  # some rows weigh nothing
    if missing == 0:
        x[number == 0] *= -100
    repeated = x.repeat_interleave(number, 0)
    weights = number.double()
    fits = []
    for data, given in ((x, weights), (repeated, None)):
        family = gaussian_family(covariance, data, weights=given, priors=PRIORS)
        structure = MixtureWeights(3, weights=given)
        result = run_em(family, structure, num_starts=2, weights=given, max_iterations=50)
        fits.append((result, family.moments(), structure.probabilities))
    (one, moments, shares), (other, moments_again, shares_again) = fits
    assert one.num_rows == other.num_rows == float(number.sum())
    torch.testing.assert_close(one.log_likelihood, other.log_likelihood, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moments, moments_again, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(shares, shares_again, rtol=1e-7, atol=1e-7)


def categorical(missing: float = 0.0, *, concentration: float = 1.0) -> CategoricalFamily:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, (60, 5), generator=generator).double()
    x = x.masked_fill(torch.rand(x.shape, generator=generator) < missing, torch.nan)
    return CategoricalFamily(x, 4, 3, concentration=concentration)
