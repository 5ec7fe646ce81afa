"""How far single latent units stand for single factors of the data, where these are known.

The scores take codes, usually the posterior's means, and the factors they belong to; two draw
their own data instead, such as :class:`pyro_genmodels.data.Sprites`. All lie between zero and one.
What needs scikit-learn comes with the ``train`` extra.

References:
    Locatello et al. (2019), Challenging common assumptions in the unsupervised learning of
    disentangled representations, for a comparison. https://arxiv.org/abs/1811.12359
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch

from pyro_genmodels._checks import check, check_positive, integers_checked, require
from pyro_genmodels._typing import Bool, Float, Int, Num, Tensor

__all__ = [
    "DCI",
    "FactorSource",
    "active_units",
    "beta_vae_score",
    "dci",
    "factor_vae_score",
    "mig",
    "mutual_information",
    "sap",
]

Represent: TypeAlias = Callable[[Tensor], Tensor]

# Units that vary less than this, against the most lively one, take no part in a vote.
_DEAD = 0.05


@runtime_checkable
class FactorSource(Protocol):
    """Data drawn from known factors, such as :class:`pyro_genmodels.data.Sprites`.

    Example:
        >>> from pyro_genmodels import data
        >>> isinstance(data.Sprites(), FactorSource)
        True
    """

    factor_sizes: Sequence[int]

    def sample_factors(self, count: int) -> Tensor:
        """Draw factors ``(count, F)``."""

    def render(self, factors: Tensor) -> Tensor:
        """Return the data of given factors."""


def active_units(means: Float[Tensor, "n D"], *, threshold: float = 0.01) -> Bool[Tensor, " D"]:
    r"""Say which latent units respond to the data: :math:`Var_x(E_q[z_d \mid x]) > 0.01`.

    Args:
        means: Posterior means of many data points.
        threshold: Variance above which a unit is active.

    References:
        Burda et al. (2016), Importance weighted autoencoders, section 5.2.

    Example:
        >>> active_units(torch.tensor([[0.0, 1.0], [0.05, -1.0]])).tolist()
        [False, True]
    """
    check(len(means) > 1, "means", "be of two data points or more", len(means))
    return means.var(0) > threshold


@integers_checked
def mutual_information(
    codes: Float[Tensor, "n D"], factors: Int[Tensor, "m F"], *, num_bins: int = 20
) -> Float[Tensor, "D F"]:
    """Estimate the mutual information of each unit and each factor, in nats.

    Args:
        codes: Codes of many data points.
        factors: Their factors.
        num_bins: Equal bins between the extremes that each unit is cut into. With few data for
            each pair of bin and value the estimate is too high.

    Example:
        >>> factors = torch.arange(4)[:, None]
        >>> mutual_information(factors.float(), factors).exp()
        tensor([[4.]])
    """
    _check_same(codes, factors)
    low, high = codes.amin(0), codes.amax(0)
    scaled = (codes - low) / (high - low).clamp_min(1e-12)
    bins = (scaled * num_bins).long().clamp(max=num_bins - 1)
    rows = [[_information(a, b) for b in factors.unbind(1)] for a in bins.unbind(1)]
    return torch.tensor(rows)


def _information(first: Tensor, second: Tensor) -> float:
    _, codes = torch.stack([first, second.to(first)]).unique(dim=1, return_inverse=True)
    return _entropy(first) + _entropy(second) - _entropy(codes)


def _entropy(values: Tensor) -> float:
    counts = values.unique(return_counts=True)[1].double()
    return float(torch.special.entr(counts / counts.sum()).sum())


@integers_checked
def mig(codes: Float[Tensor, "n D"], factors: Int[Tensor, "m F"], *, num_bins: int = 20) -> float:
    r"""Return the mutual information gap.

    .. math:: \frac1F \sum_k \frac{1}{H(v_k)} \big(I(z_{(1)}; v_k) - I(z_{(2)}; v_k)\big)

    over the two units that know most of each factor.

    Args:
        codes: Codes of many data points, of two units or more.
        factors: Their factors.
        num_bins: Bins that each unit is cut into.

    References:
        Chen et al. (2018), Isolating sources of disentanglement, eq. 6.
        https://arxiv.org/abs/1802.04942

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> round(mig(factors.float(), factors), 6), round(mig(factors.float() @ _TURN, factors), 2)
        (1.0, 0.0)
    """
    information = mutual_information(codes, factors, num_bins=num_bins)
    entropies = torch.tensor([_entropy(factor) for factor in factors.unbind(1)])
    return float((_lead(information) / entropies).mean())


# A turn by an eighth of the circle, for examples: both units know as much.
_TURN = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)


def _lead(scores: Float[Tensor, "D F"]) -> Float[Tensor, " F"]:
    """How far the best unit is ahead of the second, for each factor."""
    check(len(scores) > 1, "codes", "have two units or more", len(scores))
    best = scores.topk(2, dim=0).values
    return best[0] - best[1]


@integers_checked
def sap(
    codes: Float[Tensor, "n D"], factors: Int[Tensor, "m F"], *, categorical: Sequence[int] = ()
) -> float:
    """Return the separated attribute predictability.

    The lead of the unit that predicts a factor best linearly over the second: by the share of
    variance explained, for an ordered factor; by a linear classifier's balanced accuracy above
    chance (scaled so that 1 is the best) for a categorical one.

    Args:
        codes: Codes of many data points, of two units or more.
        factors: Their factors.
        categorical: Columns whose values have no order, such as a shape.

    Raises:
        ImportError: With categorical factors, if scikit-learn is not installed.

    References:
        Kumar et al. (2018), Variational inference of disentangled latent concepts, section 3.
        https://arxiv.org/abs/1711.00848

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> round(sap(factors.double(), factors), 6)
        1.0
    """
    _check_same(codes, factors)
    white, target = _standardized(codes.double()), _standardized(factors.double())
    scores = (white.mT @ target / len(codes)).square()
    for column in categorical:
        for unit in range(codes.shape[1]):
            scores[unit, column] = _accuracy(white[:, unit : unit + 1], factors[:, column])
    return float(_lead(scores).mean())


def _standardized(values: Tensor) -> Tensor:
    spread = values.std(0, unbiased=False)
    scaled = (values - values.mean(0)) / spread.clamp_min(1e-12)
    return torch.where(spread > 1e-9, scaled, 0.0)


def _accuracy(codes: Tensor, labels: Tensor) -> float:
    """Balanced accuracy of a linear classifier, from 0 by chance to 1."""
    svm = require("sklearn.svm", extra="train")
    metrics = require("sklearn.metrics", extra="train")
    classifier = svm.LinearSVC(C=0.01, class_weight="balanced")
    rows, known = codes.detach().cpu().numpy(), labels.cpu().numpy()
    predicted = classifier.fit(rows, known).predict(rows)
    return float(metrics.balanced_accuracy_score(known, predicted, adjusted=True))


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness, informativeness.

    Attributes:
        disentanglement: One if each unit matters for one factor alone.
        completeness: One if for each factor one unit alone matters.
        informativeness: Share of unseen factors predicted, the mean over factors.

    Example:
        >>> DCI(1.0, 0.5, 0.9).completeness
        0.5
    """

    disentanglement: float
    completeness: float
    informativeness: float


