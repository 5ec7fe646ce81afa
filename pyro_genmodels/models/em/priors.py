"""Priors of Gaussian components, in units of the data's spread."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._configuration import ArgumentGroup


@dataclass(frozen=True)
class GaussianPriors(ArgumentGroup):
    r"""Conjugate priors of means and covariances, scaled by the data's variance per dimension.

    With every dimension in units of its standard deviation in the data, and from its mean,

    .. math:: \log p(\mu, \Sigma) = -\tfrac{a}{2} \big(\log |\Sigma| + s^2\, \mathrm{tr}\,
        \Sigma^{-1}\big) - \tfrac{1}{2} \big(\log |\Sigma| + b\, \mu^T \Sigma^{-1} \mu\big)

    up to a constant: a normal-inverse-Wishart distribution, whose second term is there if b > 0.
    Diagonal and spherical covariances have the same form, a gamma distribution of each precision,
    and so has the noise of low-rank covariances. Data in other units give the same fit in those
    units. The defaults keep covariances proper and move a fit of ordinary data very little; a
    cluster narrower than the prior's standard deviation needs a smaller one. The Dirichlet
    distribution of the weights belongs to :class:`MixtureWeights`.

    Args:
        scale: Standard deviation s that the prior expects, as a fraction of the data's.
        strength: Number of rows a that this expectation weighs as much as.
        mean_strength: Number of rows b at the data's mean that are added to each component.

    Raises:
        ValueError: If ``scale`` or ``strength`` is not positive, or ``mean_strength`` is negative.

    References:
        Fraley and Raftery (2007), Bayesian regularization for normal mixture estimation.

    Example:
        >>> GaussianPriors(strength=2.0)
        GaussianPriors(scale=0.01, strength=2.0, mean_strength=0.0)
    """

    scale: float = 0.01
    _: KW_ONLY
    strength: float = 1.0
    mean_strength: float = 0.0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a number is out of its range."""
        super().__post_init__()
        check_positive(scale=self.scale, strength=self.strength)
        check(self.mean_strength >= 0, "mean_strength", "not be negative", self.mean_strength)
