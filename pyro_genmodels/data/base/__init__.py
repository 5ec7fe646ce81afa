"""The contract of a data source, and what sources share."""

from pyro_genmodels.data.base.items import as_event
from pyro_genmodels.data.base.pixels import with_bits
from pyro_genmodels.data.base.rows import Rows, chunks_of

__all__ = [
    "Rows",
    "as_event",
    "chunks_of",
    "with_bits",
]
