"""Between feature maps and maps of codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pyro.distributions as dist
import torch

from pyro_genmodels._checks import check
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels._typing import CodebookUpdate, Float, Int, Tensor
from pyro_genmodels.nets import Quantized, Quantizer, VectorQuantizer


@dataclass(frozen=True)
class Codebook(ArgumentGroup):
    """Sizes of a model's codebook, for a :class:`~pyro_genmodels.nets.VectorQuantizer`.

    Args:
        num_codes: Number K of codes.
        dim: Size D of a code's vector.
        commitment: Weight of the commitment loss.

    Raises:
        ValueError: As the quantiser, once it is made.

    Example:
        >>> from pyro_genmodels.models import VQVAE
        >>> VQVAE((1, 8, 8), codebook=Codebook(32, dim=16)).quantizer.dim
        16
    """

    num_codes: int = 512
    _: KW_ONLY
    dim: int = 64
    commitment: float = 0.25

    def quantizer(self) -> VectorQuantizer:
        """Make the quantiser."""
        return VectorQuantizer(self.dim, self.num_codes, commitment=self.commitment)

    def check_left_to(self, own: Sequence[Quantizer]) -> None:
        """Raise ``ValueError`` if this asks for what none of a caller's quantisers has.

        A default contradicts nothing: whether it was written cannot be known, and the command line
        writes them all.
        """
        for name, value in self.current_arguments().items():
            # Of a composite its parts', if it has none itself.
            with_it: list[Any] = [q for q in own if hasattr(q, name)]
            if not with_it:
                with_it = [part for q in own for part in q.modules() if hasattr(part, name)]
            found = list(dict.fromkeys(getattr(each, name) for each in with_it))
            rule = f"be left out, or the own quantizer's ({', '.join(map(str, found))})"
            default = getattr(type(self), name)
            check(not found or value in (default, *found), f"codebook.{name}", rule, value)


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
