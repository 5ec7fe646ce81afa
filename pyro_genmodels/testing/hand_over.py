"""Laws of the log-determinant's hand-over: one network call, and never an old value.

Asked for a log-probability, torch inverts first and asks for the log-determinant next. A transform
that keeps the second from the first saves a network call, and is wrong as soon as what it kept is
older than the parameters, the sample, or the grad mode.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to

from pyro_genmodels.testing.probes import (
    PARAMETER_CHANGES,
    Change,
    clean_copy,
    counted_calls,
    draw,
    modules_of,
    pickled,
    seeded,
    under_seed,
)
from pyro_genmodels.testing.report import require_close, require_equal, require_law
from pyro_genmodels.transforms.interop import is_real

Interference: TypeAlias = "Callable[[list[nn.Module], Tensor], None]"


def flow_distribution(transform: Any, x: Tensor) -> Any:
    """Return standard noise shaped as one event of ``x``, pushed through the transform.

    A bounded domain gets its noise through ``biject_to``.

    Example:
        >>> flow = flow_distribution(torch.distributions.ExpTransform(), torch.zeros(5))
        >>> flow.event_shape, flow.batch_shape
        (torch.Size([]), torch.Size([]))
    """
    event_dim = transform.domain.event_dim
    zeros = torch.zeros(x.shape[x.dim() - event_dim :], dtype=x.dtype, device=x.device)
    base = dist.Normal(zeros, torch.ones_like(zeros), validate_args=False).to_event(event_dim)
    bounded = not is_real(transform.domain)
    transforms = [biject_to(transform.domain), transform] if bounded else [transform]
    return dist.TransformedDistribution(base, transforms)


def check_single_evaluation(
    transform: Any, x: Tensor, *, modules: Sequence[nn.Module] | None = None
) -> None:
    """Check that a likelihood costs one evaluation of each network.

    ``log_prob`` may call each submodule with parameters as often as one inverse does, and
    ``rsample`` with ``log_prob`` of that very sample as often as one forward does.

    Args:
        transform: Any bijective ``torch.distributions.Transform``.
        x: Points of its domain, ``(*batch, *event)``.
        modules: Modules whose calls count; those that the transform holds if not given.

    Raises:
        AssertionError: With the calls of each submodule that is called too often.

    Example:
        >>> from pyro.distributions.transforms import affine_coupling
        >>> check_single_evaluation(affine_coupling(4), torch.randn(3, 4))
    """
    modules = modules_of(transform) if modules is None else list(modules)
    flow = flow_distribution(transform, x)
    y = draw(transform.codomain, transform.forward_shape(x.shape), like=x, seed=0)
    with counted_calls(modules) as one_inverse:
        transform.inv(y.clone())
    with counted_calls(modules) as scoring:
        flow.log_prob(y.clone())
    _same_calls("log_prob evaluates each network once", scoring, one_inverse)
    with counted_calls(modules) as one_forward:
        transform(x.clone())
    with counted_calls(modules) as sampling:
        flow.log_prob(flow.rsample(x.shape[: x.dim() - transform.domain.event_dim]))
    _same_calls("rsample then log_prob evaluates each network once", sampling, one_forward)


def _same_calls(law: str, actual: Any, allowed: Any) -> None:
    excess = {n: (count, allowed[n]) for n, count in actual.items() if count > allowed[n]}
    require_law(not excess, law, f"calls (measured, allowed) {excess}")


def check_no_stale_value(transform: Any, x: Tensor) -> None:
    """Check that nothing served is older than the parameters or the sample.

    Between two scorings, and between sampling and scoring, the parameters change (SGD, fused Adam,
    a write through ``.data``, ``load_state_dict``) or the sample does (an in-place edit); each
    time the score must be that of a clone, which nothing can have remembered.

    Args:
        transform: Any bijective ``torch.distributions.Transform``; a deep copy is worked on.
        x: Points of its domain, ``(*batch, *event)``.

    Raises:
        AssertionError: Naming the change and the scoring that missed it.

    Example:
        >>> check_no_stale_value(torch.distributions.ExpTransform(cache_size=0), torch.zeros(3))
    """
    for name, interfere in _INTERFERENCES.items():
        subject = clean_copy(transform)
        flow = flow_distribution(subject, x)
        batch_shape = x.shape[: x.dim() - subject.domain.event_dim]
        for way in ("log_prob", "inverse", "rsample"):
            y = under_seed(0, _used_draw, way, subject, flow, batch_shape)
            interfere(modules_of(subject), y)
            law = f"{way}, then {name}: log_prob is fresh"
            require_close(law, flow.log_prob(y), flow.log_prob(y.clone()))
        y = under_seed(0, flow.sample, batch_shape)
        preimage = subject.inv(y)
        interfere(modules_of(subject), y)
        # After the edit the pair no longer belongs together; only the parameters' law is left.
        if name != "an in-place edit of the sample":
            # First: a pair never seen empties a slot.
            actual = subject.log_abs_det_jacobian(preimage, y)
            fresh = subject.log_abs_det_jacobian(preimage.detach().clone(), y.clone())
            require_close(f"inverse, then {name}: log-det is fresh", actual, fresh)


def _used_draw(way: str, transform: Any, flow: Any, batch_shape: torch.Size) -> Tensor:
    y: Tensor = flow.rsample(batch_shape) if way == "rsample" else flow.sample(batch_shape)
    if way == "log_prob":
        flow.log_prob(y)
    if way == "inverse":
        transform.inv(y)
    return y


def _parameters(modules: list[nn.Module]) -> list[nn.Parameter]:
    return [p for m in modules for p in m.parameters() if p.requires_grad]


def _changing(change: Change) -> Interference:
    def interfere(modules: list[nn.Module], y: Tensor) -> None:
        parameters = _parameters(modules)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        if parameters:
            change(parameters)

    return interfere


def _load_state(modules: list[nn.Module], y: Tensor) -> None:
    for module in modules:
        changed = {name: p.detach() * 0.9 for name, p in module.named_parameters()}
        module.load_state_dict(module.state_dict() | changed)


def _edit_sample(modules: list[nn.Module], y: Tensor) -> None:
    y.mul_(0.9)


def _switch_mode(modules: list[nn.Module], y: Tensor) -> None:
    for module in modules:
        module.train(not module.training)
        module.train(not module.training)


_INTERFERENCES: dict[str, Interference] = {
    **{name: _changing(change) for name, change in PARAMETER_CHANGES.items()},
    "load_state_dict": _load_state,
    "an in-place edit of the sample": _edit_sample,
    "a switch to the other mode and back": _switch_mode,
}


def check_gradients_survive(transform: Any, x: Tensor) -> None:
    """Check that grad mode, repetition and copying leave likelihood and gradient right.

    A sample drawn under ``no_grad`` is scored with gradient; a sample is scored and
    differentiated twice; a transform that has sampled is deep-copied and pickled.

    Args:
        transform: Any bijective ``torch.distributions.Transform``; a deep copy is worked on.
        x: Points of its domain, ``(*batch, *event)``.

    Raises:
        AssertionError: If a gradient is missing or wrong, or a copy differs.

    Example:
        >>> check_gradients_survive(torch.distributions.ExpTransform(), torch.zeros(3))
    """
    transform = clean_copy(transform)
    flow, parameters = flow_distribution(transform, x), _parameters(modules_of(transform))
    batch_shape = x.shape[: x.dim() - transform.domain.event_dim]
    with seeded(0), torch.no_grad():
        y = flow.sample(batch_shape)
    _check_gradient("a sample drawn under no_grad", flow, y, parameters)
    with torch.no_grad():
        transform.inv(y)
    _check_gradient("a sample inverted under no_grad", flow, y, parameters)
    for time in ("first", "second"):
        _check_gradient(f"one tensor for the {time} time", flow, y, parameters)
    flow.rsample(batch_shape)
    expected = flow.log_prob(y.clone())
    copies: dict[str, Callable[[Any], Any]] = {"deepcopy": copy.deepcopy, "pickle": pickled}
    for way, again in copies.items():
        copied = flow_distribution(again(transform), x)
        require_equal(f"{way} after rsample scores alike", copied.log_prob(y), expected)


def _check_gradient(what: str, flow: Any, y: Tensor, parameters: list[nn.Parameter]) -> None:
    score = flow.log_prob(y)
    fresh = flow.log_prob(y.clone())
    require_close(f"log_prob of {what} = that of its clone", score, fresh)
    if not fresh.requires_grad:
        return
    require_law(score.requires_grad, f"log_prob of {what} has a gradient", "it has none")
    gradients = [
        torch.autograd.grad(each.sum(), parameters, materialize_grads=True)
        for each in (score, fresh)
    ]
    for index, (actual, expected) in enumerate(zip(*gradients, strict=True)):
        law = f"gradient of {what} = that of its clone, parameter {index}"
        require_close(law, actual, expected)
