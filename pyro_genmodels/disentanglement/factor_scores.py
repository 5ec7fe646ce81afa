"""Scores that draw their own data: one factor held, or shared by pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch

from pyro_genmodels._checks import check_positive, integers_checked, require
from pyro_genmodels._typing import Tensor

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
