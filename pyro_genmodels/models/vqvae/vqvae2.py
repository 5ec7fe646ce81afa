"""VQ-VAE-2: code maps in a hierarchy, each finer one made with the coarser ones in view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._typing import CodebookUpdate, EventShape, Float, GivenContext, Int, Num, Tensor
from pyro_genmodels.models.likelihoods.elementwise import (
    GaussianLikelihood,
    Likelihood,
    LikelihoodName,
)
from pyro_genmodels.models.vqvae.base import VectorQuantizedModel
from pyro_genmodels.models.vqvae.code_maps import Codebook, map_shape, quantize_map
from pyro_genmodels.models.vqvae.code_priors import (
    CodePrior,
    CodePriors,
    UniformPrior,
    check_prior,
    own_priors,
)
from pyro_genmodels.models.vqvae.networks import VQVAE2Network, block_sizes, halving_channels
from pyro_genmodels.nets import MapDecoder, MapEncoder, Quantized, Quantizer
from pyro_genmodels.nets.layers import padded


class VQVAE2(VectorQuantizedModel):
    r"""Hierarchical VQ-VAE over images of any size.

    .. math:: c_0 \sim p(c_0), \quad c_i \sim p(c_i \mid c_{<i}), \quad
        x \sim p(x \mid f(e_{c_0}, \ldots))

    Map 0 is the top, the coarsest. Each finer map is quantised from the encoder's features at its
    size together with what the coarser codes decode to, so it needs to code only the rest; the
    decoder takes the vectors of all maps, upsampled. Trained as :class:`VQVAE` is.

    Args:
        event_shape: Sizes of one image, ``(C, H, W)``.
        num_levels: Number of data levels, ``None`` for continuous data.
        num_maps: Number of code maps, each half the size of the next finer one.
        codebook: Sizes of each map's codebook: a :class:`Codebook`, or its number of codes alone.
        network: Sizes of the networks: a :class:`VQVAE2Network`, or its ``reduction`` alone.
        quantizers: Own quantisers from the top, in the codebooks' place, of one ``dim``.
        priors: Laws of the maps from the top, uniform by default.
        likelihood: Name of the likelihood, or one; ``"auto"`` goes by ``num_levels``.
        num_classes: Condition all networks and priors on labels.
        context_shape: Condition them on vectors or maps.

    Attributes:
        priors: Laws of the maps from the top; assign learned ones once the codes are.

    Raises:
        ValueError: If an argument is out of range, or parts do not fit each other.

    References:
        Razavi et al. (2019), Generating diverse high-fidelity images with VQ-VAE-2.
        https://arxiv.org/abs/1906.00446. Layers as in rosinality/vq-vae-2-pytorch, whose parameter
        count the preset has.

    Example:
        >>> vqvae = VQVAE2((1, 8, 8), num_levels=17, codebook=32)
        >>> [tuple(codes.shape) for codes in vqvae.encode_codes(torch.zeros(3, 1, 8, 8))]
        [(3, 1, 1), (3, 2, 2)]
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"learning_rate": 1e-3})

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None = None,
        num_maps: int = 2,
        codebook: int | Codebook | None = None,
        network: int | VQVAE2Network | None = None,
        quantizers: Sequence[Quantizer] | None = None,
        priors: Sequence[CodePrior] | None = None,
        likelihood: LikelihoodName | Likelihood = "auto",
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        codebook, network = Codebook.of(codebook), VQVAE2Network.of(network)
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(event_shape, num_levels=num_levels, likelihood=likelihood, **context)
        check_positive(num_maps=num_maps)
        made = [codebook.quantizer() for _ in range(num_maps)]
        chosen = _as_many("quantizers", made if quantizers is None else quantizers, num_maps)
        dims = [quantizer.dim for quantizer in chosen]
        check(len(set(dims)) == 1, "quantizers", "have one and the same dim", dims)
        codebook.check_left_to(chosen)
        self.quantizers = nn.ModuleList(chosen)
        self.reduction = network.reduction * 2 ** (num_maps - 1)
        shapes = [
            map_shape(quantizer, self.event_shape, self.reduction, scale=2**i)
            for i, quantizer in enumerate(chosen)
        ]
        uniform = [UniformPrior(s, q.num_codes) for s, q in zip(shapes, chosen, strict=True)]
        self.priors = CodePriors(
            _as_many("priors", uniform if priors is None else priors, num_maps)
        )
        for (quantizer, prior), shape in zip(self._code_parts, shapes, strict=True):
            check_prior(prior, shape, quantizer.num_codes)
        self._make_networks(num_maps, dims[0], network, {**block_sizes(network), **context})

    def _make_networks(
        self, num_maps: int, dim: int, network: VQVAE2Network, options: dict[str, Any]
    ) -> None:
        hidden = network.hidden_channels
        fine, coarse = halving_channels(network.reduction, hidden), halving_channels(2, hidden)
        below = range(1, num_maps)
        # From the finest map upwards.
        self.encoders = nn.ModuleList(
            [MapEncoder(self.event_shape[0], strided_channels=fine, **options)]
            + [MapEncoder(hidden, strided_channels=coarse, **options) for _ in below]
        )
        # From the top downwards: i maps lie above map i.
        self.to_vectors = nn.ModuleList(
            nn.Conv2d(hidden + (dim if i else 0), dim, 1) for i in range(num_maps)
        )
        self.decoders = nn.ModuleList(
            MapDecoder(i * dim, dim, strided_channels=coarse, **options) for i in below
        )
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose2d(i * dim, i * dim, 4, stride=2, padding=1) for i in below
        )
        outputs = self.likelihood.parameter_shape[0]
        self.decoder = MapDecoder(num_maps * dim, outputs, strided_channels=fine, **options)

    @classmethod
    @integers_checked
    def paper(
        cls, event_shape: EventShape = (3, 256, 256), *, num_maps: int = 2, reduction: int = 4
    ) -> VQVAE2:
        """Make the paper's model: 256x256 images to 32x32 and 64x64 of 512 codes.

        ``paper((3, 1024, 1024), num_maps=3, reduction=8)`` is that for faces. Data are
        continuous, best in [-1, 1]; the Gaussian's fixed scale gives the squared error the
        paper's weight against the commitment loss. 1,388,867 parameters with two maps.
        """
        likelihood = GaussianLikelihood(event_shape, scale=0.5**0.5)
        return cls(event_shape, num_maps=num_maps, network=reduction, likelihood=likelihood)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "priors" and name in self.__dict__.get("_modules", {}):
            value = self._fitting(list(value))
        super().__setattr__(name, value)

    def _fitting(self, priors: Sequence[CodePrior]) -> CodePriors:
        old = self.code_priors
        for new, now in zip(_as_many("priors", priors, len(old)), old, strict=True):
            check_prior(new, now.code_shape, now.num_codes)
        return CodePriors(priors)

    def set_code_priors(self, priors: Sequence[CodePrior]) -> None:
        """Replace the laws of all maps, from the top; the same as to assign ``priors``."""
        self.priors = self._fitting(priors)

    def current_arguments(self) -> dict[str, Any]:
        """Return the priors, if they are not those that the constructor makes."""
        recorded = super().current_arguments()
        priors = own_priors(self.code_priors, recorded.get("priors"))
        return recorded if priors is None else {**recorded, "priors": priors}

    @property
    def site_names(self) -> list[str]:
        """``codes_0`` for the top, and so on."""
        return [f"codes_{i}" for i in range(len(self.quantizers))]

    @property
    def _code_parts(self) -> list[tuple[Quantizer, CodePrior]]:
        quantizers = cast(list[Quantizer], list(self.quantizers))
        return list(zip(quantizers, cast(list[CodePrior], list(self.priors)), strict=True))

    def encode_codes(
        self, x: Num[Tensor, "*batch C H W"], context: GivenContext = None
    ) -> list[Int[Tensor, ...]]:
        """Return the codes of images, one map after the other from the top.

        Args:
            x: Images ``(*batch, C, H, W)``.
            context: Labels or features, if the model is conditional.

        Returns:
            ``int64`` maps ``(*batch, h, w)``; ``(*batch, parts, h, w)`` of composite quantisers.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        return self._codes_of(x, context)

    def decode_codes(
        self, codes: Sequence[Num[Tensor, ...]], context: GivenContext = None
    ) -> Float[Tensor, "*batch C H W"]:
        """Return the expected image given its codes.

        Args:
            codes: Maps of codes as :meth:`encode_codes` gives them, of any dtype.
            context: Labels or features, if the model is conditional.

        Returns:
            Images ``(*batch, C, H, W)`` in the units of the data.

        Raises:
            ValueError: If the maps are another number, of another shape or out of range.
        """
        return self._mean_of(_as_many("codes", codes, len(self.quantizers)), context)

    def _features(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        features = [padded(x, self.reduction)]
        for encoder in self.encoders:
            features.append(_run(encoder, features[-1], context))
        return features[:0:-1]

    def _quantized(
        self, features: list[Tensor], context: Tensor | None, update: CodebookUpdate
    ) -> tuple[list[Quantized], Tensor]:
        made: list[Quantized] = []
        above: Tensor | None = None
        for i, (quantizer, _) in enumerate(self._code_parts):
            seen = features[i]
            if above is not None:
                seen = torch.cat([_run(self.decoders[i - 1], above, context), seen], -3)
            z = over_batch(self.to_vectors[i], (seen, 3))
            quantized, vectors = quantize_map(quantizer, z, update)
            made.append(quantized)
            above = self._joined(above, vectors)
        assert above is not None  # there is a map
        return made, above

    def _decoder_input(self, vectors: list[Tensor], context: Tensor | None) -> Tensor:
        joined = vectors[0]
        for finer in vectors[1:]:
            joined = self._joined(joined, finer)
        return joined

    def _joined(self, above: Tensor | None, vectors: Tensor) -> Tensor:
        """Lay a map's vectors on those of all maps above, upsampled."""
        if above is None:
            return vectors
        upsampler = self.upsamplers[above.shape[-3] // vectors.shape[-3] - 1]
        return torch.cat([over_batch(upsampler, (above, 3)), vectors], -3)

    def _decoded(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return _run(self.decoder, inputs, context)


def _run(network: nn.Module, maps: Tensor, context: Tensor | None) -> Tensor:
    return network(maps) if context is None else network(maps, context)


ItemT = TypeVar("ItemT")


def _as_many(argument: str, items: Sequence[ItemT], number: int) -> list[ItemT]:
    check(len(items) == number, argument, f"be {number} in number", len(items))
    return list(items)
