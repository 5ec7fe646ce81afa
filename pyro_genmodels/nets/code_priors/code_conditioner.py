"""What the codes above say to a finer map: residual conditioning blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._checks import check, check_positive, check_trailing
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets.autoregressive.levels import LevelInput, image_shape
from pyro_genmodels.nets.layers.context import ContextEmbedding, add_features
from pyro_genmodels.nets.layers.residual import residual_blocks


class CodeConditioner(Configured, nn.Module):
    """Brings the maps of codes above, and a context, to a map of features at a finer size.

    Each map's codes look vectors up, which are repeated to the size wanted (nearest neighbour); a
    3x3 convolution and residual blocks follow. The features are the context of the finer map's
    autoregressive network.

    Args:
        above_shapes: Sizes of the maps above, from the top: ``(h, w)``, or ``(parts, h, w)``.
        num_codes: Number of values of a code, the same in all maps, or one for each.
        size: Height and width of the features.
        features: Number of features.
        embedding_size: Size of a code's vector.
        residual_channels: Channels inside a residual block.
        num_blocks: Residual blocks.
        num_classes: Condition on labels as well.
        context_shape: Condition on vectors or maps as well.

    Raises:
        ValueError: If a number is not positive, or there is no map above.

    References:
        Razavi et al. (2019), Generating diverse high-fidelity images with VQ-VAE-2, section 3.2.
        https://arxiv.org/abs/1906.00446

    Example:
        >>> conditioner = CodeConditioner([(4, 4)], 512, (8, 8), features=16)
        >>> conditioner([torch.zeros(3, 4, 4)]).shape
        torch.Size([3, 16, 8, 8])
    """

    def __init__(
        self,
        above_shapes: Sequence[Sequence[int]],
        num_codes: int | Sequence[int],
        size: Sequence[int],
        *,
        features: int = 32,
        embedding_size: int = 16,
        residual_channels: int = 32,
        num_blocks: int = 3,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive(features=features, embedding_size=embedding_size)
        check(len(above_shapes) > 0, "above_shapes", "have at least one map", list(above_shapes))
        number = len(above_shapes)
        codes = [num_codes] * number if isinstance(num_codes, int) else list(num_codes)
        check(len(codes) == number, "num_codes", f"be one, or {number}", len(codes))
        self.above_shapes = [torch.Size(shape) for shape in above_shapes]
        self.num_codes, self.size = codes, torch.Size(size)
        self.embeddings = nn.ModuleList(
            LevelInput(values, image_shape(shape)[0], embedding_size=embedding_size)
            for values, shape in zip(codes, self.above_shapes, strict=True)
        )
        channels = embedding_size * sum(image_shape(shape)[0] for shape in self.above_shapes)
        self.projection = nn.Conv2d(channels, features, 3, padding=1)
        self.context = ContextEmbedding(
            features, num_classes=num_classes, context_shape=context_shape
        )
        self.blocks = residual_blocks(features, residual_channels, num_blocks)

    @property
    def features_shape(self) -> torch.Size:
        """Sizes of the features: ``(features, height, width)``."""
        return torch.Size((self.projection.out_channels, *self.size))

    def forward(
        self, above: Sequence[Num[Tensor, ...]], context: Num[Tensor, ...] | None = None
    ) -> Float[Tensor, "*batch features height width"]:
        """Return the features.

        Args:
            above: Maps of codes from the top, each ``(*batch, *shape)``, of any dtype.
            context: Labels, vectors or maps, if declared; batch shapes broadcast.

        Raises:
            ValueError: If the maps are another number or of another shape.
        """
        number = len(self.above_shapes)
        check(len(above) == number, "above", f"be {number} maps", len(above))
        for codes, shape in zip(above, self.above_shapes, strict=True):
            check_trailing("above", codes, shape)
        maps = [(codes, len(shape)) for codes, shape in zip(above, self.above_shapes, strict=True)]
        return over_batch(self._features, *maps, (context, self.context.event_dim or 0))

    def _features(self, *inputs: Tensor | None) -> Tensor:
        *above, context = inputs
        looked_up = [
            F.interpolate(embed(codes if codes.dim() == 4 else codes[:, None]), tuple(self.size))
            for embed, codes in zip(self.embeddings, above, strict=True)
            if codes is not None
        ]
        h = self.projection(torch.cat(looked_up, 1))
        return self.blocks(add_features(h, self.context(context)))
