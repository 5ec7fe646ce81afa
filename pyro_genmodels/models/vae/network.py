"""The encoder and decoder of a VAE: two multilayer perceptrons, or two convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from torch import nn

from pyro_genmodels._checks import check_choice
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels.nets.autoencoders import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

_LEAST_SIDE = 4  # of an image that is halved once by default
_WIDTHS: dict[str, tuple[int, ...]] = {"mlp": (400,), "conv": (32, 64)}


@dataclass(frozen=True)
class VAENetwork(ArgumentGroup):
    """Kind and sizes of a VAE's encoder and decoder.

    Args:
        kind: ``"mlp"``, or ``"conv"`` for images of any size; ``"auto"`` is convolutional for
            images with sides of 4 or more, unless ``hidden`` gives the widths of dense layers.
        hidden: Widths of the encoder's hidden layers, or its channels from full size downwards;
            the decoder has them reversed. ``(400,)`` or ``(32, 64)`` by default.
        activation: Name of the activation.
        dropout: Probability of dropping a hidden unit in training.
        encoder: Own network in the encoder's place: what the encoder sees of data (and context, if
            the model is conditional) to ``(*batch, 2 * latent_dim + posterior.features)``, the
            means before the log-scales; between these and the features what correlates the
            latents, if anything. It sees ``(*batch, *likelihood.input_shape)``; of a model with
            ``missing=True``, ``event_shape[0]`` further channels follow, one where an element is
            there and zero where it is missing.
        decoder: Own network in the decoder's place: latents (and context) to
            ``(*batch, *likelihood.parameter_shape)``.

    Raises:
        ValueError: If there is no such kind.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> vae = VAE((1, 8, 8), network=VAENetwork("conv", hidden=(8, 16)))
        >>> vae.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """

    kind: Literal["auto", "mlp", "conv"] = "auto"
    _: KW_ONLY
    hidden: Sequence[int] | None = None
    activation: str = "relu"
    dropout: float = 0.0
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if there is no such kind of network."""
        super().__post_init__()
        check_choice("network", self.kind, ("auto", *_WIDTHS))

    def make_encoder(self, event_shape: Sequence[int], features: int, **context: Any) -> nn.Module:
        """Return the network from data to ``(*batch, features)``."""
        if self.encoder is not None:
            return self.encoder
        kind, options = self._kind(event_shape), {**self._rest, **context}
        if kind == "mlp":
            return MLPEncoder(event_shape, features, hidden=self._widths(kind), **options)
        return ConvEncoder(event_shape, features, channels=self._widths(kind), **options)

    def make_decoder(self, latents: int, shape: Sequence[int], **context: Any) -> nn.Module:
        """Return the network from latent vectors to ``(*batch, *shape)``."""
        if self.decoder is not None:
            return self.decoder
        kind, options = self._kind(shape), {**self._rest, **context}
        widths = self._widths(kind)[::-1]
        if kind == "mlp":
            return MLPDecoder(latents, shape, hidden=widths, **options)
        return ConvDecoder(latents, shape, channels=widths, **options)

    def _kind(self, shape: Sequence[int]) -> str:
        if self.kind != "auto":
            return self.kind
        is_image = len(shape) == 3 and min(shape[1:]) >= _LEAST_SIDE
        return "conv" if is_image and self.hidden is None else "mlp"

    def _widths(self, kind: str) -> tuple[int, ...]:
        return _WIDTHS[kind] if self.hidden is None else tuple(self.hidden)

    @property
    def _rest(self) -> dict[str, Any]:
        return {"activation": self.activation, "dropout": self.dropout}
