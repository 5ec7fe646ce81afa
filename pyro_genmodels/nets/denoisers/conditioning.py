"""How noise level and context enter a denoiser."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._batching import broadcast_batch, over_batch
from pyro_genmodels._checks import check
from pyro_genmodels._typing import Bool, Float, Num
from pyro_genmodels.nets.denoisers.base import Denoiser
from pyro_genmodels.nets.layers.context import ContextEmbedding, context_event_dim
from pyro_genmodels.nets.layers.precision import full_precision


class LevelEmbedding(nn.Module):
    r"""Features of a noise level: sines and cosines, then a network of two layers.

    The sinusoids have angular frequencies from 1000 down to 0.1 per unit of the level, as those of
    1000 integer steps in DDPM, so that levels a thousandth apart differ.

    Args:
        sinusoids: Number of sinusoids, half of them sines.
        features: Number of features to make.

    References:
        Ho et al. (2020), Denoising diffusion probabilistic models, appendix B.
        https://arxiv.org/abs/2006.11239

    Example:
        >>> LevelEmbedding(8, 16)(torch.rand(5)).shape
        torch.Size([5, 16])
    """

    def __init__(self, sinusoids: int, features: int) -> None:
        super().__init__()
        self.num_frequencies = sinusoids // 2
        self.first = nn.Linear(2 * self.num_frequencies, features)
        self.second = nn.Linear(features, features)

    def forward(self, level: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch features"]:
        """Return the features of levels from 0 to 1."""
        # In half precision, which counts levels near 1 by .004, neighbouring ones would be one.
        with full_precision(level):
            level = level.to(torch.promote_types(level.dtype, torch.float32))
            count = self.num_frequencies
            index = torch.arange(count, device=level.device, dtype=level.dtype)
            frequencies = 1000 * (index * (-math.log(1e4) / max(count - 1, 1))).exp()
            angles = level[..., None] * frequencies
            h = torch.cat([angles.sin(), angles.cos()], -1).to(self.first.weight.dtype)
            return cast(Tensor, self.second(F.silu(self.first(h))))


class ConditionedDenoiser(Denoiser, Abstract):
    """Base of denoisers that embed level and context, and evaluate one batch dimension.

    Levels, labels and vectors become one vector per example, sequences and maps become feature
    maps of the input's size. A subclass writes :meth:`_evaluate`.

    Args:
        input_shape: Sizes of one input; -1 stands for any size.
        output_shape: Sizes of one output.
        sinusoids: Number of sinusoids of a level.
        features: Number of features of a level, a label or a vector.
        channels: Number of channels of a sequence's or a map's features.
        num_classes: Condition on labels.
        context_shape: Condition on vectors, sequences or maps.
        null_context: Learn an embedding that takes the context's place.
        ranks: Ranks that ``context_shape`` may have.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        *,
        sinusoids: int,
        features: int,
        channels: int,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
        null_context: bool,
        ranks: Iterable[int],
    ) -> None:
        rank = context_event_dim(num_classes, context_shape, ranks)
        super().__init__(
            input_shape,
            output_shape,
            num_classes=num_classes,
            context_shape=context_shape,
            null_context=null_context,
        )
        self.level = LevelEmbedding(sinusoids, features)
        self.context = ContextEmbedding(
            channels if rank is not None and rank > 1 else features,
            num_classes=num_classes,
            context_shape=context_shape,
            ranks=ranks,
        )
        self.null = nn.Parameter(torch.zeros(self.context.features)) if null_context else None

    @property
    def context_event_dim(self) -> int | None:
        """Rank of one context (label 0, vector 1, sequence 2, map 3); ``None`` if there is none."""
        return self.context.event_dim

    def forward(
        self,
        z: Float[Tensor, "*batch_event"],
        level: Float[Tensor, "*levels"],
        context: Num[Tensor, "*context"] | None = None,
        *,
        keep: Bool[Tensor, "*keep"] | None = None,
    ) -> Float[Tensor, "*output"]:
        """Return the prediction for noisy data, as described for :meth:`Denoiser.forward`."""
        rank = len(self.input_shape)
        features, *sizes = self.input_shape
        fits = z.dim() >= rank and z.shape[z.dim() - rank] == features
        names = {1: "", 2: " L", 3: " H, W"}[rank]
        rule = f"have trailing shape ({features},{names})"
        check(fits, "z", rule, f"shape {tuple(z.shape)}")
        found = self._context_features(context, keep, z.shape[z.dim() - len(sizes) :])
        embedding, maps = self.level(level), None
        if found is not None and self.context.features_event_dim == 1:
            broadcast_batch((embedding, 1), (found, 1))  # or a clear error
            embedding = embedding + found
        else:
            maps = found
        return over_batch(self._evaluate, (z, rank), (F.silu(embedding), 1), (maps, rank))

    def _context_features(
        self, context: Tensor | None, keep: Tensor | None, sizes: Sequence[int]
    ) -> Tensor | None:
        """Return the features of the context, or the null context's where it is not kept."""
        if self.null is None:
            check(keep is None, "keep", "be None where null_context is False", "a tensor")
            return self.context(context, sizes)
        rank = self.context.features_event_dim
        null = self.null if rank == 1 else self.null.view(-1, *[1] * len(sizes)).expand(-1, *sizes)
        found = null if context is None else self.context(context, sizes)
        if keep is None:
            return found
        check(keep.dtype == torch.bool, "keep", "be Boolean", f"dtype {keep.dtype}")
        broadcast_batch((found, rank), (keep, 0))  # or a clear error
        return torch.where(keep.reshape(*keep.shape, *[1] * rank), found, null)

    @abstractmethod
    def _evaluate(self, z: Tensor, embedding: Tensor, maps: Tensor | None) -> Tensor:
        """Return the output for one batch dimension.

        Args:
            z: Noisy data ``(N, *input_shape)``.
            embedding: Features of level, label and vector ``(N, features)``, activated.
            maps: Features of a sequence or map ``(N, channels, *sizes)``, if there is one.
        """
