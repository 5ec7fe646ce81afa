"""Mosaics: images that a vector quantiser can code without loss, with a known code prior."""

from __future__ import annotations

import math
import random

import torch

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import Float, Int, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution
from pyro_genmodels.data.exact.markov import continued, expected_entropy, random_table


class Mosaic(ExactDistribution):
    r"""A grid of tiles out of K fixed ones, which follow each other as a Markov chain.

    In raster order the first tile is uniform, each next one drawn by its predecessor's row of a
    transition matrix. Tiles and matrix are random but fixed by ``seed``. A quantiser with K codes
    reconstructs exactly, and its prior can reach the entropy of the chain.

    Args:
        grid: Tiles along either axis.
        tile_size: Height and width of a tile in pixels.
        num_codes: Number K of different tiles.
        num_levels: Grey levels.
        seed: Seed of tiles and transition matrix.
        validate_args: Whether values are checked.

    Attributes:
        tiles: The tiles ``(K, tile_size, tile_size)``.
        transition: Row-stochastic matrix ``(K, K)``.

    Raises:
        ValueError: If a number is not positive or there are not that many different tiles.

    Example:
        >>> mosaic = Mosaic()
        >>> image = mosaic.sample()
        >>> image.shape, mosaic.codes(image).shape
        (torch.Size([1, 16, 16]), torch.Size([4, 4]))
        >>> bool((mosaic.render(mosaic.codes(image)) == image).all())
        True
    """

    def __init__(
        self,
        grid: int = 4,
        *,
        tile_size: int = 4,
        num_codes: int = 8,
        num_levels: int = 2,
        seed: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        check_positive(grid=grid, tile_size=tile_size, num_codes=num_codes)
        check(num_levels >= 2, "num_levels", "be at least 2", num_levels)
        different = num_codes <= num_levels ** (tile_size**2) / 2
        check(different, "num_codes", "be at most half the number of possible tiles", num_codes)
        side = grid * tile_size
        super().__init__((1, side, side), num_levels=num_levels, validate_args=validate_args)
        self.grid, self.tile_size, self.num_codes = grid, tile_size, num_codes
        stream = random.Random(seed)
        self.tiles = _tiles(stream, num_codes, tile_size, num_levels)
        self.transition = random_table(stream, (num_codes, num_codes))

    def codes(self, value: Num[Tensor, "*batch 1 h w"]) -> Int[Tensor, "*batch r c"]:
        """Return the code of each tile, or -1 where there is no such tile."""
        size = self.tile_size
        parts = value.squeeze(-3).unfold(-2, size, size).unfold(-2, size, size)
        same = (parts.unsqueeze(-3) == self.tiles).flatten(-2).all(-1)
        return torch.where(same.any(-1), same.int().argmax(-1), -1)

    def render(self, codes: Int[Tensor, "*batch r c"]) -> Num[Tensor, "*batch 1 h w"]:
        """Return the image of a grid of codes."""
        parts = self.tiles[codes].transpose(-3, -2)
        return parts.reshape(*codes.shape[:-2], *self.event_shape).to(self.dtype)

    def draw(self, count: int) -> Num[Tensor, "{count} 1 h w"]:
        """Draw the chain of codes and lay the tiles."""
        first = torch.randint(self.num_codes, (count,), device=self.device)
        codes = [first, *continued(self.transition, [first], self.grid**2 - 1)]
        return self.render(torch.stack(codes, -1).reshape(count, self.grid, self.grid))

    def log_density(self, value: Num[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
        """Return the log-probability of the chain; minus infinity for a foreign tile."""
        codes = self.codes(value).flatten(1)
        nats = self.transition.log()[codes[:, :-1], codes[:, 1:]].sum(1) - math.log(self.num_codes)
        return nats.where((codes >= 0).all(1), -math.inf)

    def entropy_nats(self) -> float:
        """Return the entropy by the chain rule: that of each transition, expected."""
        uniform = torch.full_like(self.transition[0], 1 / self.num_codes)
        following = expected_entropy(self.transition, uniform, self.grid**2 - 1)
        return math.log(self.num_codes) + following


def _tiles(stream: random.Random, count: int, size: int, num_levels: int) -> Tensor:
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[tuple(int(stream.random() * num_levels) for _ in range(size**2))] = None
    return torch.tensor(list(found)).reshape(count, size, size)
