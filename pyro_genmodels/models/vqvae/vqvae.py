"""VQ-VAE: an autoencoder whose latents are a map of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

from torch import nn

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.likelihoods.elementwise import Likelihood, LikelihoodName
from pyro_genmodels.models.vqvae.code_maps import CODE_DIM, COMMITMENT, NUM_CODES, make_quantizer
from pyro_genmodels.models.vqvae.code_priors import CodePrior
from pyro_genmodels.models.vqvae.single_map import OneMapModel
from pyro_genmodels.nets import (
    MapDecoder,
    MapEncoder,
    PatchDecoder,
    PatchEncoder,
    Quantizer,
)

NetworkName = Literal["conv", "patch"]


class VQVAE(OneMapModel):
    r"""Vector-quantised variational autoencoder over images of any size.

    .. math:: c \sim p(c), \quad x \sim p(x \mid f(e_c)), \quad
        q(c \mid x) = \delta\bigl(c - \arg\min_k |z(x) - e_k|\bigr)

    Trained on :math:`-\log p(x \mid f(e_c)) - \log p(c)` plus commitment (and codebook) loss, with
    the gradient passed straight through the quantiser. The ELBO without those losses is a bound:
    under the uniform prior a code costs exactly :math:`\log K` nats.

    The networks see discrete data scaled to [-1, 1], continuous data as they are. Sizes that
    ``reduction`` does not divide are padded by repetition, and cropped again.

    Args:
        event_shape: Sizes of one image, ``(C, H, W)``.
        num_levels: Number of data levels, ``None`` for continuous data.
        num_codes: Number K of codes.
        code_dim: Size D of a code's vector.
        network: ``"conv"``, strided convolutions that see beyond what a code stands for; or
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
        commitment: Weight of the commitment loss.
        quantizer: Own quantiser, for other codebooks, or several codes a position; ``num_codes``,
            ``code_dim`` and ``commitment`` are then its.
        encoder: Own network: data (and context) to ``(*batch, code_dim, h, w)``.
        decoder: Own network: ``(*batch, code_dim, h, w)`` (and context) to
            ``(*batch, *likelihood.parameter_shape)``.
        prior: Law of the code map, uniform by default.
        likelihood: Name of the likelihood, or one; ``"auto"`` goes by ``num_levels``.
        num_classes: Condition encoder, decoder and prior on labels.
        context_shape: Condition them on vectors or maps.

    Attributes:
        prior: Law of the code map; assign a learned one once the codes are.

    Raises:
        ValueError: If an argument is out of range, or parts do not fit each other.

    References:
        van den Oord et al. (2017), Neural discrete representation learning.
        https://arxiv.org/abs/1711.00937. Networks and averages as in Sonnet's example.

    Example:
        >>> import torch
        >>> vqvae = VQVAE((1, 8, 8), num_levels=17, num_codes=32)
        >>> x = torch.zeros(3, 1, 8, 8)
        >>> vqvae.encode_codes(x).shape, vqvae.reconstruct(x).shape, vqvae.sample(4).shape
        (torch.Size([3, 2, 2]), torch.Size([3, 1, 8, 8]), torch.Size([4, 1, 8, 8]))
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"learning_rate": 1e-3})

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None = None,
        num_codes: int = NUM_CODES,
        code_dim: int = CODE_DIM,
        network: NetworkName = "conv",
        reduction: int = 4,
        hidden_channels: int = 128,
        residual_channels: int = 32,
        num_blocks: int = 2,
        strided_channels: Sequence[int] | None = None,
        projection: bool = True,
        commitment: float = COMMITMENT,
        quantizer: Quantizer | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: CodePrior | None = None,
        likelihood: LikelihoodName | Likelihood = "auto",
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            event_shape,
            num_levels=num_levels,
            likelihood=likelihood,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        self.reduction = reduction
        self.quantizer = make_quantizer(
            quantizer, num_codes=num_codes, code_dim=code_dim, commitment=commitment
        )
        check_choice("network", network, get_args(NetworkName))
        patches = network == "patch"
        layers = _patches if patches else _halvings
        options: dict[str, Any] = {
            **layers(reduction, hidden_channels, strided_channels),
            "hidden_channels": hidden_channels,
            "residual_channels": residual_channels,
            "num_blocks": num_blocks,
            "num_classes": num_classes,
            "context_shape": context_shape,
        }
        channels, dim = self.event_shape[0], self.quantizer.dim
        outputs = self.likelihood.parameter_shape[0]
        # Not `encoder or`: a network without layers counts as false.
        if encoder is None and patches:
            encoder = PatchEncoder(channels, dim, **options)
        elif encoder is None:
            encoder = MapEncoder(channels, dim, projection=projection, **options)
        if decoder is None:
            decoder = (PatchDecoder if patches else MapDecoder)(dim, outputs, **options)
        self.encoder, self.decoder = encoder, decoder
        self._make_prior(prior)

    @classmethod
    def paper(
        cls,
        event_shape: EventShape = (3, 128, 128),
        *,
        num_levels: int | None = 256,
        likelihood: LikelihoodName | Likelihood = "auto",
    ) -> VQVAE:
        """Make the paper's networks: 256 hidden units, 128x128 images to 32x32 of 512 codes.

        Two strided 4x4 convolutions and two residual blocks, all of 256 channels, without the 3x3
        convolution that Sonnet's encoder has; codes of size 64.
        """
        return cls(
            event_shape,
            num_levels=num_levels,
            likelihood=likelihood,
            hidden_channels=256,
            residual_channels=256,
            strided_channels=(256, 256),
            projection=False,
        )


def halving_channels(reduction: int, hidden_channels: int) -> tuple[int, ...]:
    """Return the channels after each halving of the sizes, half as many after the first.

    Raises:
        ValueError: If ``reduction`` is no power of two.
    """
    halvings = reduction.bit_length() - 1
    check(reduction >= 1 and 2**halvings == reduction, "reduction", "be a power of two", reduction)
    return (hidden_channels // 2, *[hidden_channels] * (halvings - 1))[:halvings]


def _halvings(
    reduction: int, hidden_channels: int, strided_channels: Sequence[int] | None
) -> dict[str, Any]:
    """Return the channels after each halving, those given or the usual ones."""
    usual = halving_channels(reduction, hidden_channels)
    if strided_channels is None:
        return {"strided_channels": usual}
    rule = f"have {len(usual)} entries for a reduction of {reduction}"
    check(len(strided_channels) == len(usual), "strided_channels", rule, list(strided_channels))
    return {"strided_channels": tuple(strided_channels)}


def _patches(
    reduction: int, hidden_channels: int, strided_channels: Sequence[int] | None
) -> dict[str, Any]:
    check_positive(reduction=reduction)
    check(strided_channels is None, "strided_channels", "be None with patches", strided_channels)
    return {"patch_size": reduction}
