"""Laws of a distribution as a Pyro citizen: shapes, expand, mask, plates, validation, vmap."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from pyro_genmodels.testing.probes import (
    BATCH_SHAPES,
    base_of,
    error_of,
    near_ends,
    one_by_one,
    seeded,
    takes_missing,
    under_seed,
)
from pyro_genmodels.testing.report import (
    require_close,
    require_law,
    require_limit,
    require_shape,
    require_within,
    tolerance,
)
from pyro_genmodels.testing.sampling import integer_range


def check_distribution(distribution: Any, *, seed: int = 0) -> None:
    """Check all that Pyro asks of a distribution, given any batch shape.

    Sample and log-probability shapes for any leading dimensions, each element scored as if alone;
    ``expand``, ``to_event``, ``mask``; a sample statement inside plates, observed or not;
    validation that names bad values; and a deep copy.

    Args:
        distribution: Pyro distribution.
        seed: Seed of its draws; the global random state is given back.

    Raises:
        AssertionError: Naming what broke, with the figures.

    Example:
        >>> import pyro.distributions as dist
        >>> check_distribution(dist.Normal(torch.zeros(3, 2), 1.0).to_event(1))
    """
    with seeded(seed):
        check_batch_shapes(distribution)
        check_expand(distribution)
        check_plates(distribution)
        check_validation(distribution)
        value = distribution.sample()
        copied = copy.deepcopy(distribution)
        expected = distribution.log_prob(value)
        require_close("a deep copy scores alike", copied.log_prob(value), expected)


def check_batch_shapes(distribution: Any) -> None:
    """Check shapes over leading dimensions, and that no element's score sees another's.

    Raises:
        AssertionError: If a shape or a score differs.

    Example:
        >>> check_batch_shapes(torch.distributions.Normal(torch.zeros(2), 1.0))
    """
    batch_shape, event_shape = distribution.batch_shape, distribution.event_shape
    for leading in BATCH_SHAPES:
        value = distribution.sample(leading)
        shape = leading + batch_shape
        require_shape(f"sample({tuple(leading)})", value.shape, shape + event_shape)
        scores = distribution.log_prob(value)
        require_shape(f"log_prob over {tuple(leading)}", scores.shape, shape)
        alone = one_by_one(distribution.log_prob, value, batch_shape=leading)
        require_close(f"log_prob over {tuple(leading)} = one by one", scores, alone)


def check_expand(distribution: Any) -> None:
    """Check ``expand``, ``to_event`` and ``mask`` against the distribution itself.

    Raises:
        AssertionError: If a shape, a score or a validation flag differs.

    Example:
        >>> import pyro.distributions as dist
        >>> check_expand(dist.Normal(torch.zeros(2), 1.0))
    """
    shape = torch.Size((4, 3)) + distribution.batch_shape
    wide = distribution.expand(shape[1:]).expand(shape)
    require_shape("expand's batch_shape", wide.batch_shape, shape)
    require_shape("expand's event_shape", wide.event_shape, distribution.event_shape)
    value = wide.sample()
    require_shape("a sample of expand", value.shape, shape + distribution.event_shape)
    expected = distribution.log_prob(value)
    require_close("expand scores alike", wide.log_prob(value), expected)
    require_close("to_event sums", wide.to_event(1).log_prob(value), expected.sum(-1))
    mask = torch.arange(shape.numel()).reshape(shape) % 2 == 0
    require_close("mask", wide.mask(mask).log_prob(value), expected * mask)
    for flag in (True, False):
        subject = copy.copy(distribution)
        subject._validate_args = flag
        kept = getattr(subject.expand((2, *subject.batch_shape)), "_validate_args", None)
        require_law(kept == flag, "expand keeps validate_args", f"{flag} became {kept}")


def check_plates(distribution: Any) -> None:
    """Check sample statements in plates: drawn, observed, masked, scaled, many particles.

    Raises:
        AssertionError: If a shape or a log-probability differs.

    Example:
        >>> import pyro.distributions as dist
        >>> check_plates(dist.Normal(torch.zeros(2), 1.0))
    """
    shape = torch.Size((2, 3)) + distribution.batch_shape

    def program(value: Tensor | None = None) -> Tensor:
        with pyro.plate_stack("plates", shape), poutine.scale(scale=0.5):
            return pyro.sample("x", distribution, obs=value)

    value = program()
    require_shape("a sample in plates", value.shape, shape + distribution.event_shape)
    trace = poutine.trace(program).get_trace(value)
    trace.compute_log_prob()
    expected = distribution.log_prob(value)
    require_close("log_prob in plates", trace.nodes["x"]["log_prob"], 0.5 * expected)
    total = torch.as_tensor(trace.log_prob_sum())
    require_close("log_prob_sum", total, 0.5 * expected.sum())


def check_validation(distribution: Any) -> None:
    """Check that bad values are each a ``ValueError`` under validation.

    A wrong event shape and NaN; below, above and between the integers if the support is discrete.
    Where the support has NaN for an element that was not observed, it must be scored instead.

    Raises:
        AssertionError: Naming the bad value that passed, or the wrong exception.

    Example:
        >>> check_validation(torch.distributions.Bernoulli(torch.tensor([0.2, 0.9])))
    """
    distribution = distribution.expand(distribution.batch_shape)
    distribution._validate_args = True
    value = distribution.sample()
    for name, bad in _bad_values(distribution, value).items():
        error = error_of(distribution.log_prob, bad)
        outcome = "it passed" if error is None else f"it raised {type(error).__name__}: {error}"
        require_law(isinstance(error, ValueError), f"log_prob of {name} is a ValueError", outcome)
    if takes_missing(distribution.support):
        nats = distribution.log_prob(_spoilt(value, torch.nan))
        require_law(bool(nats.isfinite().all()), "an element may be missing", f"{nats}")


def _bad_values(distribution: Any, value: Tensor) -> dict[str, Tensor]:
    bad = {}
    if distribution.event_shape:
        bad["an event one too wide"] = torch.cat([value, value[..., :1]], -1)
        if len(distribution.event_shape) == 3:
            bad["an image with a channel too many"] = torch.cat([value, value[..., :1, :, :]], -3)
    if value.is_floating_point() and not takes_missing(distribution.support):
        bad["NaN"] = _spoilt(value, torch.nan)
    if distribution.support.is_discrete:
        low, high = integer_range(distribution)
        floats = value if value.is_floating_point() else value.to(torch.get_default_dtype())
        values = {"below": low - 1.0, "between": low + 0.5}
        if base_of(distribution.support) is not constraints.nonnegative_integer:
            values["above"] = high + 1.0
        for name, wrong in values.items():
            bad[f"a value {name} the levels ({wrong})"] = _spoilt(floats, wrong)
    return bad


def _spoilt(value: Tensor, wrong: float) -> Tensor:
    flat = value.flatten().clone()
    flat[-1] = wrong  # one element of one event: a check of the first only would miss it
    return flat.reshape(value.shape)


def check_context_validation(call: Callable[[Tensor], Any], context: Tensor) -> None:
    """Check that features with one NaN or infinite element are a ``ValueError`` that names them.

    Args:
        call: What conditions on features: a constructor, a transform's ``condition``, a model's
            method.
        context: Features that it takes.

    Raises:
        AssertionError: Naming the element that passed, or the error that named something else.

    Example:
        >>> from pyro_genmodels import transforms
        >>> flow = transforms.conditional_affine_coupling(4, 2)
        >>> check_context_validation(flow.condition, torch.randn(3, 2))
    """
    call(context)
    for wrong in (torch.nan, torch.inf, -torch.inf):
        error = error_of(call, _spoilt(context, wrong))
        start = "`context` must be finite; got 1 NaN or infinite elements."
        named = isinstance(error, ValueError) and str(error).startswith(start)
        outcome = "it passed" if error is None else str(error)
        require_law(named, f"a context with one element {wrong} is an error", outcome)


def check_ends(distribution: Any, *, seed: int = 0) -> None:
    """Check the density at the ends of an interval that the support includes.

    At an end it must be the limit of the density inside. An open end, such as that of a logit, is
    not asked for; of discrete distributions the end levels must have a probability.

    Args:
        distribution: Pyro or torch distribution, with a support of any kind.
        seed: Seed of the values of the elements that do not lie at the end.

    Raises:
        AssertionError: Naming the end, with the figures.

    Example:
        >>> check_ends(torch.distributions.Beta(torch.tensor([2.0]), torch.tensor([1.0])))
    """
    distribution = distribution.expand(distribution.batch_shape)
    distribution._validate_args = False
    value = under_seed(seed, distribution.sample, (3,))
    if distribution.support.is_discrete:
        for level in integer_range(distribution):
            nats = distribution.log_prob(torch.full_like(value, level))
            law = f"logarithm of the probability of all elements at {level}"
            require_within(law, nats, tolerance(nats.dtype))
        return
    for where, points in near_ends(distribution.support, value):
        densities = [distribution.log_prob(point) for point in points]
        require_limit(f"log_prob of {where} is its limit", *densities)


def check_vmap(distribution: Any, *, seed: int = 0) -> None:
    """Check that ``torch.vmap`` over values scores as leading dimensions do.

    Validation reads values, which vmap forbids, so it is switched off here.

    Raises:
        AssertionError: If a score differs.

    Example:
        >>> check_vmap(torch.distributions.Normal(torch.zeros(2), 1.0))
    """
    distribution = distribution.expand(distribution.batch_shape)
    distribution._validate_args = False
    value = under_seed(seed, distribution.sample, torch.Size((3,)))
    require_close("vmap", torch.vmap(distribution.log_prob)(value), distribution.log_prob(value))
