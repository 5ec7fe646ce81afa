"""Gaussian models against dense Gaussians, and in the ways that they are used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import models, testing
from pyro_genmodels.models import GaussianModel, GenerativeModel

pytestmark = pytest.mark.usefixtures("double")

COVARIANCES = ["full", "tied", "diagonal", "spherical", "low_rank"]
NEAR = {"atol": 1e-10, "rtol": 1e-10}


def gaussian(
    covariance: str, shape: tuple[int, ...] = (4,), *, standardized: bool = False, **options: Any
) -> GaussianModel:
    """One with random moments; standardised, in the units of such data."""
    torch.manual_seed(0)
    rank = 2 if covariance == "low_rank" else None
    model: Any = GaussianModel(shape, covariance=covariance, rank=rank, **options)  # type: ignore
    testing.randomize_parameters(model, 0.5).eval()
    return model.standardize(points(50, *shape)) if standardized else model


def points(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    factors = torch.linspace(0.5, 20.0, shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    return factors * x + 1000


def holed(*shape: int) -> Tensor:
    """Of the first data point nothing was observed, of the last all."""
    x = points(*shape)
    gone = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4
    gone[0], gone[-1] = True, False
    return torch.where(gone, torch.nan, x)


def dense(model: GaussianModel) -> tuple[Tensor, Tensor]:
    """Means and whole covariances of each label, from what `moments` returns."""
    means, found = model.moments()
    classes, size = means.shape
    if model.covariance == "low_rank":
        loading, noise = found
        return means, loading @ loading.mT + torch.diag_embed(noise)
    assert isinstance(found, Tensor)
    if model.covariance == "spherical":
        found = found[:, None].expand(classes, size)
    if model.covariance in ("diagonal", "spherical"):
        found = torch.diag_embed(found)
    return means, found.expand(classes, size, size)


def oracle(model: GaussianModel, x: Tensor) -> Tensor:
    """Log-densities of what was observed under each label, by torch's dense Gaussian."""
    means, covariances = dense(model)
    rows = x.flatten(1)
    scores = torch.zeros(len(rows), len(means))
    for i, row in enumerate(rows):
        seen = ~row.isnan()
        for k in range(len(means) if seen.any() else 0):
            law = torch.distributions.MultivariateNormal(
                means[k][seen], covariances[k][seen][:, seen]
            )
            scores[i, k] = law.log_prob(row[seen])
    return scores


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("shape", [(4,), (2, 2, 2), (1,)], ids=str)
@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("missing", [False, True])
def test_scores_are_those_of_dense_gaussians(
    covariance: str, shape: tuple[int, ...], standardized: bool, missing: bool
) -> None:
    if covariance == "low_rank" and shape == (1,):
        pytest.skip("more factors than elements")
    options: dict[str, Any] = {"standardized": standardized, "missing": missing}
    model = gaussian(covariance, shape, num_classes=3, **options)
    x = holed(9, *shape) if missing else points(9, *shape)
    x = x if standardized else (x - 1000) / 10
    expected = oracle(model, x)
    labels = torch.arange(9) % 3
    found = model.distribution(labels).log_prob(x)
    torch.testing.assert_close(found, expected[torch.arange(9), labels], **NEAR)
    torch.testing.assert_close(model.log_weights(x, labels)[0], found, **NEAR)
    torch.testing.assert_close(model.class_log_probs(x), expected, **NEAR)
    alone = gaussian(covariance, shape, **options)
    torch.testing.assert_close(alone.distribution().log_prob(x), oracle(alone, x)[:, 0], **NEAR)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("standardized", [False, True])
