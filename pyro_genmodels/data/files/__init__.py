"""One's own data: arrays in memory, files, folders, codes."""

from pyro_genmodels.data.files.codes import MANIFEST, read_manifest

__all__ = [
    "MANIFEST",
    "read_manifest",
]
