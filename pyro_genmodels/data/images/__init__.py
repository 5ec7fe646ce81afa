"""Images on the user's disk: folders of files of any kind that Pillow reads, and CelebA."""

from pyro_genmodels.data.images.decoding import SUFFIXES, UNREADABLE

__all__ = [
    "SUFFIXES",
    "UNREADABLE",
]
