"""The contract of a data source, and what sources share."""

from pyro_genmodels.data.base.items import as_event
from pyro_genmodels.data.base.pixels import with_bits

__all__ = [
    "as_event",
    "with_bits",
]