def test_moments_survive_being_set(covariance: str, standardized: bool) -> None:
    model = gaussian(covariance, num_classes=3, standardized=standardized)
    other = gaussian(covariance, num_classes=3, standardized=standardized)
    testing.randomize_parameters(other, 0.5)
    other.set_moments(*model.moments())
    for one, two in zip(dense(model), dense(other), strict=True):
        torch.testing.assert_close(one, two, **NEAR)
    x = points(5, 4) if standardized else points(5, 4) - 1000
    torch.testing.assert_close(other.class_log_probs(x), model.class_log_probs(x), **NEAR)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_scipy_agrees(covariance: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    model = gaussian(covariance, standardized=True)
    means, covariances = dense(model)
    x = points(20, 4)
    expected = stats.multivariate_normal(means[0].numpy(), covariances[0].numpy()).logpdf(x.numpy())
    torch.testing.assert_close(
        model.distribution().log_prob(x).detach(), torch.from_numpy(expected), **NEAR
    )


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_narrow_data_far_from_zero(covariance: str, standardized: bool, dtype: torch.dtype) -> None:
    """Data at 1e6 +- .01, of components as narrow again and apart."""
    if dtype == torch.float32 and not standardized:
        pytest.skip("float32 has no such data")
    rank = 1 if covariance == "low_rank" else None
    options: dict[str, Any] = {"covariance": covariance, "rank": rank, "num_classes": 3}
    model = GaussianModel((3,), **options).to(dtype)
    noise = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    x = 1e6 + 0.01 * (labels[:, None] + 1e-2 * noise)
    if standardized:
        model.standardize(x)
    means = 1e6 + 0.01 * torch.arange(3.0)[:, None].expand(3, 3)
    variance = 1e-8
    covariances: Any = {
        "full": variance * torch.eye(3).expand(3, 3, 3),
        "tied": variance * torch.eye(3),
        "diagonal": torch.full((3, 3), variance),
        "spherical": torch.full((3,), variance),
        "low_rank": (torch.zeros(3, 3, 1), torch.full((3, 3), variance)),
    }[covariance]
    model.set_moments(means, covariances)
    law = torch.distributions.Normal(means, variance**0.5)
    expected = law.log_prob(x[:, None]).sum(-1)
    near = NEAR if dtype == torch.float64 else {"atol": 2e-3, "rtol": 2e-5}
    if dtype == torch.float64:
        # One unit in the last place of the data is 1e-10 of them, and 1e-6 deviations.
        near = {"atol": 1e-5, "rtol": 1e-6}
    found = model.class_log_probs(x)
    torch.testing.assert_close(found.double(), expected, **near)
    general = GenerativeModel.class_log_probs(model, x)
    near = {"atol": 1e-8, "rtol": 1e-9} if dtype == torch.float64 else near
    torch.testing.assert_close(found, general, **near)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)], ids=str)
def test_imputations_are_draws_from_the_conditional(
    covariance: str, shape: tuple[int, ...]
) -> None:
    model = gaussian(covariance, shape, standardized=True, missing=True, num_classes=2)
    x, labels = holed(3, *shape)[1:2], torch.tensor([1])
    x.flatten()[:2] = torch.tensor([torch.nan, 1003.0])
    drawn = model.impute(x, labels, num_samples=20_000).flatten(2)[:, 0]
    means, covariances = dense(model)
    row, mean, covariance_matrix = x.flatten(), means[1], covariances[1]
    seen = ~row.isnan()
    gain = covariance_matrix[~seen][:, seen] @ covariance_matrix[seen][:, seen].inverse()
    centre = mean[~seen] + gain @ (row - mean)[seen]
    spread = covariance_matrix[~seen][:, ~seen] - gain @ covariance_matrix[seen][:, ~seen]
    scale = spread.diagonal().sqrt()
    error = (drawn[:, ~seen].mean(0) - centre) / scale
    assert error.abs().max() < 5 / 20_000**0.5
    found = drawn[:, ~seen].T.cov().reshape(spread.shape) / (scale[:, None] * scale)
    torch.testing.assert_close(found, spread / (scale[:, None] * scale), atol=0.05, rtol=0)
    assert (drawn[:, seen] == row[seen]).all()


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_training_meets_the_sample_moments(covariance: str) -> None:
    """Maximum likelihood is known in closed form, but of low rank."""
    torch.manual_seed(0)
    mixing = torch.randn(3, 3)
    x = torch.randn(400, 3) @ mixing + 5
    rank = 1 if covariance == "low_rank" else None
    model = GaussianModel((3,), covariance=covariance, rank=rank).standardize(x)  # type: ignore
    loss = models.ELBOLoss(model)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10
    )

    def closure() -> Any:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return value

    optimizer.step(closure)
    means, covariances = dense(model)
    torch.testing.assert_close(means[0], x.mean(0), atol=1e-5, rtol=0)
    sample = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    expected = {
        "diagonal": sample.diagonal().diag(),
        "spherical": sample.diagonal().mean() * torch.eye(3),
    }.get(covariance, sample)
    if covariance != "low_rank":
        torch.testing.assert_close(covariances[0], expected, atol=1e-4, rtol=1e-4)


