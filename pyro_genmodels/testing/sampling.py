"""Laws of normalisation and sampling: probabilities sum to one and are those that are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels.testing.probes import base_of, under_seed
from pyro_genmodels.testing.report import require_equal, require_law, require_within

_MAX_OUTCOMES = 2**20
_CHUNK = 2**14


def integer_range(distribution: Any) -> tuple[int, int]:
    """Return the least and the largest value of each element of a discrete distribution.

    Of one without a largest value, such as a count's, it is 50 deviations above the mean: there the
    probabilities of what lies beyond are taken for zero.

    Raises:
        ValueError: If the support is not an integer interval of plain numbers.

    Example:
        >>> integer_range(torch.distributions.Bernoulli(0.5))
        (0, 1)
    """
    support = base_of(distribution.support)
    if support is torch.distributions.constraints.boolean:
        return 0, 1
    bounds = [getattr(support, f"{side}_bound", None) for side in ("lower", "upper")]
    if support is torch.distributions.constraints.nonnegative_integer:
        bounds[1] = (distribution.mean + 50 * distribution.variance.sqrt()).max().ceil()
    finite = all(b is not None and torch.as_tensor(b).unique().numel() == 1 for b in bounds)
    check(finite and support.is_discrete, "distribution", "have an integer support", support)
    low, high = (int(torch.as_tensor(b).flatten()[0]) for b in bounds)
    return low, high


def outcomes(distribution: Any) -> Tensor:
    """Return every value of a discrete distribution's event, in lexicographic order.

    Returns:
        Shape ``(count, *event)``.

    Raises:
        ValueError: If the support is not finite, or holds more than 2**20 values.

    Example:
        >>> outcomes(torch.distributions.Categorical(torch.ones(3))).tolist()
        [0, 1, 2]
    """
    low, high = integer_range(distribution)
    return low + all_levels("distribution", high - low + 1, distribution.event_shape)


def all_levels(argument: str, num_levels: int, event_shape: torch.Size) -> Tensor:
    """Return every event of some levels ``0 .. num_levels - 1``, in lexicographic order.

    Raises:
        ValueError: Naming the argument, if there are more than 2**20.
    """
    count = num_levels ** event_shape.numel()
    check(count <= _MAX_OUTCOMES, argument, f"have at most {_MAX_OUTCOMES} values", count)
    digits = torch.arange(count)[:, None] // _places(num_levels, event_shape) % num_levels
    return digits.reshape(count, *event_shape)


def count_levels(levels: Tensor, num_levels: int, event_shape: torch.Size) -> Tensor:
    """Count how often each of :func:`all_levels` is among levels ``(number, *event)``.

    Raises:
        AssertionError: If some are no levels.
    """
    digits = levels.reshape(len(levels), -1).double()
    integral = bool(((digits == digits.floor()) & (digits >= 0) & (digits < num_levels)).all())
    problem = f"they do not hold {num_levels} successive integers only"
    require_law(integral, "samples lie in the support", problem)
    codes = (digits.long() * _places(num_levels, event_shape)).sum(1)
    return torch.bincount(codes, minlength=num_levels ** event_shape.numel())


def _places(num_levels: int, event_shape: torch.Size) -> Tensor:
    return num_levels ** torch.arange(event_shape.numel() - 1, -1, -1)


def standard_error(values: Tensor) -> Tensor:
    """Return the standard error of means over the first dimension; zero of a single value."""
    if len(values) < 2:
        return torch.zeros((), dtype=values.dtype)
    return values.std(0) / math.sqrt(len(values))


def log_table(distribution: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the log-probability of each of :func:`outcomes`, as ``(count, *batch)`` in float64.

    Example:
        >>> log_table(torch.distributions.Bernoulli(torch.tensor(0.25))).exp()
        tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    ones = (1,) * len(distribution.batch_shape)
    with torch.no_grad():
        scores = [
            distribution.log_prob(chunk.reshape(-1, *ones, *distribution.event_shape).to(dtype))
            for chunk in outcomes(distribution).split(_CHUNK)
        ]
    return torch.cat(scores).double()


def check_normalized(distribution: Any, *, dtype: torch.dtype = torch.float64) -> None:
    """Check that a discrete distribution's probabilities sum to one, by enumeration.

    Args:
        distribution: Distribution whose elements are integers of one known range.
        dtype: Floating dtype in which the values are handed over.

    Raises:
        AssertionError: If a sum is off by more than 1e-6, for any element of the batch.
        ValueError: If there are more than 2**20 values.

    Example:
        >>> check_normalized(torch.distributions.Bernoulli(logits=torch.randn(2)))
    """
    totals = log_table(distribution, dtype).exp().sum(0)
    require_within("probabilities sum to one", (totals - 1).abs(), 1e-6)


def check_sampler(
    distribution: Any, *, num_samples: int = 20_000, seed: int = 0, **options: Any
) -> None:
    r"""Check that ``sample`` draws from the distribution that ``log_prob`` scores.

    A discrete distribution of at most 2**20 values is counted: both the chi-square statistic
    (its normal deviate below 5, after Wilson and Hilferty, cells pooled to an expectation of five)
    and the total variation (within its Monte-Carlo floor, McDiarmid's bound at 1e-6) must be those
    of true draws. A continuous one on all of :math:`\mathbb R^D` must obey Stein's identity,
    :math:`E[\partial_j \log p(x) x_i] = -\delta_{ij}`, and :math:`E[\partial_j \log p(x)] = 0`,
    to 5 standard errors.

    Args:
        distribution: Distribution with an empty batch shape, or a batch to be checked one by one.
        num_samples: Number of draws.
        seed: Seed of the draws; the global random state is given back.
        **options: Passed on to ``sample``, such as ``method="cached"``.

    Raises:
        AssertionError: With the statistic and its bound.

    Example:
        >>> check_sampler(torch.distributions.Bernoulli(torch.tensor([0.2, 0.9])))
    """
    samples = under_seed(seed, distribution.sample, (num_samples,), **options).detach()
    if not distribution.support.is_discrete:
        check_stein_identity(distribution, samples)
        return
    low, high = integer_range(distribution)
    event_shape = distribution.event_shape
    tables = log_table(distribution).exp()
    flat = (samples - low).reshape(num_samples, -1, *event_shape)
    for index, probabilities in enumerate(tables.reshape(len(tables), -1).unbind(1)):
        counts = count_levels(flat[:, index], high - low + 1, event_shape)
        _check_counts(counts, probabilities, index)


def _check_counts(counts: Tensor, probabilities: Tensor, index: int) -> None:
    total = counts.sum()
    variation = 0.5 * (counts / total - probabilities).abs().sum()
    spread = (2 * probabilities * (1 - probabilities) / (math.pi * total)).sqrt()
    floor = 0.5 * spread.sum() + math.sqrt(math.log(1e6) / (2 * total))
    where = f"batch element {index}"
    require_within(f"total variation of samples and log_prob ({where})", variation, float(floor))
    deviate = _chi_square_deviate(counts.double(), probabilities * total)
    require_within(f"chi-square deviate of samples and log_prob ({where})", deviate, 5.0)


def _chi_square_deviate(counts: Tensor, expected: Tensor) -> Tensor:
    order = expected.argsort(descending=True)
    # The rare cells together make one, so that each term is near its chi-square law.
    kept = int((expected >= 5).sum())
    if expected[order[kept:]].sum() < 5 and kept > 0:
        kept -= 1
    counts, expected = (
        torch.cat([cells[order[:kept]], cells[order[kept:]].sum()[None]])
        for cells in (counts, expected)
    )
    freedom = len(expected) - 1
    if freedom < 1:
        return torch.zeros((), dtype=expected.dtype)
    statistic = ((counts - expected) ** 2 / expected).sum()
    variance = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - variance)) / math.sqrt(variance)


def check_stein_identity(distribution: Any, samples: Tensor) -> None:
    r"""Check :math:`E[\partial_j \log p(x)\, x_i] = -\delta_{ij}` over samples, to 5 s.e.

    Args:
        distribution: Distribution on all of :math:`\mathbb R^D`, with density and tails that
            vanish.
        samples: Its draws, ``(num_samples, *batch, *event)``.

    Raises:
        AssertionError: With the deviation in standard errors and its indices (j, then i; the last
            i is the constant 1).

    Example:
        >>> normal = torch.distributions.Normal(torch.zeros(1000), 1.0)
        >>> check_stein_identity(normal, 2 * torch.randn(100, 1000))
        Traceback (most recent call last):
        ...
        AssertionError: Stein's identity...
    """
    x = samples.detach().clone().requires_grad_()
    with torch.enable_grad():
        (score,) = torch.autograd.grad(distribution.log_prob(x).sum(), x)
    dimension = max(1, distribution.event_shape.numel())
    score, x = (t.detach().double().reshape(-1, dimension) for t in (score, x))
    moments = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    products = score[:, :, None] * moments[:, None, :]
    error = (products.mean(0) + torch.eye(dimension, dimension + 1)).abs()
    deviation = error / standard_error(products).clamp_min(1e-12)
    require_within("Stein's identity of samples and log_prob, in standard errors", deviation, 5.0)


def check_sampling_methods_agree(
    distribution: Any,
    *,
    methods: Sequence[str] = ("cached", "parallel", "naive"),
    sample_shape: Sequence[int] = (3,),
    seed: int = 0,
) -> None:
    """Check that every sampling method draws the same values from the same noise.

    Args:
        distribution: Distribution whose ``sample`` takes ``method=``.
        methods: Its methods.
        sample_shape: Shape of the draws.
        seed: Seed that each method starts from.

    Raises:
        AssertionError: Naming the methods that differ, with the number of elements.

    Example:
        >>> class Coin(torch.distributions.Bernoulli):
        ...     def sample(self, sample_shape=(), *, method="cached"):
        ...         return super().sample(sample_shape)
        >>> check_sampling_methods_agree(Coin(0.5))
    """
    first, *others = methods
    shape = torch.Size(sample_shape)
    expected = under_seed(seed, distribution.sample, shape, method=first)
    for method in others:
        actual = under_seed(seed, distribution.sample, shape, method=method)
        require_equal(f"method={method!r} draws as {first!r} does", actual, expected)
