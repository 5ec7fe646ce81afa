"""Batch norm's running statistics as they are in sampling, which training does not see."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_genmodels.nets.nvae import BatchNorm


@torch.no_grad()
def reestimate(network: nn.Module, evaluate: Callable[[], Tensor], num_iterations: int) -> int:
    """Let a network's batch norms see what ``evaluate`` runs through them.

    An evaluation that leaves a statistic, or its output, not finite is undone.

    Args:
        network: Network whose batch norms learn, in training mode meanwhile.
        evaluate: Runs the network on new draws.
        num_iterations: How often.

    Returns:
        How many evaluations were undone.
    """
    layers = [m for m in network.modules() if isinstance(m, BatchNorm)]
    modes = [layer.training for layer in layers]
    statistics = [b for m in layers for b in (m.running_mean, m.running_var) if b is not None]
    failures = torch.zeros((), device=statistics[0].device if statistics else None)
    try:
        for layer in layers:
            layer.train()
        for _ in range(num_iterations):
            before = [each.clone() for each in statistics]
            finite = torch.isfinite(evaluate()).all()
            for each in statistics:
                finite = finite & torch.isfinite(each).all()
            # Not read here: on a GPU each answer would wait for the device.
            for each, old in zip(statistics, before, strict=True):
                each.copy_(torch.where(finite, each, old))
            failures += ~finite
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.train(mode)
    return int(failures)