def test_data_with_levels_have_a_density_of_dequantised_values() -> None:
    model = GaussianModel((3,), num_levels=5, num_classes=2).double()
    testing.randomize_parameters(model, 0.3)
    means, covariances = dense(model)
    v = 5 * torch.rand(6, 3)
    labels = torch.arange(6) % 2
    law = torch.distributions.MultivariateNormal(means[labels], covariances[labels])
    torch.testing.assert_close(model.density(labels).log_prob(v), law.log_prob(v), **NEAR)
    assert model.bound_kind == "uniform-dequantisation"
    for call in (model.distribution, lambda c: model.class_log_probs(v.floor())):
        with pytest.raises(ValueError, match="GaussianModel of levels: its `density`"):
            call(labels)
    with pytest.raises(ValueError, match="`missing` must be False of data with levels"):
        GaussianModel((3,), num_levels=5, missing=True)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="`rank` must be given for a low-rank covariance"):
        GaussianModel((3,), covariance="low_rank")
    with pytest.raises(ValueError, match="`rank` must be given for a low-rank covariance"):
        GaussianModel((3,), rank=1)
    with pytest.raises(ValueError, match="`rank` must be at most 3"):
        GaussianModel((3,), covariance="low_rank", rank=4)
    model = GaussianModel((2,), num_classes=2)
    with pytest.raises(ValueError, match=r"`means` must have shape \(2, 2\); got \(2,\)"):
        model.set_moments(torch.zeros(2), torch.eye(2).expand(2, 2, 2))
    spread = torch.stack([torch.eye(2), torch.ones(2, 2) - 2 * torch.eye(2)])
    with pytest.raises(ValueError, match="positive definite; got component 1"):
        model.set_moments(torch.zeros(2, 2), spread)
    with pytest.raises(ValueError, match="labels from 0 to 1"):
        model.distribution(torch.tensor([2]))
    with pytest.raises(ValueError, match=r"maximum in closed form .*got VAE"):
        models.VAE((2,)).em_family(torch.zeros(3, 2))


def test_moments_are_in_the_units_of_the_data_once_and_for_all() -> None:
    model = GaussianModel((2,))
    model.set_moments(torch.zeros(1, 2), torch.eye(2)[None])
    assert model.is_trained
    with pytest.raises(ValueError, match="standardised before its parameters"):
        model.standardize(points(10, 2))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_chunks_change_nothing(covariance: str) -> None:
    model = gaussian(covariance, num_classes=5)
    x = torch.randn(2, 3, 4)
    whole = model.class_log_probs(x)
    assert whole.shape == (2, 3, 5)
    torch.testing.assert_close(model.class_log_probs(x, chunk_size=2), whole, **NEAR)
    far = copy.deepcopy(model)
    with torch.no_grad():
        far.loc[0] += 1e5
    general = GenerativeModel.class_log_probs(far, x)
    torch.testing.assert_close(far.class_log_probs(x, chunk_size=2), general, **NEAR)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("missing", [False, True])
def test_float64_is_kept_whatever_the_default_dtype(covariance: str, missing: bool) -> None:
    model = gaussian(covariance, standardized=True, missing=missing, num_classes=2)
    x = holed(6, 4) if missing else points(6, 4)
    labels, expected = torch.arange(6) % 2, oracle(model, x)
    torch.set_default_dtype(torch.float32)
    found = model.distribution(labels).log_prob(x)
    torch.testing.assert_close(found, expected[torch.arange(6), labels], **NEAR)
    torch.testing.assert_close(model.class_log_probs(x), expected, **NEAR)
