"""Levels as the input of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check_event_shape, check_positive
from pyro_genmodels._typing import EventShape, Float, Num


def image_shape(event_shape: EventShape) -> torch.Size:
    """Return ``(C, H, W)`` of an image, ``(1, H, W)`` of a map ``(H, W)``.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> image_shape((4, 5))
        torch.Size([1, 4, 5])
    """
    is_map = isinstance(event_shape, list | tuple) and len(event_shape) == 2
    return check_event_shape((1, *event_shape) if is_map else event_shape, ranks=(3,))


class LevelInput(nn.Module):
    """Brings levels to [-1, 1], or looks up a vector for each level of each colour.

    Grey levels are numbers; codes are names, which only a look-up serves.

    Args:
        num_levels: Number of levels.
        num_groups: Number of colours.
        embedding_size: Size of the vectors; ``None`` for numbers.

    Shape:
        ``(batch, colours, H, W)`` to ``(batch, colours * size, H, W)``.
    """

    def __init__(
        self, num_levels: int, num_groups: int, *, embedding_size: int | None = None
    ) -> None:
        super().__init__()
        self.num_levels, self.num_groups, self.size = num_levels, num_groups, embedding_size or 1
        self.embed: nn.Embedding | None = None
        if embedding_size is not None:
            check_positive(embedding_size=embedding_size)
            self.embed = nn.Embedding(num_groups * num_levels, embedding_size)

    @property
    def channels(self) -> int:
        """Number of features of a pixel."""
        return self.num_groups * self.size

    def forward(self, x: Num[Tensor, "batch colours h w"]) -> Float[Tensor, "batch features h w"]:
        """Return the features."""
        if self.embed is None:
            return x * (2 / (self.num_levels - 1)) - 1
        first = self.num_levels * torch.arange(self.num_groups, device=x.device)
        rows: Tensor = self.embed(x.long() + first[:, None, None])
        return rows.movedim(-1, 2).flatten(1, 2)

    def write(self, level: Num[Tensor, " batch"], colour: int, out: Tensor) -> None:
        """Write one colour's features ``(batch, size)``."""
        if self.embed is None:
            out.copy_(level[:, None]).mul_(2 / (self.num_levels - 1)).sub_(1)
        else:
            out.copy_(self.embed(level.long() + colour * self.num_levels))
