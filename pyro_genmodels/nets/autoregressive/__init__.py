"""Base of the autoregressive networks: levels, orders, incremental evaluation."""

from pyro_genmodels.nets.autoregressive.base import (
    IncrementalEvaluation,
    WholeEvaluation,
    raster_indices,
)
from pyro_genmodels.nets.autoregressive.levels import LevelInput, image_shape
from pyro_genmodels.nets.autoregressive.multiscale import small_shape

__all__ = [
    "IncrementalEvaluation",
    "LevelInput",
    "WholeEvaluation",
    "image_shape",
    "raster_indices",
    "small_shape",
]
