"""Laws of invertible maps: inverse, log-determinant, shapes, precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels.testing.probes import (
    BATCH_SHAPES,
    clean_copy,
    draw,
    jacobian,
    modules_of,
    near_ends,
    one_by_one,
)
from pyro_genmodels.testing.report import (
    require_close,
    require_law,
    require_limit,
    require_shape,
    require_within,
    tolerance,
)
from pyro_genmodels.transforms.interop import is_real


def condition_number(transform: Any, x: Tensor) -> Tensor:
    r"""Estimate by how much a round trip may amplify rounding, at each point.

    .. math:: \max(1, \|J\|_2) \max(1, \|J^{-1}\|_2) (1 + \max_i |x_i|)

    Args:
        transform: Any ``torch.distributions.Transform`` that is a bijection.
        x: Points of its domain, ``(*batch, *event)``.

    Returns:
        Shape ``(*batch)``.

    Example:
        >>> affine = torch.distributions.AffineTransform(0.0, 10.0)
        >>> condition_number(affine, torch.zeros(2, dtype=torch.float64)).tolist()
        [10.0, 10.0]
    """
    event_dim, output_dim = transform.domain.event_dim, transform.codomain.event_dim
    singular = torch.linalg.svdvals(jacobian(transform, x, event_dim, output_dim))
    amplification = singular[..., 0].clamp_min(1) / singular[..., -1].clamp_max(1)
    return amplification * (1 + _largest(x, event_dim))


def _largest(x: Tensor, event_dim: int) -> Tensor:
    return x.abs().reshape(*x.shape[: x.dim() - event_dim], -1).amax(-1)


def check_inverse(transform: Any, x: Tensor, *, y: Tensor | None = None, seed: int = 0) -> None:
    r"""Check :math:`f^{-1}(f(x)) = x` and :math:`f(f^{-1}(y)) = y`.

    Caches and hand-over slots are kept out of the way: each map is given clones.

    Args:
        transform: Any bijective ``torch.distributions.Transform``, ours, Pyro's or yours.
        x: Points of its domain, ``(*batch, *event)``; their dtype sets the bound.
        y: Points of its codomain; drawn if not given.
        seed: Seed of ``y``.

    Raises:
        AssertionError: If an error exceeds 1e-9 (float64) or 1e-4 (float32) times
            :func:`condition_number`.

    Example:
        >>> x = torch.randn(3, 4, dtype=torch.float64)
        >>> check_inverse(torch.distributions.ExpTransform(), x)
    """
    if y is None:
        shape = transform.forward_shape(x.shape)
        y = draw(transform.codomain, shape, like=x, seed=seed)
    with torch.no_grad():
        there = transform(x.clone()).clone()
        back, preimage = transform.inv(there), transform.inv(y.clone()).clone()
        forth = transform(preimage)
    condition = condition_number(transform, x)
    # Its bound would be infinite and pass anything. Where y lies off the image that is no mistake.
    regular = bool(torch.isfinite(condition).all())
    require_law(regular, "inverse(forward(x)) = x", "the Jacobian is singular there")
    _check_round_trip("inverse(forward(x)) = x", condition, x, back)
    condition = condition_number(transform, preimage)
    _check_round_trip("forward(inverse(y)) = y", condition, y, forth)


def _check_round_trip(law: str, condition: Tensor, before: Tensor, after: Tensor) -> None:
    require_shape(law, after.shape, before.shape)
    require_law(bool(torch.isfinite(after).all()), law, "the round trip is not finite")
    bound = tolerance(before.dtype) * condition
    require_within(law, _largest(after - before, before.dim() - condition.dim()), bound)


def check_log_det(transform: Any, x: Tensor) -> None:
    """Check the log-determinant against ``slogdet`` of autograd's full Jacobian.

    It is asked for in each way that a likelihood asks: after the forward map, after the inverse,
    of a pair that the transform has not seen, and of the inverse transform.

    Args:
        transform: Any bijective ``torch.distributions.Transform``.
        x: Points of its domain, ``(*batch, *event)``; float64 unless rounding is the question.

    Raises:
        AssertionError: If an error exceeds ``1e-9 (1 + |log-det|)`` (1e-4 in float32).

    Example:
        >>> x = torch.randn(3, 4, dtype=torch.float64)
        >>> check_log_det(torch.distributions.TanhTransform(), x)
    """
    event_dim, output_dim = transform.domain.event_dim, transform.codomain.event_dim
    expected = torch.linalg.slogdet(jacobian(transform, x, event_dim, output_dim)).logabsdet
    for way, actual in _log_dets(transform, x).items():
        require_close(f"log-det ({way}) = slogdet of the Jacobian", actual, expected)


def _log_dets(transform: Any, x: Tensor) -> dict[str, Tensor]:
    x = x.clone()
    y = transform(x)
    log_dets = {"after forward": transform.log_abs_det_jacobian(x, y)}
    y = y.detach().clone()
    x = transform.inv(y)
    log_dets["after inverse"] = transform.log_abs_det_jacobian(x, y)
    log_dets["asked again"] = transform.log_abs_det_jacobian(x, y)
    log_dets["of an unseen pair"] = transform.log_abs_det_jacobian(x.clone(), y.clone())
    log_dets["of the inverse, negated"] = -transform.inv.log_abs_det_jacobian(y.clone(), x.clone())
    return log_dets


def check_inverse_module(transform: Any) -> None:
    """Check that the inverse has the transform's parameters for its own, and is tied to it.

    What holds ``transform.inv``, a guide or a module, then trains, saves and moves them; of an
    inverse that is not a module nothing says that its parameters stay as they are.

    Args:
        transform: Any bijective ``torch.distributions.Transform``.

    Raises:
        AssertionError: If the inverse of a module is not one, a parameter is missing, the
            inverse's inverse is another transform, or asking for it adds parts to the transform.

    Example:
        >>> check_inverse_module(torch.distributions.ExpTransform())
    """
    modules = modules_of(transform)
    before = [list(module.state_dict()) for module in modules]
    inverse = transform.inv
    problem = f"it is {type(inverse).__name__}"
    is_module = isinstance(inverse, nn.Module) or not isinstance(transform, nn.Module)
    require_law(is_module, "the inverse of a module is a module", problem)
    owned = {id(p) for module in modules_of(inverse) for p in module.parameters()}
    missing = [n for m in modules for n, p in m.named_parameters() if id(p) not in owned]
    require_law(not missing, "the inverse has the transform's parameters", f"not {missing[:3]}")
    require_law(inverse.inv is transform, "the inverse's inverse is the transform", "another")
    after = [list(module.state_dict()) for module in modules]
    require_law(after == before, "a transform has no inverse for its part", f"now {after}")


def check_closed_ends(transform: Any, x: Tensor) -> None:
    """Check a map at the ends of the intervals that its domain and its codomain include.

    In both directions, the image of an end must be the limit of the images before it, as the
    log-determinant must; and no rounding may carry the image of a point within a few units in the
    last place of an end out of the range that the transform declares. Open ends are not asked for.

    Args:
        transform: Any bijective ``torch.distributions.Transform``.
        x: Points of its domain, ``(*batch, *event)``.

    Raises:
        AssertionError: Naming the direction and the end, with the figures.

    Example:
        >>> from pyro_genmodels.transforms import NeuralSplineFlow
        >>> check_closed_ends(NeuralSplineFlow(2, splines="unit"), torch.rand(3, 2))
    """
    with torch.no_grad():
        _check_ends_of("forward", transform, x)
        _check_ends_of("inverse", transform.inv, transform(x.clone()).clone())


def _check_ends_of(direction: str, transform: Any, x: Tensor) -> None:
    for where, points in near_ends(transform.domain, x):
        images = [transform(point) for point in points]
        pairs = zip(points, images, strict=True)
        log_dets = [transform.log_abs_det_jacobian(point, image) for point, image in pairs]
        require_limit(f"{direction} of {where} is its limit", *images)
        require_limit(f"log-det ({direction}) of {where} is its limit", *log_dets)
        before, end = points[0], points[-1]
        for ulps in range(8):
            close = end + (before - end).sign() * ulps * torch.finfo(x.dtype).eps / 2
            inside = transform.codomain.check(transform(close)).all()
            law = f"{direction} of {where}, {ulps} units in the last place inside, is in the range"
            require_law(bool(inside), law, f"it is not in {transform.codomain}")


def check_shapes(transform: Any, x: Tensor) -> None:
    """Check that declared shapes are the true ones and that events do not see each other.

    Every batch shape from none to three dimensions is tried; each event's result must be that of
    the event alone.

    Args:
        transform: Any bijective ``torch.distributions.Transform``, without a context.
        x: One event of its domain, ``(*event)``.

    Raises:
        AssertionError: If a shape or a value differs.

    Example:
        >>> check_shapes(torch.distributions.ExpTransform(), torch.zeros(()))
    """
    for batch_shape in BATCH_SHAPES:
        offsets = torch.linspace(-0.1, 0.1, batch_shape.numel(), dtype=x.dtype)
        offsets = offsets.reshape((*batch_shape, *(1,) * x.dim()))
        low_risk = x + offsets if is_real(transform.domain) else x.expand(*batch_shape, *x.shape)
        _check_batch(transform, low_risk.clone(), batch_shape)


def _check_batch(transform: Any, x: Tensor, batch_shape: torch.Size) -> None:
    y = transform(x)
    require_shape("forward_shape", transform.forward_shape(x.shape), y.shape)
    require_shape("inverse_shape", transform.inverse_shape(y.shape), x.shape)
    log_det = transform.log_abs_det_jacobian(x, y)
    event_dim = transform.domain.event_dim
    require_shape("log-det's shape", log_det.shape, x.shape[: x.dim() - event_dim])
    law = f"each event of a batch of shape {tuple(batch_shape)} is mapped as if alone"
    require_close(law, y, one_by_one(transform, x, batch_shape=batch_shape))


def check_precision(transform: Any, x: Tensor, *, single: Any = None) -> None:
    """Check that a float32 copy keeps its dtype and agrees with the float64 original.

    Args:
        transform: Transform in float64; an ``nn.Module`` unless ``single`` is given.
        x: Points of its domain in float64, ``(*batch, *event)``.
        single: The same transform in float32, if ``transform.float()`` would not do.

    Raises:
        AssertionError: If a dtype changes, or an error exceeds 1e-4 times the condition estimate.

    Example:
        >>> from pyro.distributions.transforms import Planar
        >>> check_precision(Planar(3).double(), torch.randn(2, 3, dtype=torch.float64))
    """
    single = clean_copy(transform).float() if single is None else single
    y32 = single(x.float())
    log_det32 = single.log_abs_det_jacobian(x.float(), y32)
    for name, value in {"forward": y32, "log-det": log_det32}.items():
        require_law(value.dtype == torch.float32, "float32 stays", f"{name} is {value.dtype}")
    y = transform(x)
    bound = tolerance(torch.float32) * condition_number(transform, x)
    output_dim = transform.codomain.event_dim
    require_within("float32 = float64 (forward)", _largest(y32.double() - y, output_dim), bound)
    log_det = transform.log_abs_det_jacobian(x, y)
    error = (log_det32.double() - log_det).abs()
    require_within("float32 = float64 (log-det)", error, bound * (1 + log_det.abs()))
