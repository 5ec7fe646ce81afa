"""Laws of networks: any leading dimensions, no example sees another, dtypes, checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pyro_genmodels.testing.probes import BATCH_SHAPES, clean_copy, one_by_one, under_seed
from pyro_genmodels.testing.report import (
    require_close,
    require_equal,
    require_law,
    require_shape,
    require_within,
    tolerance,
)

_Loss: TypeAlias = "Callable[[Any], Tensor]"


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
    for batch_shape in BATCH_SHAPES:
        scale = torch.linspace(0.5, 1, batch_shape.numel(), dtype=x.dtype)
        many = scale.reshape((*batch_shape, *(1,) * x.dim())) * x
        arguments = many, *(c.expand((*batch_shape, *c.shape)) for c in given)
        together = _output(network, *arguments)
        law = f"a batch of shape {tuple(batch_shape)} keeps its shape"
        require_shape(law, together.shape[: len(batch_shape)], batch_shape)
        alone = one_by_one(partial(_output, network), *arguments, batch_shape=batch_shape)
        law = f"each example of a batch of shape {tuple(batch_shape)} is mapped as if alone"
        require_close(law, together, alone)
    if isinstance(network, nn.Module):
        single = clean_copy(network).float()
        floats = [c.float() if c.is_floating_point() else c for c in given]
        output = _output(single, x.float(), *floats)
        require_law(output.dtype == torch.float32, "float32 stays", f"it became {output.dtype}")
        bound = tolerance(torch.float32) * (1 + expected.detach().abs().amax())
        require_within("float32 = float64", (output.double() - expected).abs(), bound)


def _output(network: Callable[..., Any], *arguments: Tensor) -> Tensor:
    output = network(*arguments)
    return output[0] if isinstance(output, tuple) else output


def check_checkpointing(module: nn.Module, loss: Callable[[Any], Tensor], *, seed: int = 0) -> None:
    """Check that a module has the same gradients whether it keeps its activations or not.

    The attribute ``checkpoint`` or ``checkpointing`` of each sub-module that has one is switched
    off and on. In training mode the two must agree to the bit after one backward pass, a second one
    through the same evaluation, a gradient of a gradient, a backward pass in evaluation mode, and
    one after another evaluation; and so must their buffers, such as running statistics.

    Args:
        module: Module with such an attribute in some part of it; copies are worked on.
        loss: Returns the loss of a copy, a scalar; its random numbers are those of ``seed``.
        seed: Seed of each loss.

    Raises:
        AssertionError: Naming the way, and the parameter or buffer that differs.

    Example:
        >>> from pyro_genmodels.transforms import RealNVP
        >>> flow = RealNVP(2, num_couplings=2, width=4)
        >>> y = torch.randn(5, 2)
        >>> check_checkpointing(flow, lambda f: (f.inv(y) ** 2).sum())
    """
    require_law(
        bool(_switches(module)), "checkpointing can be switched", "no part has an attribute for it"
    )
    for way, differentiate in _BACKWARD_PASSES.items():
        found = []
        for on in (False, True):
            copied = clean_copy(module).train()
            for part, name in _switches(copied):
                setattr(part, name, on)
            gradients = under_seed(seed, differentiate, copied, loss)
            found.append((gradients, dict(copied.named_buffers())))
        (expected, buffers), (actual, own_buffers) = found
        law = f"checkpointing changes nothing after {way}"
        for name, gradient in expected.items():
            finite = bool(gradient.isfinite().all())
            require_law(finite, "gradients are finite", f"that of {name} is not, after {way}")
            require_equal(f"{law}: gradient of {name}", actual[name], gradient)
        for name, buffer in buffers.items():
            require_equal(f"{law}: buffer {name}", own_buffers[name], buffer)


def _switches(module: nn.Module) -> list[tuple[nn.Module, str]]:
    names = ("checkpoint", "checkpointing")
    return [(m, n) for m in module.modules() for n in names if isinstance(vars(m).get(n), bool)]


def _gradients(value: Tensor, module: nn.Module, **options: Any) -> dict[str, Tensor]:
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(value, [*named.values()], allow_unused=True, **options)
    return {n: g for n, g in zip(named, gradients, strict=True) if g is not None}


def _once(module: nn.Module, loss: _Loss) -> dict[str, Tensor]:
    return _gradients(loss(module), module)


def _twice(module: nn.Module, loss: _Loss) -> dict[str, Tensor]:
    value = loss(module)
    _gradients(value, module, retain_graph=True)
    return _gradients(value, module)


def _of_a_gradient(module: nn.Module, loss: _Loss) -> dict[str, Tensor]:
    gradients = _gradients(loss(module), module, create_graph=True)
    penalty = torch.stack([g.square().sum() for g in gradients.values()]).sum()
    return _gradients(penalty, module)


def _in_another_mode(module: nn.Module, loss: _Loss) -> dict[str, Tensor]:
    value = loss(module)
    module.eval()
    return _gradients(value, module)


def _after_another(module: nn.Module, loss: _Loss) -> dict[str, Tensor]:
    value = loss(module)
    return _gradients(value - 0.5 * loss(module), module)


_BACKWARD_PASSES: dict[str, Callable[[nn.Module, _Loss], dict[str, Tensor]]] = {
    "one backward pass": _once,
    "a second backward pass": _twice,
    "a gradient of a gradient": _of_a_gradient,
    "a backward pass in evaluation mode": _in_another_mode,
    "another evaluation": _after_another,
}
