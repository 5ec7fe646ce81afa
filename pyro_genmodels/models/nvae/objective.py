"""What NVAE's training adds to the bound: balanced KL terms, and regularisers of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import pyro
import torch
from torch import nn

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.nets.nvae import BatchNormScales, SpectralNorms

_OFFSET = 0.01


@dataclass(frozen=True)
class NVAEObjective(ArgumentGroup):
    """Weights of NVAE's training: of the KL terms, and of the penalty on the weights.

    Args:
        beta: Final weight of the KL terms.
        warmup_steps: Training steps over which it rises to that from nearly zero, evenly;
            balancing ends with it.
        balancing: Balance the KL terms between groups meanwhile.
        regularization: Weight of the spectral and batch norms' penalty, per example.
        regularization_start: Weight at the start of the warm-up, from which it goes to the final
            one log-linearly; constant by default.

    Raises:
        ValueError: If a weight is negative, ``beta`` or a start is not positive, or a start is
            given without a weight.

    References:
        Vahdat and Kautz (2020), NVAE, eq. 5 and appendix A.

    Example:
        >>> NVAEObjective(warmup_steps=10, regularization=0.0).balancing
        True
    """

    beta: float = 1.0
    _: KW_ONLY
    warmup_steps: int = 1000
    balancing: bool = True
    regularization: float = 1e-2
    regularization_start: float | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a weight is out of range."""
        super().__post_init__()
        check_positive(beta=self.beta)
        for name in ("warmup_steps", "regularization"):
            check(getattr(self, name) >= 0, name, "not be negative", getattr(self, name))
        if (start := self.regularization_start) is not None:
            check_positive(regularization_start=start, regularization=self.regularization)


def group_weights(num_groups: Sequence[int]) -> list[float]:
    r"""Return :math:`\alpha_l`: elements on a group's scale, over the scale's groups.

    The smallest is one.

    Args:
        num_groups: Groups on each scale, from the top; each scale has four times the pixels.

    Example:
        >>> group_weights((2, 4))
        [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    """
    weights = [4.0**scale / n for scale, n in enumerate(num_groups) for _ in range(n)]
    return [weight / min(weights) for weight in weights]


def balancing_coefficients(
    divergences: Sequence[Float[Tensor, "*batch"]], weights: Sequence[float]
) -> Float[Tensor, " groups"]:
    r"""Return the coefficients that keep all groups in use while the KL terms' weight is small.

    .. math:: \gamma_l \propto (\overline{|KL_l|} + 0.01) / \alpha_l, \qquad
        \textstyle\sum_l \gamma_l = L

    Args:
        divergences: KL term of each group.
        weights: :math:`\alpha_l` of each group.

    Returns:
        Coefficients of mean one, through which no gradient flows.

    References:
        Vahdat and Kautz (2020), NVAE, appendix A.
    """
    means = torch.stack([each.detach().abs().mean() for each in divergences])
    shares = (means + _OFFSET) / means.new_tensor(weights)
    return shares * (len(weights) / shares.sum())


def add_divergences(
    divergences: Sequence[Float[Tensor, "*batch"]], num_groups: Sequence[int], scale: LatentScale
) -> None:
    """Add all KL terms to a guide, balanced during the warm-up and all alike after it.

    Args:
        divergences: KL term of each group.
        num_groups: Groups on each scale.
        scale: The weight of all.
    """
    shares = balancing_coefficients(divergences, group_weights(num_groups))
    shares = torch.where(scale.step >= scale.warmup_steps, torch.ones_like(shares), shares)
    terms = torch.stack(torch.broadcast_tensors(*divergences), -1)
    # In a guide a factor's sign turns: this one lowers the ELBO.
    pyro.factor("divergences", scale.value * (terms @ shares), has_rsample=True)


class WeightRegularizer(nn.Module):
    r"""Spectral norms and batch norms' scales, with one weight.

    Args:
        network: Network that is regularised.
        objective: Its weight, and the one at the start of the KL terms' warm-up.

    References:
        Vahdat and Kautz (2020), NVAE, eq. 5.
    """

    def __init__(self, network: nn.Module, objective: NVAEObjective) -> None:
        super().__init__()
        self.weight, self.start = objective.regularization, objective.regularization_start
        self.spectral_norms = SpectralNorms(network)
        self.batch_norm_scales = BatchNormScales(network)

    def forward(self, progress: Tensor | float) -> Float[Tensor, ""]:
        """Return the weighted sum.

        Args:
            progress: How far the warm-up is, from 0 to 1.
        """
        total: Tensor = self.spectral_norms() + self.batch_norm_scales()
        return total * self._weight(progress)

    def add(self, progress: Tensor | float, batch: torch.Size) -> None:
        """Add the penalty of each example to a guide, inside its plates."""
        if self.weight:
            pyro.factor("regularization", self(progress).expand(batch), has_rsample=True)

    def _weight(self, progress: Tensor | float) -> Tensor | float:
        if self.start is None:
            return self.weight
        logarithm = math.log(self.start) * (1 - progress) + math.log(self.weight) * progress
        return torch.exp(torch.as_tensor(logarithm))
