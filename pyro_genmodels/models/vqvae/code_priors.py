"""Priors over maps of codes: what a VQ-VAE's codes cost."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Tensor
from pyro_genmodels.distributions import UniformLevels


class CodePrior(Configured, nn.Module, Abstract):
    """Law of one map of codes, given those above it in a hierarchy and the model's context.

    A model calls it anew for each evaluation, so a learned prior is this module, which owns a
    network, and hands out a distribution that refers to it. Assign one to ``model.prior`` (or an
    entry of ``model.priors``) once the codes are learned.

    Args:
        code_shape: Sizes of one map, ``(h, w)``, or ``(parts, h, w)`` of a composite quantiser.
        num_codes: Number of values of a code.
    """

    kind: ClassVar[str] = "own"
    """What reports call it."""

    def __init__(self, code_shape: Sequence[int], num_codes: int) -> None:
        super().__init__()
        self.code_shape, self.num_codes = torch.Size(code_shape), num_codes

    @abstractmethod
    def forward(self, above: Sequence[Tensor] = (), context: Tensor | None = None) -> Any:
        """Return the distribution over a map, with event shape ``code_shape``.

        Args:
            above: The maps sampled before, from the top, each ``(*batch, *code_shape)``.
            context: The model's context.
        """


class UniformPrior(CodePrior):
    r"""Every code equally likely: a map of n codes costs exactly :math:`n \log K` nats.

    Args:
        code_shape: Sizes of one map.
        num_codes: Number K of values of a code.

    Example:
        >>> UniformPrior((2, 3), 8)().sample().shape
        torch.Size([2, 3])
    """

    kind = "uniform"
    _anchor: Tensor

    def __init__(self, code_shape: Sequence[int], num_codes: int) -> None:
        super().__init__(code_shape, num_codes)
        # A buffer only for its device and dtype; nothing to save.
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)

    def forward(self, above: Sequence[Tensor] = (), context: Tensor | None = None) -> Any:
        """Return the uniform distribution, whatever the arguments."""
        dtype, device = self._anchor.dtype, self._anchor.device
        return UniformLevels(self.code_shape, self.num_codes, dtype=dtype, device=device)


class CodePriors(nn.ModuleList):
    """The priors of a hierarchy's maps, of which each may be replaced by one over the same codes.

    Example:
        >>> priors = CodePriors([UniformPrior((2, 2), 8), UniformPrior((4, 4), 8)])
        >>> priors[1] = UniformPrior((4, 4), 9)
        Traceback (most recent call last):
        ...
        ValueError: `prior` must be over maps (4, 4) of 8 codes; got (4, 4) of 9.
    """

    def __setitem__(self, index: int, prior: nn.Module) -> None:
        """Replace a prior.

        Raises:
            ValueError: If the new one is over another map or other codes.
        """
        now = cast(CodePrior, self[index])
        check_prior(cast(CodePrior, prior), now.code_shape, now.num_codes)
        super().__setitem__(index, prior)


def check_prior(prior: CodePrior, code_shape: Sequence[int], num_codes: int) -> None:
    """Raise ``ValueError`` unless a prior is over maps of this shape and as many codes."""
    check(isinstance(prior, CodePrior), "prior", "be a CodePrior", type(prior).__name__)
    rule = f"be over maps {tuple(code_shape)} of {num_codes} codes"
    given = tuple(prior.code_shape), prior.num_codes
    check(given == (tuple(code_shape), num_codes), "prior", rule, f"{given[0]} of {given[1]}")


def own_priors(priors: Sequence[CodePrior], recorded: Any) -> list[CodePrior] | None:
    """Return the priors that a configuration must name: any that were assigned or are learned.

    ``None`` if they are those that the constructor makes by itself; ``recorded`` is what it was
    given.
    """
    plain = all(isinstance(prior, UniformPrior) for prior in priors)
    return None if plain and recorded is None else list(priors)