@integers_checked
def dci(
    codes: Float[Tensor, "n D"],
    factors: Int[Tensor, "m F"],
    *,
    num_trees: int = 50,
    seed: int = 0,
) -> DCI:
    """Score codes by how a random forest predicts each factor from them.

    Args:
        codes: Codes of many data points, in random order; a fifth is kept for the prediction.
        factors: Their factors.
        num_trees: Trees of each forest.
        seed: Seed of the forests.

    Raises:
        ImportError: If scikit-learn is not installed.

    References:
        Eastwood and Williams (2018), A framework for the quantitative evaluation of disentangled
        representations. https://openreview.net/forum?id=By-7dz-AZ

    Example:
        >>> factors = torch.randint(3, (500, 2), generator=torch.Generator().manual_seed(0))
        >>> score = dci(factors.float(), factors, num_trees=5)
        >>> score.informativeness
        1.0
    """
    _check_same(codes, factors)
    ensemble = require("sklearn.ensemble", extra="train")
    kept = len(codes) // 5
    x, y = codes.detach().cpu().numpy(), factors.cpu().numpy()
    columns, accuracies = [], []
    for column in range(y.shape[1]):
        forest = ensemble.RandomForestClassifier(num_trees, random_state=seed)
        forest.fit(x[kept:], y[kept:, column])
        columns.append(torch.as_tensor(forest.feature_importances_))
        accuracies.append(float(forest.score(x[:kept], y[:kept, column])))
    importance = torch.stack(columns, 1)
    return DCI(
        _concentration(importance),
        _concentration(importance.mT),
        sum(accuracies) / len(accuracies),
    )


