"""The separated attribute predictability."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyro_genmodels._checks import integers_checked, require
from pyro_genmodels._typing import Float, Int, Tensor
from pyro_genmodels.disentanglement.codes import lead, paired_rows


@integers_checked
def sap(
    codes: Float[Tensor, "*batch D"],
    factors: Int[Tensor, "*others F"],
    *,
    categorical: Sequence[int] = (),
) -> float:
    """Return the separated attribute predictability.

    The lead of the unit that predicts a factor best linearly over the second: by the share of
    variance explained, for an ordered factor; by a linear classifier's balanced accuracy above
    chance (scaled so that 1 is the best) for a categorical one.

    Args:
        codes: Codes ``(*batch, D)`` of many data points, of two units or more.
        factors: Their factors ``(*batch, F)``.
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
    codes, factors = paired_rows(codes, factors)
    white, target = _standardized(codes.double()), _standardized(factors.double())
    scores = (white.mT @ target / len(codes)).square()
    for column in categorical:
        for unit in range(codes.shape[1]):
            scores[unit, column] = _accuracy(white[:, unit : unit + 1], factors[:, column])
    return float(lead(scores).mean())


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
