"""The chain's last state alone, for training at one noise level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions import ReverseDiffusion
from pyro_genmodels.distributions.expansion import expanded


class ChainEnd(TorchDistribution):
    """The least noised state of a chain, ``(1, *values)``: what is left where all else is summed.

    Its draws are a whole chain's. It has no density in closed form, so its site must be masked.

    Args:
        chain: The whole chain.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, chain: ReverseDiffusion) -> None:
        self.chain = chain
        event = torch.Size((1, *chain.event_shape[1:]))
        super().__init__(chain.batch_shape, event, validate_args=False)

    @constraints.dependent_property
    def support(self) -> Any:
        """All numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ChainEnd:
        """Return the same distribution with another batch shape."""
        return expanded(self, batch_shape, _instance, chain=self.chain.expand(batch_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape"]:
        """Draw chains; return what is left of the noise at their end."""
        *_, last = self.chain.backwards(sample_shape)
        return last.unsqueeze(-1 - self.chain.rank)

    def log_prob(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Raise ``NotImplementedError``."""
        raise NotImplementedError("the last state alone has no density in closed form")
