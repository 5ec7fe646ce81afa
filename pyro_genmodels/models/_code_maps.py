"""Between feature maps and maps of codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch

from pyro_genmodels._typing import Float, Int, Num, Tensor
from pyro_genmodels.nets import Quantized, Quantizer


def quantize_map(
    quantizer: Quantizer, features: Float[Tensor, "*batch D h w"], update: bool
) -> tuple[Quantized, Float[Tensor, "*batch D h w"]]:
    """Quantise a map; the second value is its quantised vectors as a map."""
    quantized: Quantized = quantizer(features.movedim(-3, -1), update=update)
    return quantized, quantized.values.movedim(-1, -3)


def map_shape(
    quantizer: Quantizer, event_shape: Sequence[int], reduction: int, *, scale: int = 1
) -> torch.Size:
    """Sizes of a code map: so much smaller than the image, rounded up, then so much larger."""
    sizes = [math.ceil(size / reduction) * scale for size in event_shape[-2:]]
    return torch.Size((*quantizer.code_shape, *sizes))


def exactly(codes: Int[Tensor, "*codes"], like: Num[Tensor, "*event"]) -> Any:
    """Return the deterministic posterior: all mass, log-probability zero, on these codes."""
    batch = codes.shape[: like.dim() - 3]
    log_density = torch.zeros(batch, dtype=like.dtype, device=like.device)
    return dist.Delta(codes, log_density, event_dim=codes.dim() - len(batch))
