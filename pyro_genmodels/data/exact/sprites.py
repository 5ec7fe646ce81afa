"""Sprites: binary images of one shape, drawn from known independent factors."""

from __future__ import annotations

import functools
import math
from typing import ClassVar, NamedTuple

import torch

from pyro_genmodels._checks import check, check_choice, check_trailing, integers_checked
from pyro_genmodels._typing import Bool, Float, Int, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution


class _Design(NamedTuple):
    scales: tuple[float, ...]
    angles: int
    places: int  # along either axis


_DESIGNS = {
    16: _Design((3, 4), 8, 9),
    32: _Design((5, 7, 9), 12, 12),
    64: _Design((6, 7.2, 8.4, 9.6, 10.8, 12), 40, 8),
}
_WORD = 64  # pixels packed in one int64


class Sprites(ExactDistribution):
    r"""A white square, ellipse or heart on black, at some scale, angle and place.

    All factors are independent and uniform. Different factors can give the same picture (a square
    looks the same after a quarter turn, small shifts vanish in pixels), about one bit of it, so
    the law of the *images* is found by drawing them all: its entropy is below the logarithm of
    the number of factors. :attr:`factors` and :meth:`render` serve measures of disentanglement.

    Args:
        size: Height and width: 16, 32 or 64 pixels (64 takes some seconds to set up).
        validate_args: Whether values are checked.

    Raises:
        ValueError: If there is no such size.

    References:
        Matthey et al. (2017), dSprites; Higgins et al. (2017), beta-VAE. Here redrawn from
        formulas, smaller.

    Example:
        >>> sprites = Sprites(16)
        >>> len(sprites.factors), sprites.num_images
        (3888, 2124)
        >>> round(sprites.entropy().item() / math.log(2), 5)
        10.85074
        >>> image = sprites.render(torch.tensor([2, 1, 0, 4, 4]))  # a large upright heart
        >>> image.shape
        torch.Size([1, 16, 16])
    """

    factor_names: ClassVar[tuple[str, ...]] = ("shape", "scale", "angle", "y", "x")

    def __init__(self, size: int = 16, *, validate_args: bool | None = None) -> None:
        check_choice("size", size, tuple(_DESIGNS))
        super().__init__((1, size, size), num_levels=2, validate_args=validate_args)
        scales, angles, places = _DESIGNS[size]
        self.size = size
        self.factor_sizes = (3, len(scales), angles, places, places)
        self._images, self._image_of, self._counts = _all_images(size)
        self._keys, self._order = _hashed(self._images).sort()

    @property
    def num_images(self) -> int:
        """Number of different images."""
        return len(self._counts)

    @property
    def factors(self) -> Int[Tensor, "f 5"]:
        """Every combination of the factors, as indices in the order of ``factor_names``."""
        ranges = [torch.arange(n, device=self.device) for n in self.factor_sizes]
        return torch.cartesian_prod(*ranges)

    def render(self, factors: Int[Tensor, "*batch factors"]) -> Num[Tensor, "*batch 1 h w"]:
        """Draw the images of given factors.

        Raises:
            ValueError: If a factor is out of its range.
        """
        check_trailing("factors", factors, (len(self.factor_sizes),))
        sizes = torch.tensor(self.factor_sizes, device=self.device)
        inside = ((factors >= 0) & (factors < sizes)).all()
        check(bool(inside), "factors", f"lie below {self.factor_sizes}", "others")
        image_of = self._image_of.reshape(self.factor_sizes)
        return self._unpacked(image_of[factors.long().unbind(-1)]).to(self.dtype)

    @integers_checked
    def sample_factors(self, count: int) -> Int[Tensor, "{count} 5"]:
        """Draw factors; :meth:`render` makes their images, distributed as :meth:`sample`'s."""
        columns = [torch.randint(n, (count,), device=self.device) for n in self.factor_sizes]
        return torch.stack(columns, -1)

    def draw(self, count: int) -> Num[Tensor, "{count} 1 h w"]:
        """Draw uniform factors and render them."""
        chosen = torch.randint(len(self._image_of), (count,), device=self.device)
        return self._unpacked(self._image_of[chosen])

    def log_density(self, value: Num[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
        """Return each image's log-probability; minus infinity if it is no sprite."""
        packed = _packed(value.flatten(1) > 0.5)
        found = torch.searchsorted(self._keys, _hashed(packed)).clamp(max=self.num_images - 1)
        image = self._order[found]
        nats = (self._counts[image].double() / len(self._image_of)).log()
        # The hash only proposes: equality is decided on the pixels themselves.
        return nats.where((self._images[image] == packed).all(-1), -math.inf)

    def entropy_nats(self) -> float:
        """Return the entropy of the image law, by enumeration."""
        return float(torch.special.entr(self._counts.double() / len(self._image_of)).sum())

    def _unpacked(self, image: Tensor) -> Tensor:
        bits = torch.arange(_WORD, device=self.device)
        pixels = (self._images[image].unsqueeze(-1) >> bits) & 1
        return pixels.reshape(*image.shape, *self.event_shape)


@functools.lru_cache(maxsize=3)
def _all_images(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct images (packed), the image of every factor combination, and how many each has."""
    scales, angles, _ = _DESIGNS[size]
    blocks = [
        _packed(_sprite(shape, scale, 2 * math.pi * turn / angles, size).flatten(1))
        for shape in range(3)
        for scale in scales
        for turn in range(angles)
    ]
    images, image_of, counts = torch.unique(
        torch.cat(blocks), dim=0, return_inverse=True, return_counts=True
    )
    return images, image_of, counts


def _sprite(shape: int, scale: float, angle: float, size: int) -> Bool[Tensor, "n h w"]:
    """Rasterise one shape at every place: pixels whose centre is inside, borders included."""
    # On the CPU in float64, operation by operation: where a border runs through pixel centres
    # (sizes 32 and 64) rounding decides, and a fused multiply-add would decide otherwise.
    float64 = torch.float64
    margin, places = max(_DESIGNS[size].scales), _DESIGNS[size].places
    centres = torch.linspace(margin, size - margin, places, dtype=float64, device="cpu")
    pixels = torch.arange(size, dtype=float64, device="cpu") + 0.5
    offset = pixels - centres[:, None]
    right, down = offset[None, :, None, :], offset[:, None, :, None]
    u = math.cos(angle) * right + math.sin(angle) * down
    v = -math.sin(angle) * right + math.cos(angle) * down
    return _inside(shape, u, v, scale).flatten(0, 1)


def _inside(shape: int, u: Tensor, v: Tensor, scale: float) -> Tensor:
    if shape == 0:  # square
        return torch.maximum(u.abs(), v.abs()) <= 0.7 * scale
    if shape == 1:  # ellipse
        return (u / scale) ** 2 + (v / (0.55 * scale)) ** 2 <= 1
    a, b = u / (0.8 * scale), -v / (0.8 * scale)  # heart
    return (a * a + b * b - 0.6) ** 3 - a * a * b**3 <= 0


def _packed(pixels: Bool[Tensor, "n pixels"]) -> Int[Tensor, "n words"]:
    """Pack each row of pixels into int64 words."""
    bits = torch.arange(_WORD, device=pixels.device)
    return (pixels.unflatten(-1, (-1, _WORD)).long() << bits).sum(-1)


def _hashed(words: Int[Tensor, "n words"]) -> Int[Tensor, " n"]:
    """Mix words into one, wrapping around as int64 does."""
    key = torch.zeros_like(words[:, 0])
    for word in words.unbind(-1):
        key = (key ^ word) * 6364136223846793005 + 1442695040888963407
        key = key ^ (key >> 29)
    return key
