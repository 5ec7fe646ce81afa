"""Third-party transforms: nflows, and densities by any transforms."""

from pyro_genmodels.transforms.interop.density import (
    FlowDensity,
    as_list,
    conditioned,
    forget,
    modules,
)
from pyro_genmodels.transforms.interop.ranges import is_real, settle_range

__all__ = [
    "FlowDensity",
    "as_list",
    "conditioned",
    "forget",
    "is_real",
    "modules",
    "settle_range",
]
