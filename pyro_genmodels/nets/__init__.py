"""."""

from pyro_genmodels.nets.context import ContextEmbedding
from pyro_genmodels.nets.dense import MLP

__all__ = [
    "MLP",
    "ContextEmbedding",
]
