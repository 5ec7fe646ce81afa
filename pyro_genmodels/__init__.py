"""Likelihood-based deep generative models as Pyro parts.

The sub-packages load on first use, so that importing the package (and the command line's
``--help``) costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pyro_genmodels._version import __version__

if TYPE_CHECKING:
    from pyro_genmodels import (
        compression,
        data,
        distributions,
        metrics,
        models,
        nets,
        optim,
        training,
        transforms,
    )
    from pyro_genmodels.training import load

_SUBMODULES = frozenset(
    {
        "compression",
        "data",
        "disentanglement",
        "distributions",
        "mcmc",
        "metrics",
        "models",
        "nets",
        "optim",
        "plotting",
    }
    | {"testing", "training", "transforms"}
)

__all__ = [
    "__version__",
    "compression",
    "data",
    "disentanglement",
    "distributions",
    "load",
    "mcmc",
    "metrics",
    "models",
    "nets",
    "optim",
    "training",
    "transforms",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "load":
        from pyro_genmodels.training import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
