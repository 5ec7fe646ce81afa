"""Kinds and sizes of the networks around a quantiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, get_args

from torch import nn

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels.nets import (
    MapDecoder,
    MapEncoder,
    PatchDecoder,
    PatchEncoder,
    SequenceDecoder,
    SequenceEncoder,
)

NetworkName = Literal["conv", "patch"]


@dataclass(frozen=True)
class VQVAENetwork(ArgumentGroup):
    """Kind and sizes of the encoder and decoder of a :class:`VQVAE`.

    Args:
        kind: ``"conv"``, strided convolutions that see beyond what a code stands for; or
            ``"patch"``, each code made of its patch alone, and each patch of its code: equal
            patches have equal codes.
        reduction: Pixels a code stands for along either axis, for ``"conv"`` a power of two.
        hidden_channels: Channels of the residual blocks.
        residual_channels: Channels inside a residual block.
        num_blocks: Residual blocks in encoder and decoder each.
        strided_channels: Channels after each halving of the sizes; by default ``hidden_channels``,
            and half as many after the first. Patches have none.
        projection: Whether a 3x3 convolution leads to the encoder's blocks, as in Sonnet's code;
            never to those of patches.

    Raises:
        ValueError: If there is no such kind, ``reduction`` is not possible for it, or the strided
            channels do not fit it.

    Example:
        >>> from pyro_genmodels.models import VQVAE
        >>> vqvae = VQVAE((1, 8, 8), network=VQVAENetwork("patch", reduction=2, num_blocks=1))
        >>> vqvae.prior.code_shape
        torch.Size([4, 4])
    """

    kind: NetworkName = "conv"
    _: KW_ONLY
    reduction: int = 4
    hidden_channels: int = 128
    residual_channels: int = 32
    num_blocks: int = 2
    strided_channels: Sequence[int] | None = None
    projection: bool = True

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a field is out of range, or two do not fit each other."""
        super().__post_init__()
        check_choice("network", self.kind, get_args(NetworkName))
        given = self.strided_channels
        if self.kind == "patch":
            check_positive(reduction=self.reduction)
            check(given is None, "strided_channels", "be None with patches", given)
        else:
            usual = halving_channels(self.reduction, self.hidden_channels)
            rule = f"have {len(usual)} entries for a reduction of {self.reduction}"
            fits = given is None or len(given) == len(usual)
            check(fits, "strided_channels", rule, given)

    def encoder(self, channels: int, dim: int, **context: Any) -> nn.Module:
        """Make the network from images to maps ``(*batch, dim, h, w)``."""
        if self.kind == "patch":
            return PatchEncoder(channels, dim, **self._sizes, **context)
        return MapEncoder(channels, dim, projection=self.projection, **self._sizes, **context)

    def decoder(self, dim: int, outputs: int, **context: Any) -> nn.Module:
        """Make the network from maps ``(*batch, dim, h, w)`` to the likelihood's parameters."""
        kind = PatchDecoder if self.kind == "patch" else MapDecoder
        return kind(dim, outputs, **self._sizes, **context)

    @property
    def _sizes(self) -> dict[str, Any]:
        shared = block_sizes(self)
        if self.kind == "patch":
            return {"patch_size": self.reduction, **shared}
        usual = halving_channels(self.reduction, self.hidden_channels)
        given = self.strided_channels
        return {"strided_channels": usual if given is None else tuple(given), **shared}


@dataclass(frozen=True)
class VQVAE2Network(ArgumentGroup):
    """Sizes of the encoders and decoders of a :class:`VQVAE2`.

    Args:
        reduction: Pixels a code of the finest map stands for along either axis, a power of two.
        hidden_channels: Channels of the residual blocks; half as many after a first halving.
        residual_channels: Channels inside a residual block.
        num_blocks: Residual blocks in each encoder and decoder.

    Raises:
        ValueError: If ``reduction`` is not a power of two.
    """

    reduction: int = 4
    _: KW_ONLY
    hidden_channels: int = 128
    residual_channels: int = 32
    num_blocks: int = 2

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if the reduction is not possible."""
        super().__post_init__()
        halving_channels(self.reduction, self.hidden_channels)


@dataclass(frozen=True)
class SequenceVQVAENetwork(ArgumentGroup):
    """Sizes of the encoder and decoder of a :class:`SequenceVQVAE`.

    Args:
        reduction: Steps a code stands for, a power of two.
        hidden_channels: Channels of encoder and decoder.
        residual_channels: Channels inside a residual block.
        num_blocks: Residual blocks in encoder and decoder each.
        missing: Whether the ends of sequences may be missing, as NaN: the encoder sees zeros there,
            and in a second channel which steps were observed.
    """

    reduction: int = 64
    _: KW_ONLY
    hidden_channels: int = 128
    residual_channels: int = 32
    num_blocks: int = 2
    missing: bool = False

    def encoder(self, dim: int) -> nn.Module:
        """Make the network from sequences to ``(*batch, dim, t)``."""
        channels = {"in_channels": 2} if self.missing else {}
        return SequenceEncoder(dim, reduction=self.reduction, **block_sizes(self), **channels)

    def decoder(self, dim: int, outputs: int, **context: Any) -> nn.Module:
        """Make the network from ``(*batch, dim, t)`` to features for each step."""
        sizes = block_sizes(self)
        return SequenceDecoder(dim, outputs, reduction=self.reduction, **sizes, **context)


@dataclass(frozen=True)
class WaveNetSizes(ArgumentGroup):
    """Sizes of the WaveNet that decodes a :class:`SequenceVQVAE`.

    Args:
        channels: Channels of the residual stream.
        skip_channels: Channels of the skip connections.
        num_blocks: Blocks, each of which begins again at dilation 1.
        layers_per_block: Layers of such a block.
        dropout: Share of the input of each of its layers dropped, in training.
    """

    channels: int = 32
    _: KW_ONLY
    skip_channels: int = 64
    num_blocks: int = 2
    layers_per_block: int = 8
    dropout: float = 0.0


def block_sizes(network: VQVAENetwork | VQVAE2Network | SequenceVQVAENetwork) -> dict[str, Any]:
    """Return the sizes of the residual blocks."""
    names = ("hidden_channels", "residual_channels", "num_blocks")
    return {name: getattr(network, name) for name in names}


def halving_channels(reduction: int, hidden_channels: int) -> tuple[int, ...]:
    """Return the channels after each halving of the sizes, half as many after the first.

    Raises:
        ValueError: If ``reduction`` is not a power of two.
    """
    halvings = reduction.bit_length() - 1
    check(reduction >= 1 and 2**halvings == reduction, "reduction", "be a power of two", reduction)
    return (hidden_channels // 2, *[hidden_channels] * (halvings - 1))[:halvings]
