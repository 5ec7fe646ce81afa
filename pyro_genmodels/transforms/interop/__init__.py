"""Third-party transforms: nflows, and densities by any transforms."""

from pyro_genmodels.transforms.interop.density import (
    FlowDensity,
    as_list,
    conditioned,
    forget,
    modules,
)

__all__ = [
    "FlowDensity",
    "as_list",
    "conditioned",
    "forget",
    "modules",
]
