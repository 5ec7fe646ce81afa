"""Instruments that the laws share: inputs, Jacobians, call counts, seeds."""

from __future__ import annotations

import contextlib
import copy
import functools
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import biject_to

Change: TypeAlias = Callable[[list[nn.Parameter]], None]
LawT = TypeVar("LawT", bound=Callable[..., None])


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under a seed and give the CPU's random state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def confirmed(law: LawT) -> LawT:
    """Make a law by standard errors report only what a second seed shows too.

    Three standard errors are passed by luck once in 370 draws; twice, once in 100,000.
    """

    @functools.wraps(law)
    def confirmed_law(*arguments: Any, seed: int = 0, **options: Any) -> None:
        try:
            law(*arguments, seed=seed, **options)
        except AssertionError:
            law(*arguments, seed=seed + 1_000_003, **options)

    return cast(LawT, confirmed_law)


def base_of(constraint: Any) -> Any:
    """Return what a constraint asks of each element, whatever the dimensions of its event."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint


def takes_missing(constraint: Any) -> bool:
    """Return whether NaN is a value that a constraint allows, of an element not observed."""
    while hasattr(constraint, "base_constraint") and not hasattr(constraint, "takes_missing"):
        constraint = constraint.base_constraint
    return bool(getattr(constraint, "takes_missing", False))


def error_of(call: Callable[..., Any], *arguments: Any) -> Exception | None:
    """Return the exception that a call raises, if it does."""
    try:
        call(*arguments)
    except Exception as error:
        return error
    return None


def pickled(part: Any) -> Any:
    """Return what pickle makes of a part."""
    return pickle.loads(pickle.dumps(part))


def under_seed(seed: int, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return what a call gives under a seed; the global random state is given back."""
    with seeded(seed):
        return call(*arguments, **options)


def _step(optimizer: Callable[..., torch.optim.Optimizer], **options: Any) -> Change:
    return lambda parameters: optimizer(parameters, **options).step()


def _write_through_data(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.data.mul_(0.9)


PARAMETER_CHANGES: dict[str, Change] = {
    "an SGD step": _step(torch.optim.SGD, lr=0.02),
    "a foreach Adam step": _step(torch.optim.Adam, lr=0.02, foreach=True),
    "a fused Adam step": _step(torch.optim.Adam, lr=0.02, fused=True),
    "a write through .data": _write_through_data,
}
"""Ways in which parameters change, given their gradients."""

BATCH_SHAPES = tuple(map(torch.Size, [(), (1,), (3,), (2, 1), (2, 1, 3)]))
"""Leading shapes that a law tries: none, one or several dimensions, ones among them."""


def one_by_one(
    function: Callable[..., Tensor], *arguments: Tensor, batch_shape: torch.Size
) -> Tensor:
    """Return what a function gives each example of a batch alone, as a batch again."""
    number, rank = batch_shape.numel(), len(batch_shape)
    flat = [t.reshape(number, *t.shape[rank:]) for t in arguments]
    results = torch.stack([function(*example) for example in zip(*flat, strict=True)])
    return results.reshape(batch_shape + results.shape[1:])


def draw(constraint: Any, shape: Sequence[int], *, like: Tensor, seed: int) -> Tensor:
    """Draw a tensor of that shape that satisfies a constraint, spread as a normal would be."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)
    return biject_to(constraint)(noise)


def near_ends(constraint: Any, x: Tensor) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield points that approach an end, for each finite end that a constraint includes.

    The last of a list of three lies at the end, the first two ten steps and one step before it:
    once with all elements there, and once with the last element of each event alone.
    """
    constraint = base_of(constraint)
    last = torch.zeros(x.shape[-1:] if x.dim() else (), dtype=torch.bool)
    last[..., -1:] = True
    for name, inwards in (("lower", 1.0), ("upper", -1.0)):
        bound = getattr(constraint, f"{name}_bound", None)
        if bound is None:
            continue
        end = torch.as_tensor(bound).to(x)
        if not bool((constraint.check(end) & end.isfinite()).all()):
            continue
        step = inwards * torch.finfo(x.dtype).eps ** 0.5
        for which, moves in (("all elements", torch.ones_like(last)), ("one element", last)):
            at = [torch.where(moves, end + k * step, x) for k in (10, 1, 0)]
            yield f"{which} at the {name} end", at


def jacobian(
    function: Callable[[Tensor], Tensor], x: Tensor, event_dim: int, output_event_dim: int
) -> Tensor:
    """Return the full Jacobian of each event by reverse mode.

    Every event is copied once for each of its outputs along a new leading dimension, which all
    our maps accept, so that one forward and one backward pass serve.

    Args:
        function: Map of ``(*batch, *event)`` to ``(*batch, *output_event)``.
        x: Points of shape ``(*batch, *event)``.
        event_dim: Number of trailing dimensions of an event.
        output_event_dim: The same of an output.

    Returns:
        Shape ``(*batch, outputs, inputs)``.
    """
    batch_shape = x.shape[: x.dim() - event_dim]
    with torch.no_grad():
        sizes = function(x).shape
    size = sizes[len(sizes) - output_event_dim :].numel()
    copies = x.detach().expand(size, *x.shape).clone().requires_grad_()
    y = function(copies)
    one_hot = torch.eye(size, dtype=y.dtype, device=y.device)
    one_hot = one_hot.reshape(size, *(1,) * len(batch_shape), size)
    cotangent = one_hot.expand(size, *batch_shape, size).reshape(y.shape)
    (gradient,) = torch.autograd.grad(y, copies, cotangent, materialize_grads=True)
    return gradient.reshape(size, *batch_shape, -1).movedim(0, -2)


def modules_of(part: Any) -> list[nn.Module]:
    """Return the outermost nn.Modules that a part is or holds, each once.

    Transforms and distributions hold networks in attributes, lists and parts of parts.
    """
    found: list[nn.Module] = []
    seen: set[int] = set()
    waiting = [part]
    while waiting:
        held = waiting.pop(0)
        if id(held) in seen:
            continue
        seen.add(id(held))
        has_parts = isinstance(held, torch.distributions.Transform) or hasattr(held, "log_prob")
        if isinstance(held, nn.Module):
            found.append(held)
        elif isinstance(held, list | tuple):
            waiting = [*held, *waiting]
        elif has_parts or held is part:
            waiting = [*vars(held).values(), *waiting]
    return found


def clean_copy(part: Any) -> Any:
    """Return a deep copy, having dropped what a use has left: a graph cannot be copied."""
    if hasattr(part, "clear_cache"):
        part.clear_cache()
    return copy.deepcopy(part)


@contextlib.contextmanager
def counted_calls(modules: Sequence[nn.Module]) -> Iterator[Counter[str]]:
    """Count the calls of every submodule that has parameters of its own."""
    calls: Counter[str] = Counter()
    with contextlib.ExitStack() as hooks:
        for name, module in nn.ModuleList(modules).named_modules():
            if list(module.parameters(recurse=False)):
                handle = module.register_forward_pre_hook(_counting(calls, name))
                hooks.callback(handle.remove)
        yield calls


def _counting(calls: Counter[str], name: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        calls[name] += 1

    return hook