def _concentration(importance: Float[Tensor, "rows columns"]) -> float:
    """One less the relative entropy of each row, weighted by the rows' sums."""
    sums = importance.sum(1, keepdim=True)
    shares = importance / sums.clamp_min(1e-12)
    entropy = torch.special.entr(shares).sum(1) / math.log(max(2, importance.shape[1]))
    return float(((1 - entropy) * sums[:, 0]).sum() / sums.sum())


@integers_checked
def factor_vae_score(
    represent: Represent,
    source: FactorSource,
    *,
    num_votes: int = 800,
    batch_size: int = 64,
) -> float:
    """Return how well the unit that varies least tells which factor was held.

    Data share one factor's value; the unit of least relative variance is a vote for it. The
    majority's factor of each unit is learned from ``num_votes`` of them, and tried on as many.

    Args:
        represent: From data to codes ``(n, D)``, usually the posterior's means.
        source: Data of known factors.
        num_votes: Votes to learn from, and to try.
        batch_size: Data a vote.

    References:
        Kim and Mnih (2018), Disentangling by factorising, section 4.
        https://arxiv.org/abs/1802.05983

    Example:
        >>> from pyro_genmodels import data
        >>> _ = torch.manual_seed(0)
        >>> score = factor_vae_score(lambda x: x.flatten(1)[:, :4], data.Sprites(), num_votes=5)
        >>> 0 <= score <= 1
        True
    """
    check_positive(num_votes=num_votes, batch_size=batch_size)
    scale = represent(source.render(source.sample_factors(2000))).std(0)
    alive = scale > _DEAD * scale.max()
    if not bool(alive.any()):
        return 0.0
    held, votes = [], []
    for _ in range(2 * num_votes):
        factor, factors = _with_one_held(source, batch_size)
        variance = represent(source.render(factors)).var(0) / scale.square()
        held.append(factor)
        votes.append(int(variance.where(alive, torch.inf).argmin()))
    counts = torch.zeros(len(scale), len(source.factor_sizes))
    for factor, unit in zip(held[:num_votes], votes[:num_votes], strict=True):
        counts[unit, factor] += 1
    majority = counts.argmax(1)
    tried = zip(held[num_votes:], votes[num_votes:], strict=True)
    return sum(int(majority[unit]) == factor for factor, unit in tried) / num_votes


def _with_one_held(source: FactorSource, count: int) -> tuple[int, Tensor]:
    factor = int(torch.randint(len(source.factor_sizes), ()))
    factors = source.sample_factors(count)
    factors[:, factor] = factors[0, factor]
    return factor, factors


@integers_checked
def beta_vae_score(
    represent: Represent,
    source: FactorSource,
    *,
    num_points: int = 1000,
    batch_size: int = 64,
) -> float:
    """Return how well the mean difference of codes tells which factor pairs of data share.

    Args:
        represent: From data to codes ``(n, D)``, usually the posterior's means.
        source: Data of known factors.
        num_points: Points that the linear classifier learns from, and is tried on.
        batch_size: Pairs a point.

    Raises:
        ImportError: If scikit-learn is not installed.

    References:
        Higgins et al. (2017), beta-VAE, section 3. https://openreview.net/forum?id=Sy2fzU9gl

    Example:
        >>> from pyro_genmodels import data
        >>> _ = torch.manual_seed(0)
        >>> score = beta_vae_score(lambda x: x.flatten(1)[:, 99:], data.Sprites(), num_points=30)
        >>> 0 <= score <= 1
        True
    """
    check_positive(num_points=num_points, batch_size=batch_size)
    linear = require("sklearn.linear_model", extra="train")
    points, shared = [], []
    for _ in range(2 * num_points):
        factor = int(torch.randint(len(source.factor_sizes), ()))
        first, second = source.sample_factors(batch_size), source.sample_factors(batch_size)
        second[:, factor] = first[:, factor]
        difference = represent(source.render(first)) - represent(source.render(second))
        points.append(difference.abs().mean(0))
        shared.append(factor)
    x: Any = torch.stack(points).detach().cpu().numpy()
    classifier = linear.LogisticRegression(max_iter=2000, C=1e3)
    classifier.fit(x[:num_points], shared[:num_points])
    return float(classifier.score(x[num_points:], shared[num_points:]))


def _check_same(codes: Num[Tensor, "n D"], factors: Num[Tensor, "m F"]) -> None:
    check(len(codes) == len(factors), "factors", f"be those of {len(codes)} codes", len(factors))
