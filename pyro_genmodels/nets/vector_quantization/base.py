"""What every quantiser is: vectors to codes and back, with a gradient that passes through."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, cast

import torch

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check_positive
from pyro_genmodels._configuration import Configured
from pyro_genmodels._modules import FROZEN
from pyro_genmodels._typing import CodebookUpdate, Float, Int, Num, Tensor
from pyro_genmodels.nets.layers import FullPrecisionWeights


class Quantized(NamedTuple):
    """What a quantiser makes of vectors ``(*batch, dim)``.

    Attributes:
        values: The quantised vectors ``(*batch, dim)``; their gradient goes to the input unchanged.
        codes: Indices ``(*batch, *code_shape)``.
        loss: Auxiliary losses ``(*batch)``, to be added to the objective: means over the
            dimensions of a vector.

    Example:
        >>> from pyro_genmodels.nets import VectorQuantizer
        >>> values, codes, loss = VectorQuantizer(2, 4)(torch.zeros(5, 2))
        >>> values.shape, codes.shape, loss.shape
        (torch.Size([5, 2]), torch.Size([5]), torch.Size([5]))
    """

    values: Tensor
    codes: Tensor
    loss: Tensor


class Quantizer(Configured, FullPrecisionWeights, Abstract):
    """Base of the quantisers: maps vectors to codes, and codes to vectors.

    In eval mode nothing about it changes, also as a part of a model in training mode. The same
    holds after :meth:`freeze`, whatever the mode.

    Args:
        dim: Size D of a vector.
        num_codes: Number of values that a code can take.
        num_parts: Codes for each vector; ``None`` for one code without a dimension of its own.
    """

    _frozen = False

    def __init__(self, dim: int, num_codes: int, num_parts: int | None = None) -> None:
        super().__init__()
        check_positive(dim=dim, num_codes=num_codes)
        self.dim, self.num_codes = dim, num_codes
        self.code_shape = torch.Size(() if num_parts is None else (num_parts,))

    @abstractmethod
    def forward(self, z: Float[Tensor, "*batch D"], *, update: CodebookUpdate = None) -> Quantized:
        """Quantise vectors, and learn from them.

        Args:
            z: Vectors ``(*batch, dim)``.
            update: Whether averages, initialisation and restarts take note of these vectors, if
                this is in training mode and not frozen: ``False``; ``True``, as a step of their
                own; ``"accumulate"``, together with those before them as the batch of one step.
                By default they do where gradients are enabled, and vectors with a gradient
                accumulate until an optimizer steps.

        Raises:
            ValueError: If the trailing size is not ``dim``.
        """

    @abstractmethod
    def lookup(self, codes: Num[Tensor, "*codes"]) -> Float[Tensor, "*vectors"]:
        """Return the vectors ``(*batch, dim)`` of codes ``(*batch, *code_shape)``.

        Raises:
            ValueError: If the codes have another trailing shape or are out of range.
        """

    @property
    @abstractmethod
    def perplexity(self) -> Tensor:
        """Effective number of codes in use, on average over the last training batches.

        Shape ``code_shape``; between 1 and ``num_codes``.
        """

    @property
    @abstractmethod
    def usage(self) -> Tensor:
        """Fraction of the codes that were chosen lately in training, shape ``code_shape``."""

    @property
    def is_frozen(self) -> bool:
        """Whether :meth:`freeze` holds the codes where they are."""
        return self._frozen

    def freeze(self) -> Quantizer:
        """Keep codes and statistics as they are, in training mode too, until :meth:`unfreeze`.

        ``requires_grad_(False)`` alone does not hold an averaged codebook, which is a buffer. A
        ``state_dict`` has it that the quantiser is frozen; loading one of an unfrozen quantiser
        does not unfreeze. The parameters no longer require a gradient.

        Returns:
            The quantiser itself.

        Example:
            >>> from pyro_genmodels.nets import VectorQuantizer
            >>> quantizer = VectorQuantizer(2, 4, initialization="random").freeze()
            >>> before = quantizer.codebook.clone()
            >>> _ = quantizer.train()(torch.randn(5, 2))
            >>> torch.equal(quantizer.codebook, before)
            True
        """
        return self._set_frozen(True)

    def unfreeze(self) -> Quantizer:
        """Let codes and statistics learn again in training mode.

        Returns:
            The quantiser itself, whose parameters require a gradient again.
        """
        return self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> Quantizer:
        for part in self.modules():
            if isinstance(part, Quantizer):
                part._frozen = frozen
        return self.requires_grad_(not frozen)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Only then: the keys of all others are those of files that are older than this.
        if self._frozen:
            destination[prefix + FROZEN] = torch.tensor(True)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        if state_dict.pop(prefix + FROZEN, None) is not None:
            self._set_frozen(True)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _updates(self, update: CodebookUpdate) -> bool:
        learns = self.training and not self._frozen
        return learns and (torch.is_grad_enabled() if update is None else bool(update))


def straight_through(
    z: Float[Tensor, "*batch D"], vectors: Float[Tensor, "*batch D"]
) -> Float[Tensor, "*batch D"]:
    """Return exactly ``vectors``, with the gradient of ``z``.

    Bengio et al. (2013), Estimating or propagating gradients through stochastic neurons.
    """
    # Not z + (vectors - z), which rounds: the decoder must see what a lookup of the codes gives.
    return vectors.detach() + (z - z.detach())


def code_perplexity(codes: Int[Tensor, "*codes"], num_codes: int) -> float:
    """Return the effective number of codes used: the exponential of their entropy.

    Example:
        >>> code_perplexity(torch.tensor([0, 1, 2, 3]), 512)
        4.0
    """
    counts = torch.bincount(codes.flatten(), minlength=num_codes)
    return float(perplexity_of(counts.double()))


def perplexity_of(counts: Float[Tensor, " K"]) -> Float[Tensor, ""]:
    """Return the exponential of the entropy of counts' shares; 1 if there are no counts."""
    total = counts.sum()
    share = counts / total.clamp_min(torch.finfo(total.dtype).tiny)
    return cast(Tensor, torch.special.entr(share).sum().exp())
