"""Layers that several families of networks are built of."""

from pyro_genmodels.nets.layers.checkpointing import checkpointed
from pyro_genmodels.nets.layers.context import (
    ContextEmbedding,
    check_context,
    check_finite_context,
    context_event_dim,
    context_event_shape,
    join_context,
    one_hot_context,
    split_context,
)
from pyro_genmodels.nets.layers.data_dependent_init import (
    FirstData,
    awaits_data,
    expect_no_data,
    is_frozen,
    set_values,
    standardizing,
)
from pyro_genmodels.nets.layers.derived_buffers import DerivedBuffers
from pyro_genmodels.nets.layers.distributed import sum_over_ranks
from pyro_genmodels.nets.layers.mlp import set_to_zero, vector_net
from pyro_genmodels.nets.layers.precision import FullPrecisionWeights, full_precision
from pyro_genmodels.nets.layers.residual import padded

__all__ = [
    "ContextEmbedding",
    "DerivedBuffers",
    "FirstData",
    "FullPrecisionWeights",
    "awaits_data",
    "check_context",
    "check_finite_context",
    "checkpointed",
    "context_event_dim",
    "context_event_shape",
    "expect_no_data",
    "full_precision",
    "is_frozen",
    "join_context",
    "one_hot_context",
    "padded",
    "set_to_zero",
    "set_values",
    "split_context",
    "standardizing",
    "sum_over_ranks",
    "vector_net",
]
