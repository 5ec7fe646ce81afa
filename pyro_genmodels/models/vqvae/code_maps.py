"""Between feature maps and maps of codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch

from pyro_genmodels._checks import check
from pyro_genmodels._typing import CodebookUpdate, Float, Int, Tensor
from pyro_genmodels.nets import Quantized, Quantizer, VectorQuantizer

# Of a quantiser that is not given.
NUM_CODES, CODE_DIM, COMMITMENT = 512, 64, 0.25


def make_quantizer(
    own: Quantizer | None, *, num_codes: int, code_dim: int, commitment: float
) -> Quantizer:
    """Return the given quantiser once nothing contradicts it, or one of these sizes."""
    if own is None:
        return VectorQuantizer(code_dim, num_codes, commitment=commitment)
    check_left_to([own], num_codes=num_codes, code_dim=code_dim, commitment=commitment)
    return own


def check_left_to(
    own: Sequence[Quantizer], *, num_codes: int, code_dim: int, commitment: float
) -> None:
    """Raise ``ValueError`` if a model is to have what none of the given quantisers has.

    A default contradicts nothing: whether it was written cannot be told, and the command line
    writes them all.
    """
    given = {
        "num_codes": (num_codes, NUM_CODES, "num_codes"),
        "code_dim": (code_dim, CODE_DIM, "dim"),
        "commitment": (commitment, COMMITMENT, "commitment"),
    }
    for argument, (value, default, attribute) in given.items():
        # Of a composite its parts', if it has none itself.
        with_it: list[Any] = [q for q in own if hasattr(q, attribute)]
        if not with_it:
            with_it = [part for q in own for part in q.modules() if hasattr(part, attribute)]
        found = list(dict.fromkeys(getattr(each, attribute) for each in with_it))
        rule = f"be left out, or the own quantizer's ({', '.join(map(str, found))})"
        check(not found or value in (default, *found), argument, rule, value)


def quantize_map(
    quantizer: Quantizer,
    features: Float[Tensor, "*batch_map"],
    update: CodebookUpdate,
    *,
    rank: int = 2,
) -> tuple[Quantized, Float[Tensor, "*batch_map"]]:
    """Quantise a map ``(*batch, D, *sizes)`` of ``rank`` sizes; also return its vectors as one."""
    channels = -1 - rank
    quantized: Quantized = quantizer(features.movedim(channels, -1), update=update)
    return quantized, quantized.values.movedim(-1, channels)


def map_shape(
    quantizer: Quantizer,
    event_shape: Sequence[int],
    reduction: int,
    *,
    scale: int = 1,
    rank: int = 2,
) -> torch.Size:
    """Sizes of a code map: so much smaller than the data, rounded up, then so much larger."""
    sizes = [math.ceil(size / reduction) * scale for size in event_shape[-rank:]]
    return torch.Size((*quantizer.code_shape, *sizes))


def exactly(codes: Int[Tensor, "*codes"], like: Tensor, event_dim: int) -> Any:
    """Return the deterministic posterior: all mass, log-probability zero, on these codes.

    Its batch is theirs, which a context with more dimensions than the data's may have enlarged; an
    event has ``event_dim``. The log-probability is of the dtype of ``like``.
    """
    batch = codes.shape[: codes.dim() - event_dim]
    log_density = torch.zeros(batch, dtype=like.dtype, device=like.device)
    return dist.Delta(codes, log_density, event_dim=event_dim)
