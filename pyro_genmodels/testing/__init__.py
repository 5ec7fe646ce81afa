"""The laws that every part of this package keeps, as functions to hold your own parts to.

Each ``check_...`` returns nothing or raises ``AssertionError`` with the measured figure, its bound
and where it was found. They take Pyro's and torch's parts as well as ours. Move parameters away
from their initial values first (:func:`randomize_parameters`): initialisations hide errors.

``testing.strategies`` has hypothesis strategies for shapes, data and contexts; it is loaded on
first use and needs the ``testing`` extra, the laws do not.

Example:
    >>> import torch
    >>> from pyro.distributions.transforms import affine_coupling
    >>> flow = randomize_parameters(affine_coupling(4).double())
    >>> x = torch.randn(5, 4, dtype=torch.float64)
    >>> check_inverse(flow, x)
    >>> check_log_det(flow, x)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pyro_genmodels.testing.autoregressive import (
    check_autoregressive,
    check_missing_suffix,
    check_receptive_field,
    dependencies,
    raster_field,
    raster_order,
)
from pyro_genmodels.testing.bounds import (
    check_bound_estimate,
    check_bounds,
    check_estimators_agree,
    check_evidence_normalized,
    check_exact_distribution,
    check_marginal,
    check_missing,
    check_model_sampler,
)
from pyro_genmodels.testing.distributions import (
    check_batch_shapes,
    check_context_validation,
    check_distribution,
    check_ends,
    check_expand,
    check_plates,
    check_validation,
    check_vmap,
)
from pyro_genmodels.testing.hand_over import (
    check_gradients_survive,
    check_no_stale_value,
    check_single_evaluation,
    flow_distribution,
)
from pyro_genmodels.testing.lifecycle import (
    check_any_batch_shape,
    check_copies,
    check_freezes,
    check_half_precision,
    check_model_shapes,
    check_no_stale_weights,
    check_standardization,
    check_trains,
)
from pyro_genmodels.testing.networks import (
    check_checkpointing,
    check_context_pair,
    check_denoiser,
    check_network,
)
from pyro_genmodels.testing.parameters import randomize_parameters
from pyro_genmodels.testing.report import tolerance
from pyro_genmodels.testing.sampling import (
    check_normalized,
    check_sampler,
    check_sampling_methods_agree,
    check_stein_identity,
    integer_range,
    log_table,
    outcomes,
)
from pyro_genmodels.testing.transforms import (
    check_closed_ends,
    check_inverse,
    check_inverse_module,
    check_log_det,
    check_precision,
    check_shapes,
    condition_number,
)

if TYPE_CHECKING:
    from pyro_genmodels.testing import strategies

__all__ = [
    "check_any_batch_shape",
    "check_autoregressive",
    "check_batch_shapes",
    "check_bound_estimate",
    "check_bounds",
    "check_checkpointing",
    "check_closed_ends",
    "check_context_pair",
    "check_context_validation",
    "check_copies",
    "check_denoiser",
    "check_distribution",
    "check_ends",
    "check_estimators_agree",
    "check_evidence_normalized",
    "check_exact_distribution",
    "check_expand",
    "check_freezes",
    "check_gradients_survive",
    "check_half_precision",
    "check_inverse",
    "check_inverse_module",
    "check_log_det",
    "check_marginal",
    "check_missing",
    "check_missing_suffix",
    "check_model_sampler",
    "check_model_shapes",
    "check_network",
    "check_no_stale_value",
    "check_no_stale_weights",
    "check_normalized",
    "check_plates",
    "check_precision",
    "check_receptive_field",
    "check_sampler",
    "check_sampling_methods_agree",
    "check_shapes",
    "check_single_evaluation",
    "check_standardization",
    "check_stein_identity",
    "check_trains",
    "check_validation",
    "check_vmap",
    "condition_number",
    "dependencies",
    "flow_distribution",
    "integer_range",
    "log_table",
    "outcomes",
    "randomize_parameters",
    "raster_field",
    "raster_order",
    "strategies",
    "tolerance",
]


def __getattr__(name: str) -> Any:
    if name == "strategies":  # needs an extra, which the laws do not
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
