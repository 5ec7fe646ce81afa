"""Pictures of a run: samples, reconstructions beside their originals, chains, learning curves.

Needs the ``train`` extra (matplotlib). Files are replaced whole, never half written.
"""

from pyro_genmodels.plotting.curves import save_curves, save_rates
from pyro_genmodels.plotting.pictures import (
    save_reconstructions,
    save_samples,
    save_trajectory,
    save_traversals,
)
from pyro_genmodels.plotting.pixels import image_grid, to_pixels

__all__ = [
    "image_grid",
    "save_curves",
    "save_rates",
    "save_reconstructions",
    "save_samples",
    "save_trajectory",
    "save_traversals",
    "to_pixels",
]
