"""Data: embedded images, one's own, data sets on disk, and distributions with a known optimum."""

from pyro_genmodels.data.base.columns import Column, size_factors
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.exact_distribution import ExactDistribution
from pyro_genmodels.data.base.sampled import Sampled
from pyro_genmodels.data.datasets.digits import Digits
from pyro_genmodels.data.datasets.photos import Photos
from pyro_genmodels.data.datasets.vision import CIFAR10, MNIST, SVHN, FashionMNIST
from pyro_genmodels.data.exact.bars_and_stripes import BarsAndStripes
from pyro_genmodels.data.exact.gaussian import PPCA, GaussianTexture
from pyro_genmodels.data.exact.hidden_markov import HiddenMarkov
from pyro_genmodels.data.exact.ising import Ising
from pyro_genmodels.data.exact.logistic_field import LogisticField
from pyro_genmodels.data.exact.markov import MarkovChain
from pyro_genmodels.data.exact.mosaic import Mosaic
from pyro_genmodels.data.exact.plane import Checkerboard, EightGaussians
from pyro_genmodels.data.exact.sprites import Sprites
from pyro_genmodels.data.files.audio import Audio
from pyro_genmodels.data.files.codes import Codes
from pyro_genmodels.data.files.from_file import FromFile
from pyro_genmodels.data.files.in_memory import InMemory
from pyro_genmodels.data.files.opening import ACCEPTED, open_source, source_class
from pyro_genmodels.data.files.streamed import Streamed
from pyro_genmodels.data.files.text import Text
from pyro_genmodels.data.images.celeba import CelebA
from pyro_genmodels.data.images.image_folder import ImageFolder
from pyro_genmodels.data.mu_law import mu_law_decode, mu_law_encode
from pyro_genmodels.data.sequences import lengths, pad_sequences, with_lengths, with_mask

__all__ = [
    "ACCEPTED",
    "CIFAR10",
    "MNIST",
    "PPCA",
    "SVHN",
    "Audio",
    "BarsAndStripes",
    "CelebA",
    "Checkerboard",
    "Codes",
    "Column",
    "DataSource",
    "Digits",
    "EightGaussians",
    "ExactDistribution",
    "FashionMNIST",
    "FromFile",
    "GaussianTexture",
    "HiddenMarkov",
    "ImageFolder",
    "InMemory",
    "Ising",
    "LogisticField",
    "MarkovChain",
    "Mosaic",
    "Photos",
    "Sampled",
    "Sprites",
    "Streamed",
    "Text",
    "lengths",
    "mu_law_decode",
    "mu_law_encode",
    "open_source",
    "pad_sequences",
    "size_factors",
    "source_class",
    "with_lengths",
    "with_mask",
]
