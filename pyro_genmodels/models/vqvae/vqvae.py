"""VQ-VAE: an autoencoder whose latents are a map of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from torch import nn

from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.likelihoods.elementwise import Likelihood, LikelihoodName
from pyro_genmodels.models.vqvae.code_maps import Codebook
from pyro_genmodels.models.vqvae.code_priors import CodePrior
from pyro_genmodels.models.vqvae.networks import NetworkName, VQVAENetwork
from pyro_genmodels.models.vqvae.single_map import OneMapModel
from pyro_genmodels.nets import Quantizer


class VQVAE(OneMapModel):
    r"""Vector-quantised variational autoencoder over images of any size.

    .. math:: c \sim p(c), \quad x \sim p(x \mid f(e_c)), \quad
        q(c \mid x) = \delta\bigl(c - \arg\min_k |z(x) - e_k|\bigr)

    Trained on :math:`-\log p(x \mid f(e_c)) - \log p(c)` plus commitment (and codebook) loss, with
    the gradient passed straight through the quantiser. The ELBO without those losses is a bound:
    under the uniform prior a code costs exactly :math:`\log K` nats.

    The networks see discrete data scaled to [-1, 1], continuous data as they are. Sizes that
    the network's ``reduction`` does not divide are padded by repetition, and cropped again.

    Args:
        event_shape: Sizes of one image, ``(C, H, W)``.
        num_levels: Number of data levels, ``None`` for continuous data.
        codebook: Sizes of the codebook: a :class:`Codebook`, or its number of codes alone.
        network: Kind and sizes of encoder and decoder: ``"conv"``, ``"patch"`` or a
            :class:`VQVAENetwork`.
        quantizer: Own quantiser, in the codebook's place, for other codebooks, or several codes a
            position.
        encoder: Own network: data (and context) to ``(*batch, codebook.dim, h, w)``.
        decoder: Own network: ``(*batch, codebook.dim, h, w)`` (and context) to
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
        >>> vqvae = VQVAE((1, 8, 8), num_levels=17, codebook=32)
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
        codebook: int | Codebook | None = None,
        network: NetworkName | VQVAENetwork = "conv",
        quantizer: Quantizer | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: CodePrior | None = None,
        likelihood: LikelihoodName | Likelihood = "auto",
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        network = VQVAENetwork.of(network)
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(event_shape, num_levels=num_levels, likelihood=likelihood, **context)
        self.reduction = network.reduction
        self._make_quantizer(quantizer, Codebook.of(codebook))
        dim, outputs = self.quantizer.dim, self.likelihood.parameter_shape[0]
        # Not `encoder or`: a network without layers counts as false.
        if encoder is None:
            encoder = network.encoder(self.event_shape[0], dim, **context)
        if decoder is None:
            decoder = network.decoder(dim, outputs, **context)
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
        network = VQVAENetwork(
            hidden_channels=256,
            residual_channels=256,
            strided_channels=(256, 256),
            projection=False,
        )
        return cls(event_shape, num_levels=num_levels, likelihood=likelihood, network=network)
