"""VQ-VAE over sequences, such as audio: a shorter sequence of codes, and a WaveNet that decodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_event_shape
from pyro_genmodels._typing import EventShape
from pyro_genmodels.distributions import observed_part
from pyro_genmodels.distributions.autoregressive import check_missing_suffix
from pyro_genmodels.models.autoregressive.likelihood import AutoregressiveLikelihood
from pyro_genmodels.models.likelihoods.elementwise import Likelihood
from pyro_genmodels.models.vqvae.code_maps import Codebook
from pyro_genmodels.models.vqvae.code_priors import CodePrior
from pyro_genmodels.models.vqvae.networks import SequenceVQVAENetwork, WaveNetSizes
from pyro_genmodels.models.vqvae.single_map import OneMapModel
from pyro_genmodels.nets import Quantizer, WaveNetNet


class SequenceVQVAE(OneMapModel):
    r"""Vector-quantised variational autoencoder over sequences of levels.

    .. math:: c \sim p(c), \quad p(x \mid c) = \prod_t p(x_t \mid x_{<t}, f(e_c)_t), \quad
        q(c \mid x) = \delta\bigl(c - \arg\min_k |z(x) - e_k|\bigr)

    Each code stands for ``network.reduction`` steps. The likelihood is a WaveNet that sees the
    steps before, and at each step the features that the decoder makes of the codes there; so what
    the codes must carry is what a WaveNet would not guess. Trained as :class:`VQVAE` is.

    Only decoder and prior see a context, so that what is coded may be decoded under another one:
    one voice's words in another voice.

    With ``network.missing`` sequences may end early, as NaN. The likelihood is then that of the
    observed steps, exactly, and the bound one of their log-probability. All codes count, also those
    of steps that are missing: the decoder sees them beside the others.

    Args:
        event_shape: Length of a sequence, ``(T,)``; one that the network's ``reduction`` does not
            divide is padded by repetition, and cropped again.
        num_levels: Number of levels; for audio see :func:`~pyro_genmodels.data.mu_law_encode`.
        codebook: Sizes of the codebook: a :class:`Codebook`, or its number of codes alone.
        network: Sizes of encoder and decoder: a :class:`SequenceVQVAENetwork`, or its
            ``reduction`` alone.
        wavenet: Sizes of the WaveNet: a :class:`WaveNetSizes`, or its ``channels`` alone.
        quantizer: Own quantiser, in the codebook's place, for other codebooks, or several codes a
            position.
        encoder: Own network: data to ``(*batch, codebook.dim, t)``; if steps may be missing, from
            ``(*batch, 2, T)``, data and which are observed.
        decoder: Own network: ``(*batch, codebook.dim, t)`` (and context) to
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
        >>> from pyro_genmodels.models import SequenceVQVAENetwork, WaveNetSizes
        >>> network = SequenceVQVAENetwork(hidden_channels=8)
        >>> wavenet = WaveNetSizes(layers_per_block=4)
        >>> vqvae = SequenceVQVAE((256,), codebook=32, network=network, wavenet=wavenet)
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
        codebook: int | Codebook | None = None,
        network: int | SequenceVQVAENetwork | None = None,
        wavenet: int | WaveNetSizes | None = None,
        quantizer: Quantizer | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: CodePrior | None = None,
        likelihood: Likelihood | None = None,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        event_shape = check_event_shape(event_shape, ranks=(1,))
        network = SequenceVQVAENetwork.of(network)
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        if likelihood is None:
            sizes = WaveNetSizes.of(wavenet)
            likelihood = _wavenet(event_shape, num_levels, sizes, missing=network.missing)
        super().__init__(event_shape, num_levels=num_levels, likelihood=likelihood, **context)
        self.missing = network.missing
        features = tuple(self.likelihood.parameter_shape)
        fits = len(features) == 2 and features[1:] == tuple(event_shape)
        check(fits, "likelihood", f"take features (C, {event_shape[0]})", features)
        marginal = isinstance(likelihood, AutoregressiveLikelihood) and likelihood.missing
        rule = "be an AutoregressiveLikelihood with missing=True for missing steps"
        check(marginal or not self.missing, "likelihood", rule, type(likelihood).__name__)
        self.reduction = network.reduction
        self._make_quantizer(quantizer, Codebook.of(codebook))
        dim = self.quantizer.dim
        self.encoder = network.encoder(dim) if encoder is None else encoder
        if decoder is None:
            decoder = network.decoder(dim, features[0], **context)
        self.decoder = decoder
        self._make_prior(prior)

    def check_missing(self, argument: str, x: Tensor) -> None:
        """Raise ``ValueError`` unless what is missing of each sequence is its end."""
        likelihood: Any = self.likelihood
        check_missing_suffix(argument, x, likelihood.net)

    def _features(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        if self.missing:
            filled, seen = observed_part(x)
            x = torch.stack([filled, seen.to(x.dtype)], -2)
        return super()._features(x, None)


def _wavenet(
    event_shape: EventShape, num_levels: int, sizes: WaveNetSizes, *, missing: bool
) -> AutoregressiveLikelihood:
    """Make the likelihood of a WaveNet that takes as many features of each step as it has."""
    features = (sizes.channels, *event_shape)
    options = sizes.current_arguments()
    net = WaveNetNet(event_shape, num_levels, context_shape=features, **options)
    return AutoregressiveLikelihood(net, missing=missing)
