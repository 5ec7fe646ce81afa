"""Builders: classical mixtures, each one call."""

from __future__ import annotations

from typing import Any

from pyro_genmodels._checks import check_positive
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.gaussian.gaussian_model import CovarianceName, GaussianModel
from pyro_genmodels.models.mixtures.categorical_model import CategoricalModel
from pyro_genmodels.models.mixtures.mixture_model import MixtureModel

_OWN = ("conditional", "context_shape", "hidden")


@takes_arguments_of(MixtureModel, without=_OWN)
def gaussian_mixture(
    event_shape: EventShape,
    num_components: int = 8,
    *,
    covariance: CovarianceName = "full",
    rank: int | None = None,
    num_levels: int | None = None,
    missing: bool = False,
    **options: Any,
) -> MixtureModel:
    """Make a mixture of Gaussians, or with ``covariance="low_rank"`` of factor analysers.

    :meth:`MixtureModel.fit_em` fits it to continuous data.

    Args:
        event_shape: Sizes of one data point, ``(D,)`` or ``(C, H, W)``.
        num_components: Number of Gaussians.
        covariance: Their covariances: ``"full"``; ``"tied"``, one for all; ``"diagonal"``;
            ``"spherical"``; or ``"low_rank"``, of ``rank`` factors and independent noise.
        rank: Number of factors of a low-rank covariance.
        num_levels: Data are the integers ``0 .. num_levels - 1``, dequantised; ``None`` for
            continuous data.
        missing: Whether data may have missing elements, NaN.
        options: Others, as for :class:`~pyro_genmodels.models.MixtureModel`.

    Returns:
        The mixture; ``model.conditional`` is the :class:`~pyro_genmodels.models.GaussianModel`.

    Example:
        >>> import torch
        >>> model = gaussian_mixture((2,), 3, covariance="diagonal")
        >>> _ = torch.manual_seed(0)
        >>> result = model.fit_em(torch.randn(100, 2), num_starts=1)
        >>> result.converged, model.sample(4).shape
        (True, torch.Size([4, 2]))
    """
    check_positive(num_components=num_components)
    parts = GaussianModel(
        event_shape,
        covariance=covariance,
        rank=rank,
        num_levels=num_levels,
        num_classes=num_components,
        missing=missing,
    )
    return MixtureModel(parts, **options)


@takes_arguments_of(MixtureModel, without=_OWN)
def categorical_mixture(
    event_shape: EventShape,
    num_components: int = 8,
    *,
    num_levels: int,
    missing: bool = False,
    **options: Any,
) -> MixtureModel:
    """Make a mixture of tables: elements are independent given the component (latent classes).

    Args:
        event_shape: Sizes of one data point, ``(D,)`` or ``(C, H, W)``.
        num_components: Number of components.
        num_levels: Levels of each element.
        missing: Whether data may have missing elements, NaN.
        options: Others, as for :class:`~pyro_genmodels.models.MixtureModel`.

    Returns:
        The mixture; ``model.conditional`` is the :class:`~pyro_genmodels.models.CategoricalModel`.

    Example:
        >>> categorical_mixture((1, 8, 8), 10, num_levels=17).sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    check_positive(num_components=num_components)
    parts = CategoricalModel(event_shape, num_levels, num_classes=num_components, missing=missing)
    return MixtureModel(parts, **options)


@takes_arguments_of(MixtureModel, without=_OWN)
def bernoulli_mixture(
    event_shape: EventShape, num_components: int = 8, *, missing: bool = False, **options: Any
) -> MixtureModel:
    """Make a mixture of independent Bernoulli variables, of binary data.

    Args:
        event_shape: Sizes of one data point, ``(D,)`` or ``(C, H, W)``.
        num_components: Number of components.
        missing: Whether data may have missing elements, NaN.
        options: Others, as for :class:`~pyro_genmodels.models.MixtureModel`.

    Returns:
        The mixture; ``model.conditional`` is the :class:`~pyro_genmodels.models.CategoricalModel`.

    Example:
        >>> bernoulli_mixture((5,), 3).sample(2).shape
        torch.Size([2, 5])
    """
    return categorical_mixture(
        event_shape, num_components, num_levels=2, missing=missing, **options
    )
