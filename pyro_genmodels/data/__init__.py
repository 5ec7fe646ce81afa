"""Data: embedded images, one's own, data sets on disk, and distributions with a known optimum."""

from pyro_genmodels.data._base import DataSource
from pyro_genmodels.data._exact import ExactDistribution
from pyro_genmodels.data.bars_and_stripes import BarsAndStripes
from pyro_genmodels.data.digits import Digits
from pyro_genmodels.data.gaussian import PPCA, GaussianTexture
from pyro_genmodels.data.ising import Ising
from pyro_genmodels.data.logistic_field import LogisticField
from pyro_genmodels.data.mosaic import Mosaic
from pyro_genmodels.data.plane import Checkerboard, EightGaussians
from pyro_genmodels.data.sampled import Sampled
from pyro_genmodels.data.sprites import Sprites

__all__ = [
    "PPCA",
    "BarsAndStripes",
    "Checkerboard",
    "DataSource",
    "Digits",
    "EightGaussians",
    "ExactDistribution",
    "GaussianTexture",
    "Ising",
    "LogisticField",
    "Mosaic",
    "Sampled",
    "Sprites",
]
