"""Data: embedded images, one's own, data sets on disk, and distributions with a known optimum."""

from pyro_genmodels.data._base import DataSource
from pyro_genmodels.data.digits import Digits

__all__ = [
    "DataSource",
    "Digits",
]
