"""Several quantisers as one: side by side, one after the other, or one for all heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import nn

from pyro_genmodels._checks import check, check_positive, check_trailing
from pyro_genmodels._typing import CodebookUpdate, Float, Num, Tensor
from pyro_genmodels.nets.vector_quantization.base import (
    Quantized,
    Quantizer,
    straight_through,
)


class _CompositeQuantizer(Quantizer):
    """A sequence of quantisers, whose codes stand side by side in a last dimension."""

    def __init__(self, parts: Sequence[Quantizer], dim: Callable[[list[int]], int]) -> None:
        check(len(parts) > 0, "parts", "hold at least one quantizer", parts)
        sizes = [part.num_codes for part in parts]
        check(len(set(sizes)) == 1, "parts", "have equally many codes each", sizes)
        widths = [part.code_shape.numel() for part in parts]
        super().__init__(dim([part.dim for part in parts]), sizes[0], sum(widths))
        self._widths = widths
        self.parts = nn.ModuleList(parts)

    @property
    def perplexity(self) -> Tensor:
        """The perplexity of each part."""
        return torch.cat([part.perplexity.reshape(-1) for part in self._parts])

    @property
    def usage(self) -> Tensor:
        """The usage of each part."""
        return torch.cat([part.usage.reshape(-1) for part in self._parts])

    @property
    def _parts(self) -> list[Quantizer]:
        return cast(list[Quantizer], list(self.parts))

    def _joined(self, codes: Sequence[Tensor]) -> Tensor:
        """Give one code each a dimension of its own, and put all side by side."""
        parts = zip(self._parts, codes, strict=True)
        return torch.cat([c if part.code_shape else c[..., None] for part, c in parts], -1)

    def _vectors(self, codes: Tensor) -> list[Tensor]:
        check_trailing("codes", codes, self.code_shape)
        pieces = zip(self._parts, codes.split(self._widths, -1), strict=True)
        return [part.lookup(c if part.code_shape else c[..., 0]) for part, c in pieces]


class ProductQuantizer(_CompositeQuantizer):
    """Quantises consecutive pieces of a vector, each by its own quantiser.

    Args:
        parts: The quantisers; ``dim`` is the sum of theirs.

    Raises:
        ValueError: If there is none, or their numbers of codes differ.

    References:
        Jegou et al. (2011), Product quantization for nearest neighbor search.

    Example:
        >>> from pyro_genmodels.nets import VectorQuantizer
        >>> quantizer = ProductQuantizer([VectorQuantizer(4, 16), VectorQuantizer(4, 16)])
        >>> quantizer(torch.randn(5, 8)).codes.shape
        torch.Size([5, 2])
    """

    def __init__(self, parts: Sequence[Quantizer]) -> None:
        super().__init__(parts, sum)

    def forward(self, z: Float[Tensor, "*batch D"], *, update: CodebookUpdate = None) -> Quantized:
        """Quantise each piece; the loss is the mean over all dimensions."""
        check_trailing("z", z, (self.dim,))
        pieces = zip(self._parts, z.split([part.dim for part in self._parts], -1), strict=True)
        made = [part(piece, update=update) for part, piece in pieces]
        values = torch.cat([each.values for each in made], -1)
        weighted = [m.loss * p.dim / self.dim for m, p in zip(made, self._parts, strict=True)]
        loss = torch.stack(weighted).sum(0)
        return Quantized(values, self._joined([m.codes for m in made]), loss)

    def lookup(self, codes: Num[Tensor, "*codes"]) -> Float[Tensor, "*vectors"]:
        """Return the pieces of the codes, side by side."""
        return torch.cat(self._vectors(codes), -1)


class ResidualQuantizer(_CompositeQuantizer):
    """Quantises a vector, then what is left of it, and so on: the result is the sum.

    Args:
        parts: The quantisers from coarse to fine, of one ``dim``.

    Raises:
        ValueError: If there is none, or their dims or numbers of codes differ.

    References:
        Zeghidour et al. (2021), SoundStream, section III-C, https://arxiv.org/abs/2107.03312. Lee
        et al. (2022), Autoregressive image generation using residual quantization.

    Example:
        >>> from pyro_genmodels.nets import VectorQuantizer
        >>> quantizer = ResidualQuantizer([VectorQuantizer(8, 16), VectorQuantizer(8, 16)])
        >>> quantizer(torch.randn(5, 8)).codes.shape
        torch.Size([5, 2])
    """

    def __init__(self, parts: Sequence[Quantizer]) -> None:
        dims = [part.dim for part in parts]
        check(len(set(dims)) <= 1, "parts", "have one and the same dim", dims)
        super().__init__(parts, lambda dims: dims[0])

    def forward(self, z: Float[Tensor, "*batch D"], *, update: CodebookUpdate = None) -> Quantized:
        """Quantise by all parts; the loss is the sum of theirs."""
        check_trailing("z", z, (self.dim,))
        rest, made = z, []
        for part in self._parts:
            made.append(part(rest, update=update))
            rest = rest - made[-1].values.detach()
        # One straight-through for all: theirs would add up to as many gradients as parts.
        values = straight_through(z, torch.stack([each.values for each in made]).sum(0))
        loss = torch.stack([each.loss for each in made]).sum(0)
        return Quantized(values, self._joined([each.codes for each in made]), loss)

    def lookup(self, codes: Num[Tensor, "*codes"]) -> Float[Tensor, "*vectors"]:
        """Return the sum of the parts' vectors."""
        return torch.stack(self._vectors(codes)).sum(0)


class MultiHeadQuantizer(Quantizer):
    """Quantises consecutive pieces of a vector by one and the same quantiser.

    Args:
        quantizer: The quantiser, with one code for each vector.
        num_heads: Number of pieces; ``dim`` is so many times the quantiser's.

    Raises:
        ValueError: If ``num_heads`` is not positive or the quantiser gives several codes.

    Example:
        >>> from pyro_genmodels.nets import VectorQuantizer
        >>> MultiHeadQuantizer(VectorQuantizer(4, 16), 3)(torch.randn(5, 12)).codes.shape
        torch.Size([5, 3])
    """

    def __init__(self, quantizer: Quantizer, num_heads: int) -> None:
        check_positive(num_heads=num_heads)
        rule = "give one code for each vector"
        check(quantizer.code_shape == (), "quantizer", rule, type(quantizer).__name__)
        super().__init__(quantizer.dim * num_heads, quantizer.num_codes, num_heads)
        self.quantizer = quantizer

    def forward(self, z: Float[Tensor, "*batch D"], *, update: CodebookUpdate = None) -> Quantized:
        """Quantise each piece; the loss is the mean over all dimensions."""
        check_trailing("z", z, (self.dim,))
        heads = z.unflatten(-1, (*self.code_shape, self.quantizer.dim))
        made = self.quantizer(heads, update=update)
        return Quantized(made.values.flatten(-2), made.codes, made.loss.mean(-1))

    def lookup(self, codes: Num[Tensor, "*codes"]) -> Float[Tensor, "*vectors"]:
        """Return the pieces of the codes, side by side."""
        check_trailing("codes", codes, self.code_shape)
        return self.quantizer.lookup(codes).flatten(-2)

    @property
    def perplexity(self) -> Tensor:
        """The shared quantiser's, for each head."""
        return self.quantizer.perplexity.expand(self.code_shape)

    @property
    def usage(self) -> Tensor:
        """The shared quantiser's, for each head."""
        return self.quantizer.usage.expand(self.code_shape)
