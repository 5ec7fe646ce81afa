"""Which units respond, and what they know of factors: active units, mutual information, MIG."""

from __future__ import annotations

import math

import torch

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._typing import Bool, Float, Int, Tensor
from pyro_genmodels.disentanglement.codes import lead, paired_rows, rows_of


def active_units(
    means: Float[Tensor, "*batch D"], *, threshold: float = 0.01
) -> Bool[Tensor, " D"]:
    r"""Say which latent units respond to the data: :math:`Var_x(E_q[z_d \mid x]) > 0.01`.

    Args:
        means: Posterior means ``(*batch, D)`` of many data points.
        threshold: Variance above which a unit is active.

    References:
        Burda et al. (2016), Importance weighted autoencoders, section 5.2.

    Example:
        >>> active_units(torch.tensor([[0.0, 1.0], [0.05, -1.0]])).tolist()
        [False, True]
    """
    means = rows_of(means, "means")
    check(len(means) > 1, "means", "be of two data points or more", len(means))
    return means.var(0) > threshold


@integers_checked
def mutual_information(
    codes: Float[Tensor, "*batch D"], factors: Int[Tensor, "*others F"], *, num_bins: int = 20
) -> Float[Tensor, "D F"]:
    """Estimate the mutual information of each unit and each factor, in nats.

    Args:
        codes: Codes ``(*batch, D)`` of many data points.
        factors: Their factors ``(*batch, F)``.
        num_bins: Equal bins between the extremes that each unit is cut into. With few data for
            each pair of bin and value the estimate is too high.

    Example:
        >>> factors = torch.arange(4)[:, None]
        >>> mutual_information(factors.float(), factors).exp()
        tensor([[4.]])
    """
    codes, factors = paired_rows(codes, factors)
    check_positive(num_bins=num_bins)
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
def mig(
    codes: Float[Tensor, "*batch D"], factors: Int[Tensor, "*others F"], *, num_bins: int = 20
) -> float:
    r"""Return the mutual information gap.

    .. math:: \frac1F \sum_k \frac{1}{H(v_k)} \big(I(z_{(1)}; v_k) - I(z_{(2)}; v_k)\big)

    over the two units that know most of each factor.

    Args:
        codes: Codes ``(*batch, D)`` of many data points, of two units or more.
        factors: Their factors ``(*batch, F)``.
        num_bins: Bins that each unit is cut into.

    Raises:
        ValueError: If there are fewer units, no bins, or a factor does not vary.

    References:
        Chen et al. (2018), Isolating sources of disentanglement, eq. 6.
        https://arxiv.org/abs/1802.04942

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> round(mig(factors.float(), factors), 6), round(mig(factors.float() @ _TURN, factors), 2)
        (1.0, 0.0)
    """
    information = mutual_information(codes, factors, num_bins=num_bins)
    entropies = torch.tensor([_entropy(factor) for factor in rows_of(factors, "factors").unbind(1)])
    constant = (entropies == 0).nonzero()[:, 0].tolist()
    check(not constant, "factors", "vary in every column", f"constant ones {constant}")
    return float((lead(information) / entropies).mean())


# A turn by an eighth of the circle, for examples: both units know as much.
_TURN = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
