"""Disentanglement, completeness and informativeness, from random forests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pyro_genmodels._checks import check, check_positive, integers_checked, require
from pyro_genmodels._typing import Float, Int, Tensor
from pyro_genmodels.disentanglement.codes import paired_rows


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
    codes: Float[Tensor, "*batch D"],
    factors: Int[Tensor, "*others F"],
    *,
    num_trees: int = 50,
    seed: int = 0,
) -> DCI:
    """Score codes by how a random forest predicts each factor from them.

    Args:
        codes: Codes ``(*batch, D)`` of many data points, in random order; a fifth is kept for the
            prediction.
        factors: Their factors ``(*batch, F)``.
        num_trees: Trees of each forest.
        seed: Seed of the forests.

    Raises:
        ValueError: If there are too few codes, or no trees.
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
    codes, factors = paired_rows(codes, factors)
    check_positive(num_trees=num_trees)
    check(len(codes) >= 5, "codes", "be of five data points or more", len(codes))
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
