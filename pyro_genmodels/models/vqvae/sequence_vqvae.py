"""VQ-VAE over sequences, such as audio: a shorter sequence of codes, and a WaveNet that decodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from pyro_genmodels._checks import check, check_event_shape
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.autoregressive.likelihood import AutoregressiveLikelihood
from pyro_genmodels.models.likelihoods.elementwise import Likelihood
from pyro_genmodels.models.vqvae.code_maps import CODE_DIM, COMMITMENT, NUM_CODES, make_quantizer
from pyro_genmodels.models.vqvae.code_priors import CodePrior
from pyro_genmodels.models.vqvae.single_map import OneMapModel
from pyro_genmodels.nets import (
    Quantizer,
    SequenceDecoder,
    SequenceEncoder,
    WaveNetNet,
)


class SequenceVQVAE(OneMapModel):
    r"""Vector-quantised variational autoencoder over sequences of levels.

    .. math:: c \sim p(c), \quad p(x \mid c) = \prod_t p(x_t \mid x_{<t}, f(e_c)_t), \quad
        q(c \mid x) = \delta\bigl(c - \arg\min_k |z(x) - e_k|\bigr)

    Each code stands for ``reduction`` steps. The likelihood is a WaveNet that sees the steps
    before, and at each step the features that the decoder makes of the codes there; so what the
    codes must carry is what a WaveNet would not guess. Trained as :class:`VQVAE` is.

    Only decoder and prior see a context, so that what is coded may be decoded under another one:
    one voice's words in another voice.

    Args:
        event_shape: Length of a sequence, ``(T,)``; one that ``reduction`` does not divide is
            padded by repetition, and cropped again.
        num_levels: Number of levels; for audio see :func:`~pyro_genmodels.data.mu_law_encode`.
        num_codes: Number K of codes.
        code_dim: Size D of a code's vector.
        reduction: Steps a code stands for, a power of two.
        hidden_channels: Channels of encoder and decoder.
        residual_channels: Channels inside a residual block.
        num_blocks: Residual blocks in encoder and decoder each.
        wavenet_channels: Channels of the WaveNet's residual stream.
        wavenet_skip_channels: Channels of its skip connections.
        wavenet_blocks: Its blocks, each of which begins again at dilation 1.
        wavenet_layers: Layers of such a block.
        dropout: Share of the input of each of its layers dropped, in training.
        commitment: Weight of the commitment loss.
        quantizer: Own quantiser, for other codebooks, or several codes a position; ``num_codes``,
            ``code_dim`` and ``commitment`` are then its.
        encoder: Own network: data to ``(*batch, code_dim, t)``.
        decoder: Own network: ``(*batch, code_dim, t)`` (and context) to
            ``(*batch, *likelihood.parameter_shape)``, or longer.
        prior: Law of the codes, uniform by default.
        likelihood: Own likelihood, whose parameters are features ``(C, T)``, in the WaveNet's
            place.
        num_classes: Condition decoder and prior on labels, such as the speaker.
        context_shape: Condition them on vectors ``(D,)`` or sequences ``(C, L)``.

    Attributes:
        prior: Law of the codes; assign a learned one once the codes are.

    Raises:
        ValueError: If an argument is out of range, or parts do not fit each other.

    References:
        van den Oord et al. (2017), Neural discrete representation learning, section 4.3.
        https://arxiv.org/abs/1711.00937

    Example:
        >>> import torch
        >>> vqvae = SequenceVQVAE((256,), num_codes=32, hidden_channels=8, wavenet_layers=4)
        >>> x = torch.zeros(3, 256)
        >>> vqvae.encode_codes(x).shape, vqvae.sample(2).shape
        (torch.Size([3, 4]), torch.Size([2, 256]))
    """

    map_rank: ClassVar[int] = 1
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"learning_rate": 1e-3})

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int = 256,
        num_codes: int = NUM_CODES,
        code_dim: int = CODE_DIM,
        reduction: int = 64,
        hidden_channels: int = 128,
        residual_channels: int = 32,
        num_blocks: int = 2,
        wavenet_channels: int = 32,
        wavenet_skip_channels: int = 64,
        wavenet_blocks: int = 2,
        wavenet_layers: int = 8,
        dropout: float = 0.0,
        commitment: float = COMMITMENT,
        quantizer: Quantizer | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: CodePrior | None = None,
        likelihood: Likelihood | None = None,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        event_shape = check_event_shape(event_shape, ranks=(1,))
        wavenet = {
            "channels": wavenet_channels,
            "skip_channels": wavenet_skip_channels,
            "num_blocks": wavenet_blocks,
            "layers_per_block": wavenet_layers,
            "dropout": dropout,
        }
        if likelihood is None:
            likelihood = _wavenet(event_shape, num_levels, wavenet)
        super().__init__(
            event_shape,
            num_levels=num_levels,
            likelihood=likelihood,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        features = tuple(self.likelihood.parameter_shape)
        fits = len(features) == 2 and features[1:] == tuple(event_shape)
        check(fits, "likelihood", f"take features (C, {event_shape[0]})", features)
        self.reduction = reduction
        self.quantizer = make_quantizer(
            quantizer, num_codes=num_codes, code_dim=code_dim, commitment=commitment
        )
        options: dict[str, Any] = {
            "reduction": reduction,
            "hidden_channels": hidden_channels,
            "residual_channels": residual_channels,
            "num_blocks": num_blocks,
        }
        dim = self.quantizer.dim
        self.encoder = SequenceEncoder(dim, **options) if encoder is None else encoder
        options |= {"num_classes": num_classes, "context_shape": context_shape}
        if decoder is None:
            decoder = SequenceDecoder(dim, features[0], **options)
        self.decoder = decoder
        self._make_prior(prior)

    def _features(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        return super()._features(x, None)


def _wavenet(
    event_shape: EventShape, num_levels: int, options: dict[str, Any]
) -> AutoregressiveLikelihood:
    """Make the likelihood of a WaveNet that takes as many features of each step as it has."""
    features = (options["channels"], *event_shape)
    net = WaveNetNet(event_shape, num_levels, context_shape=features, **options)
    return AutoregressiveLikelihood(net, distribution="WaveNet")
