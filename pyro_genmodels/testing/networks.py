"""Laws of networks: any leading dimensions, no example sees another, contexts, checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pyro_genmodels._typing import Float, Int
from pyro_genmodels.nets import Denoiser, join_context
from pyro_genmodels.testing.probes import (
    BATCH_SHAPES,
    clean_copy,
    error_of,
    one_by_one,
    under_seed,
)
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


def check_denoiser(net: Denoiser, z: Tensor, contexts: Tensor | None = None) -> None:
    """Check that a denoiser maps each example by itself, at its own level, with its own context.

    Batch shapes of inputs, levels and contexts broadcast. A null context takes the place of one
    that is not kept, and reads none; without a null context a missing context is an error.

    Args:
        net: The network, in eval mode and in float64.
        z: One input ``(*event)``, in float64.
        contexts: Two different contexts, along the first dimension, if it takes any.

    Raises:
        AssertionError: Naming what is broken, with the figures.

    Example:
        >>> from pyro_genmodels.nets import DenseDenoiser
        >>> from pyro_genmodels.testing import randomize_parameters
        >>> net = randomize_parameters(DenseDenoiser(2, 2, hidden=(8,)).double())
        >>> check_denoiser(net, torch.ones(2, dtype=torch.float64))
    """
    given = () if contexts is None else (contexts,)
    inputs = torch.linspace(0.5, 1, 3, dtype=z.dtype).view(3, 1, 1, *[1] * z.dim()) * z
    levels = torch.tensor([0.1, 0.8], dtype=z.dtype)[:, None]
    together = net(inputs, levels, *given)
    batch = torch.Size([3, 2, 1 if contexts is None else 2])
    sizes = z.shape[1:] if len(net.output_shape) > 1 else ()
    law = "inputs, levels and contexts broadcast to the declared shape"
    require_shape(law, together.shape, [*batch, net.output_shape[0], *sizes])
    each = [inputs.expand(*batch, *z.shape), levels.expand(batch)]
    each += [c.expand(*batch, *c.shape[1:]) for c in given]
    law = "each example is mapped as if alone"
    require_close(law, together, one_by_one(net, *each, batch_shape=batch))
    if contexts is not None:
        matters = not torch.equal(together[:, :, 0], together[:, :, 1])
        require_law(matters, "the context changes the prediction", "two contexts give the same")
    if net.null_context:
        _check_null_context(net, inputs, levels, contexts)
        return
    calls = {"keep": partial(net, inputs, levels, *given, keep=torch.tensor(True))}
    if contexts is not None:
        calls["context"] = partial(net, inputs, levels)
    for argument, call in calls.items():
        error = error_of(call)
        refused = isinstance(error, ValueError) and f"`{argument}`" in str(error)
        law = f"without a null context, `{argument}` is refused by name"
        require_law(refused, law, f"there was {error!r}")


def _check_null_context(
    net: Denoiser, inputs: Tensor, levels: Tensor, contexts: Tensor | None
) -> None:
    assert contexts is not None  # a network without contexts has no null one
    null, nothing = net(inputs, levels), torch.tensor(False)
    mixed = net(inputs, levels, contexts, keep=torch.tensor([True, False]))
    kept = net(inputs, levels, contexts)
    require_close("a context that is kept is used", mixed[:, :, 0], kept[:, :, 0])
    law = "the null context takes the place of one that is not kept"
    require_close(law, mixed[:, :, 1], null[:, :, 0])
    dropped = [net(inputs, levels, given, keep=nothing) for given in (contexts, contexts.flip(0))]
    require_equal("the null context reads no context", *dropped)


def check_context_pair(
    call: Callable[[Tensor], Tensor],
    labels: Int[Tensor, " N"],
    features: Float[Tensor, "N ..."],
    *,
    num_classes: int,
) -> None:
    """Check that a label and features given as one context both count, each example's own.

    A label that is none must be a ``ValueError`` that names the context; so must a map or sequence
    whose first channel holds several labels.

    Args:
        call: Takes what :func:`pyro_genmodels.nets.join_context` makes of labels and features, and
            returns values ``(N, ...)``, some for each example; the same when called again.
        labels: Two labels or more.
        features: As many vectors, sequences or maps.
        num_classes: Number of labels, two or more.

    Raises:
        AssertionError: Naming what did not count, whose values moved, or the label that passed.

    Example:
        >>> from pyro_genmodels.nets import ContextEmbedding
        >>> embedding = ContextEmbedding(3, num_classes=4, context_shape=(2,))
        >>> check_context_pair(embedding, torch.tensor([0, 3]), torch.randn(2, 2), num_classes=4)
    """
    rank = features.dim() - 1
    context = join_context(labels, features, rank)
    values = call(context).detach()
    others = (labels + 1) % num_classes, 2.5 * features + 1.5
    changed = {"the label": (others[0], features), "the features": (labels, others[1])}
    for name, (label, given) in changed.items():
        moved = join_context(label, given, rank)
        difference = float((call(moved).detach() - values).abs().max())
        bound = tolerance(values.dtype)
        require_law(difference > bound, f"{name} counts", f"values moved by {difference:g}")
        of_last = torch.cat([context[:-1], moved[-1:]])
        law = f"{name} of one example moves no other's values"
        require_close(law, call(of_last).detach()[:-1], values[:-1])
    for wrong in (num_classes, -1, 0.5):
        spoilt = context.clone()
        spoilt.narrow(-rank, 0, 1)[-1] = wrong
        _require_named(call, spoilt, "begin with labels", f"label {wrong}")
    if features[0, 0].numel() > 1:
        spoilt = context.clone()
        spoilt[-1, 0].flatten()[-1] = (labels[-1] + 1) % num_classes
        _require_named(call, spoilt, "have one label all over", "a channel of several labels")


def _require_named(call: Callable[[Tensor], Tensor], context: Tensor, rule: str, what: str) -> None:
    error = error_of(call, context)
    named = isinstance(error, ValueError) and str(error).startswith(f"`context` must {rule}")
    require_law(named, f"{what} is an error", "it passed" if error is None else str(error))


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
