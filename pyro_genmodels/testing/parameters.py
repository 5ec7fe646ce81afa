"""Move every parameter away from its initial value, where errors hide."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check_positive

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def randomize_parameters(module: ModuleT, scale: float = 0.5, *, seed: int = 0) -> ModuleT:
    r"""Add bounded noise to every parameter, in place.

    At their initial values, zero last layers hide input-dependent couplings, orthogonal matrices
    hide dropped log-determinants, and zero biases hide shifted masks. Each element moves by
    between half and all of :math:`s`, with a random sign, where :math:`s` is ``scale`` for vectors
    and ``scale`` over the root of the fan-in for larger tensors: a layer's output, its
    log-scale among them, moves by about ``scale`` whatever its width, so that the map stays
    invertible in float. Buffers are left alone: masks and initialisation flags are no parameters.

    Args:
        module: Module to change.
        scale: Size of the move.
        seed: Seed of the noise; the global random state is neither read nor advanced.

    Returns:
        The module itself.

    Raises:
        ValueError: If ``scale`` is not positive.

    Example:
        >>> layer = torch.nn.Linear(4, 1)
        >>> before = layer.bias.item()
        >>> abs(randomize_parameters(layer, 0.5).bias.item() - before) >= 0.25
        True
    """
    check_positive(scale=scale)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(_bounded_noise(parameter, scale, generator).to(parameter))
    return module


def _bounded_noise(parameter: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
    uniform = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
    return signs * (0.5 + 0.5 * uniform) * scale / fan_in**0.5
