"""What models with a single map of codes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_trailing
from pyro_genmodels._typing import CodebookUpdate, Float, GivenContext, Int, Num, Tensor
from pyro_genmodels.models.vqvae.base import VectorQuantizedModel
from pyro_genmodels.models.vqvae.code_maps import Codebook, map_shape, quantize_map
from pyro_genmodels.models.vqvae.code_priors import CodePrior, UniformPrior, check_prior, own_priors
from pyro_genmodels.nets import Quantized, Quantizer
from pyro_genmodels.nets.layers import padded


class OneMapModel(VectorQuantizedModel, Abstract):
    """An encoder, a quantiser, the law of one map of codes, and a decoder.

    Attributes:
        prior: Law of the code map; assign a learned one once the codes are.
    """

    has_one_map: ClassVar[bool] = True

    encoder: nn.Module
    decoder: nn.Module
    quantizer: Quantizer
    prior: CodePrior
    reduction: int

    def _make_quantizer(self, own: Quantizer | None, codebook: Codebook) -> None:
        """Set a caller's quantiser, which the codebook must not contradict, or one of its sizes."""
        if own is not None:
            codebook.check_left_to([own])
        self.quantizer = codebook.quantizer() if own is None else own

    def _make_prior(self, prior: CodePrior | None) -> None:
        """Set the law of the map, once quantiser and reduction are: uniform by default."""
        shape = map_shape(self.quantizer, self.event_shape, self.reduction, rank=self.map_rank)
        self.prior = prior or UniformPrior(shape, self.quantizer.num_codes)
        check_prior(self.prior, shape, self.quantizer.num_codes)

    def __setattr__(self, name: str, value: Any) -> None:
        # A prior over other codes would be noticed late, or, over more codes, never.
        if name == "prior" and name in self.__dict__.get("_modules", {}):
            check_prior(value, self.prior.code_shape, self.prior.num_codes)
        super().__setattr__(name, value)

    def set_code_priors(self, priors: Sequence[CodePrior]) -> None:
        """Replace the law of the map; the same as to assign ``prior``."""
        check(len(priors) == 1, "priors", "be one", len(priors))
        self.prior = priors[0]

    def current_arguments(self) -> dict[str, Any]:
        """Return the prior, if it is not the one that the constructor makes."""
        recorded = super().current_arguments()
        priors = own_priors([self.prior], recorded.get("prior"))
        return recorded if priors is None else {**recorded, "prior": priors[0]}

    @property
    def site_names(self) -> list[str]:
        """The one site of codes."""
        return ["codes"]

    @property
    def _code_parts(self) -> list[tuple[Quantizer, CodePrior]]:
        return [(self.quantizer, self.prior)]

    def encode_codes(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> Int[Tensor, "*batch_codes"]:
        """Return the codes of data.

        Args:
            x: Data ``(*batch, *event_shape)``.
            context: Labels or features, if the model is conditional.

        Returns:
            ``int64`` codes ``(*batch, *sizes)``; ``(*batch, parts, *sizes)`` of a composite
            quantiser.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        return self._codes_of(x, context)[0]

    def decode_codes(
        self, codes: Num[Tensor, "*batch_codes"], context: GivenContext = None
    ) -> Float[Tensor, "*batch_event"]:
        """Return the expected data given their codes; under an autoregressive likelihood a draw.

        Args:
            codes: Codes as :meth:`encode_codes` gives them, of any dtype.
            context: Labels or features, if the model is conditional.

        Returns:
            Data ``(*batch, *event_shape)`` in their units.

        Raises:
            ValueError: If the codes are of another shape or out of range.
        """
        return self._mean_of([codes], context)

    def _features(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        x = padded(x, self.reduction, rank=self.map_rank)
        z = self.encoder(x) if context is None else self.encoder(x, context)
        sizes = self.prior.code_shape[-self.map_rank :]
        check_trailing("encoder(x)", z, (self.quantizer.dim, *sizes))
        return [z]

    def _quantized(
        self, features: list[Tensor], context: Tensor | None, update: CodebookUpdate
    ) -> tuple[list[Quantized], Tensor]:
        quantized, vectors = quantize_map(self.quantizer, features[0], update, rank=self.map_rank)
        return [quantized], vectors

    def _decoder_input(self, vectors: list[Tensor], context: Tensor | None) -> Tensor:
        return vectors[0]

    def _decoded(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return self.decoder(inputs) if context is None else self.decoder(inputs, context)
