"""Lossless compression with any discrete autoregressive distribution, and of images as codes.

Needs the ``compression`` extra (constriction).
"""

from pyro_genmodels.compression.format import Environment, Header, read_header
from pyro_genmodels.compression.images import (
    compress_codes,
    compress_images,
    decompress_codes,
    decompress_images,
    headers,
    ideal_bits,
)
from pyro_genmodels.compression.streams import compress, decompress, read, write

__all__ = [
    "Environment",
    "Header",
    "compress",
    "compress_codes",
    "compress_images",
    "decompress",
    "decompress_codes",
    "decompress_images",
    "headers",
    "ideal_bits",
    "read",
    "read_header",
    "write",
]
