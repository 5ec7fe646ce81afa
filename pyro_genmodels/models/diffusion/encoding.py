"""What a chain sees of data, and the data that its last state tells of."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import nn

from pyro_genmodels._batching import over_event
from pyro_genmodels._typing import EventShape, Float, Num, Tensor
from pyro_genmodels.models.diffusion.arguments import LevelEncoding
from pyro_genmodels.models.likelihoods.elementwise import Levels
from pyro_genmodels.nets.layers import DerivedBuffers


class ChainData(DerivedBuffers):
    r"""Maps data to the values that a chain adds noise to, and back.

    Each level k is a vector :math:`v_k`; of continuous data the values are the data. From the last
    state :math:`z_0 = \alpha_0 v + \sigma_0 \epsilon` the data follow by
    :math:`p(x = k \mid z_0) \propto e^{-|z_0 / \alpha_0 - v_k|^2 e^{-g_0} / 2}`, exactly
    normalised; of continuous data by a Gaussian with that variance.

    Channel ``p * C + c`` holds entry ``p`` of the vector of data channel ``c``.

    Args:
        event_shape: Sizes of one data point.
        num_levels: Number of levels; ``None`` for continuous data.
        encoding: How levels become vectors.
    """

    def __init__(
        self, event_shape: EventShape, num_levels: int | None, encoding: LevelEncoding
    ) -> None:
        super().__init__()
        self.event_shape, self.num_levels = torch.Size(event_shape), num_levels
        self.rank, self.kind = len(event_shape), encoding.kind
        size = 1
        if num_levels is not None:
            values = _values(num_levels, encoding)
            size = values.shape[1]
            if encoding.kind == "learned":
                self.values = nn.Parameter(values)
            else:
                self.register_derived("values", partial(_values, num_levels, encoding))
        channels, *rest = self.event_shape
        self.shape = torch.Size((size * channels, *rest))

    @property
    def least_distance(self) -> float | None:
        """Distance between the two nearest levels; ``None`` of continuous data.

        Of learned vectors, which move, that of as many points of a grid.
        """
        if self.num_levels is None:
            return None
        if self.kind == "bits":
            return 2.0
        return 2 / self.num_levels ** (1 / self.values.shape[1])

    def forward(self, x: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch_values"]:
        """Return the values of data."""
        if self.num_levels is None:
            return x
        return self._joined(self.values[x.long()])

    def decoder(self, z: Float[Tensor, "*batch_values"], level: Float[Tensor, ""]) -> Any:
        """Return the distribution over data given the chain's last state.

        Args:
            z: The least noised state.
            level: Its noise level.
        """
        if self.num_levels is None:
            scale = (0.5 * level).exp().to(z)
            return dist.Normal(z * _alpha(level).reciprocal().to(z), scale).to_event(self.rank)
        logits = self.evidence(z, level.expand(z.shape[: z.dim() - self.rank]))
        return Levels.of_evidence(logits).to_event(self.rank)

    def evidence(
        self, z: Float[Tensor, "*batch_values"], level: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch_event K"]:
        r"""Return :math:`\log p(z \mid k)`: what each element's own noised value tells of it.

        Up to a constant that all levels share.

        Args:
            z: Noised values.
            level: Their noise levels.
        """
        parts = self._split(z)
        signal = over_event(_alpha(level), self.rank + 1).to(z)
        precision = over_event((-F.logsigmoid(level)).exp(), self.rank).to(z)
        if parts.shape[-1] == 1:  # of many fine levels, whose terms are nearly equal
            return -0.5 * (parts - signal * self.values[:, 0]).square() * precision.unsqueeze(-1)
        # Without |z|^2, which all levels share, and one vector for each pair of element and level.
        inner = signal * (parts @ self.values.T)
        return (inner - 0.5 * signal.square() * self.values.square().sum(-1)) * precision.unsqueeze(
            -1
        )

    def expected(self, logits: Float[Tensor, "*batch_event K"]) -> Float[Tensor, "*batch_values"]:
        """Return the mean values under logits of the levels."""
        return self._joined(logits.softmax(-1) @ self.values.to(logits))

    def logits_of(self, output: Float[Tensor, "*batch_output"]) -> Float[Tensor, "*batch_event K"]:
        """Return the logits of a network's output, whose channels are ``K`` times the data's."""
        assert self.num_levels is not None  # what is called of levels alone
        sizes = (self.num_levels, self.event_shape[0])
        return output.unflatten(-self.rank, sizes).movedim(-self.rank - 1, -1)

    def _joined(self, vectors: Tensor) -> Tensor:
        """Bring the vectors' entries, the last dimension, to the channels."""
        return vectors.movedim(-1, -self.rank - 1).flatten(-self.rank - 1, -self.rank)

    def _split(self, z: Tensor) -> Tensor:
        """Return the vectors of each element, in the last dimension."""
        sizes = (self.values.shape[1], self.event_shape[0])
        return z.unflatten(-self.rank, sizes).movedim(-self.rank - 1, -1)


def _alpha(level: Tensor) -> Tensor:
    return (0.5 * F.logsigmoid(-level)).exp()


def _values(num_levels: int, encoding: LevelEncoding) -> Tensor:
    """Return each level's vector, ``(K, size)``."""
    if encoding.kind == "levels" or (encoding.kind, encoding.size) == ("learned", 1):
        centres = (2 * torch.arange(num_levels, dtype=torch.float64) + 1) / num_levels - 1
        return centres.to(torch.get_default_dtype())[:, None]
    if encoding.kind == "bits":
        places = torch.arange(max(1, (num_levels - 1).bit_length()))
        bits = (torch.arange(num_levels)[:, None] >> places) & 1
        return 2.0 * bits - 1
    vectors = torch.randn(num_levels, encoding.size)
    return vectors / vectors.norm(dim=1, keepdim=True) * math.sqrt(encoding.size)
