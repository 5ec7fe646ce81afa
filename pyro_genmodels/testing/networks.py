"""Laws of plain networks: any leading dimensions, no example sees another, dtypes are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels.testing.probes import clean_copy
from pyro_genmodels.testing.report import require_close, require_law, tolerance


def check_network(network: Callable[..., Any], x: Tensor, context: Tensor | None = None) -> None:
    """Check that a network maps each example as if it were alone, over any batch shape.

    Of a network that returns a tuple, its first tensor counts. A module must also keep float32
    and agree there with float64 to 1e-4.

    Args:
        network: Called with ``(*batch, *event)``, and with a context if there is one.
        x: One example ``(*event)``, in float64.
        context: One context without batch dimensions.

    Raises:
        AssertionError: Naming the batch shape whose result differs, with the figures.

    Example:
        >>> check_network(torch.nn.Linear(3, 2).double(), torch.zeros(3, dtype=torch.float64))
    """
    given = () if context is None else (context,)
    expected = _output(network, x, *given)
    for batch_shape in [(), (1,), (3,), (2, 1), (2, 1, 3)]:
        scale = torch.linspace(0.5, 1, torch.Size(batch_shape).numel(), dtype=x.dtype)
        many = scale.reshape((*batch_shape, *(1,) * x.dim())) * x
        contexts = [c.expand((*batch_shape, *c.shape)) for c in given]
        _check_batch(network, many, contexts, torch.Size(batch_shape))
    if isinstance(network, nn.Module):
        single = clean_copy(network).float()
        floats = [c.float() if c.is_floating_point() else c for c in given]
        output = _output(single, x.float(), *floats)
        require_law(output.dtype == torch.float32, "float32 stays", f"it became {output.dtype}")
        bound = tolerance(torch.float32) * (1 + float(expected.detach().abs().max()))
        error = float((output.double() - expected).detach().abs().max())
        require_law(error <= bound, "float32 = float64", f"measured {error:.4g}, bound {bound:.4g}")


def _output(network: Callable[..., Any], *arguments: Tensor) -> Tensor:
    output = network(*arguments)
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


def _check_batch(
    network: Callable[..., Any], x: Tensor, contexts: list[Tensor], batch_shape: torch.Size
) -> None:
    rank = len(batch_shape)
    together = _output(network, x, *contexts)
    problem = f"shape {tuple(together.shape)}"
    law = f"a batch of shape {tuple(batch_shape)} keeps its shape"
    require_law(together.shape[:rank] == batch_shape, law, problem)
    flat = [t.reshape(-1, *t.shape[rank:]) for t in (x, *contexts)]
    alone = torch.stack([_output(network, *arguments) for arguments in zip(*flat, strict=True)])
    law = f"each example of a batch of shape {tuple(batch_shape)} is mapped as if alone"
    require_close(law, together, alone.reshape(together.shape))
