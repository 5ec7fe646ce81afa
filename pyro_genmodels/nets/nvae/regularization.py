"""Regularisers of NVAE's weights: spectral norms of convolutions, scales of batch norms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers.precision import full_precision
from pyro_genmodels.nets.nvae.layers import BatchNorm, RegularizedConv2d

_ITERATIONS = 4
_FIRST_ITERATIONS = 40
ItemT = TypeVar("ItemT")


class SpectralNorms(nn.Module):
    r"""The sum of the convolutions' largest singular values, each kernel as a matrix.

    Kernels (out, in, h, w) are the matrices (out, in h w) of Yoshida and Miyato, normalised as
    they are applied. Power iteration goes on from the vectors of the step before, which are
    buffers: a resumed run has them, and in eval mode they stay. Kernels of one shape are iterated
    together.

    .. math:: v \leftarrow W^T u / \|W^T u\|, \quad u \leftarrow W v / \|W v\|, \quad
        \sigma \approx u^T W v

    Args:
        network: Network whose convolutions are seen; it is not made a part of this one.

    References:
        Vahdat and Kautz (2020), NVAE, section 3.3. Yoshida and Miyato (2017), Spectral norm
        regularization, algorithm 1. https://arxiv.org/abs/1705.10941
    """

    has_started: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        convolutions = [m for m in network.modules() if isinstance(m, RegularizedConv2d)]
        # In a list, so that their parameters keep one name.
        self._groups = _by(convolutions, lambda conv: tuple(conv.weight.flatten(1).shape))
        for number, group in enumerate(self._groups):
            rows, _ = group[0].weight.flatten(1).shape
            left = F.normalize(torch.randn(len(group), rows, 1), dim=1)
            self.register_buffer(f"left_{number}", left)
        self.register_buffer("has_started", torch.zeros((), dtype=torch.bool))
        self._knows_started = False

    def forward(self) -> Float[Tensor, ""]:
        """Iterate, and return the sum; differentiable in the weights."""
        iterations = self._iterations()
        with full_precision(self.has_started):
            return torch.stack([n.sum() for n in self._norms(iterations)]).sum()

    def _norms(self, iterations: int) -> Iterable[Tensor]:
        for number, group in enumerate(self._groups):
            matrices = torch.stack([conv.kernel().flatten(1) for conv in group])
            buffer: Tensor = getattr(self, f"left_{number}")
            left, right = _iterated(matrices.detach(), buffer, iterations)
            if self.training:
                buffer.copy_(left)
            yield (left.mT @ matrices @ right)[:, 0, 0]

    def _iterations(self) -> int:
        if self._knows_started:
            return _ITERATIONS
        # Read out of the device once; from then on it is known.
        started = bool(self.has_started)
        if self.training:
            self.has_started.fill_(True)
        self._knows_started = started or self.training
        return _ITERATIONS if started else _FIRST_ITERATIONS

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._knows_started = False
        super()._load_from_state_dict(*args, **kwargs)


@torch.no_grad()
def _iterated(matrices: Tensor, left: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    for _ in range(iterations):
        right = F.normalize(matrices.mT @ left, dim=1)
        left = F.normalize(matrices @ right, dim=1)
    return left, right


class BatchNormScales(nn.Module):
    r"""The sum over batch norms of :math:`\max_c |\gamma_c|`.

    Args:
        network: Network whose batch norms are seen; it is not made a part of this one.

    References:
        Vahdat and Kautz (2020), NVAE, section 3.2; the norm is its code's.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = [m for m in network.modules() if isinstance(m, BatchNorm)]
        self._groups = _by(layers, lambda layer: layer.num_features)

    def forward(self) -> Float[Tensor, ""] | int:
        """Return the sum, differentiable in the scales; of a network without any, the number 0."""
        stacked = [torch.stack([layer.weight for layer in group]) for group in self._groups]
        return sum(scales.abs().amax(1).sum() for scales in stacked)


def _by(items: Sequence[ItemT], key: Any) -> list[list[ItemT]]:
    """Group items, keeping their order."""
    groups: dict[Any, list[ItemT]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())
