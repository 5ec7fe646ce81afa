"""What a case is, and what the cases share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LABELS = torch.tensor([0, 2])


def features(*shape: int) -> Tensor:
    """A batch of two contexts that are vectors or maps."""
    return torch.linspace(-1, 1, 2 * torch.Size(shape).numel(), dtype=torch.float64).reshape(
        2, *shape
    )


def vivid(net: nn.Module) -> nn.Module:
    """Make an autoregressive network's output depend strongly on its input.

    At random parameters of ordinary size it hardly does, and what a sampler conditions on would
    not show in its samples.
    """
    names = {name: p for name, p in net.named_parameters() if p.dim() > 1 and "context" not in name}
    weights = list(names.values())
    with torch.no_grad():
        for weight in (weights[0], weights[-1]):
            weight.mul_(4)
    return net


@dataclass(frozen=True)
class Case:
    """A part, the sizes of one event that it takes, and a batch of contexts if it takes any."""

    part: Any
    event_shape: tuple[int, ...] = ()
    context: Tensor | None = None


Cases = dict[str, Callable[[], Case]]
