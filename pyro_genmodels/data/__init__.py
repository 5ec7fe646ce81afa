"""Data: embedded images, one's own, data sets on disk, and distributions with a known optimum."""

from pyro_genmodels.data._base import DataSource
from pyro_genmodels.data._exact import ExactDistribution
from pyro_genmodels.data.bars_and_stripes import BarsAndStripes
from pyro_genmodels.data.codes import Codes
from pyro_genmodels.data.digits import Digits
from pyro_genmodels.data.folders import CelebA, ImageFolder
from pyro_genmodels.data.gaussian import PPCA, GaussianTexture
from pyro_genmodels.data.in_memory import FromFile, InMemory
from pyro_genmodels.data.ising import Ising
from pyro_genmodels.data.logistic_field import LogisticField
from pyro_genmodels.data.markov import MarkovChain
from pyro_genmodels.data.mosaic import Mosaic
from pyro_genmodels.data.mu_law import mu_law_decode, mu_law_encode
from pyro_genmodels.data.photos import Photos
from pyro_genmodels.data.plane import Checkerboard, EightGaussians
from pyro_genmodels.data.sampled import Sampled
from pyro_genmodels.data.sprites import Sprites
from pyro_genmodels.data.vision import CIFAR10, MNIST, SVHN, FashionMNIST

__all__ = [
    "CIFAR10",
    "MNIST",
    "PPCA",
    "SVHN",
    "BarsAndStripes",
    "CelebA",
    "Checkerboard",
    "Codes",
    "DataSource",
    "Digits",
    "EightGaussians",
    "ExactDistribution",
    "FashionMNIST",
    "FromFile",
    "GaussianTexture",
    "ImageFolder",
    "InMemory",
    "Ising",
    "LogisticField",
    "MarkovChain",
    "Mosaic",
    "Photos",
    "Sampled",
    "Sprites",
    "mu_law_decode",
    "mu_law_encode",
]
