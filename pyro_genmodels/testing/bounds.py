"""Laws of model/guide pairs: bounds are bounds, and every estimator agrees on them.

All are statistical. A deviation is confirmed by fresh draws before it is reported, so that a true
law is reported broken once in 100,000 times.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor

from pyro_genmodels.testing.probes import confirmed, error_of, seeded, under_seed
from pyro_genmodels.testing.report import (
    require_close,
    require_equal,
    require_law,
    require_within,
)
from pyro_genmodels.testing.sampling import all_levels, count_levels, standard_error

_STANDARD_ERRORS = 3.0
_LEAST_EFFECTIVE = 20.0
_ESTIMATORS = (Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO)


@confirmed
def check_bounds(
    model: Any,
    x: Tensor,
    context: Tensor | None = None,
    *,
    log_evidence: Tensor | None = None,
    num_particles: int = 1000,
    seed: int = 0,
) -> None:
    r"""Check ELBO <= importance-weighted bound <= log-evidence, to 3 standard errors.

    The bound over 1, 10 and 100 particles must not fall. Where the evidence is known the weights
    must also average to it, :math:`E_q[w] = p(x)`, which a bound that is merely loose may miss.

    Args:
        model: Model with ``log_weights`` (see :class:`pyro_genmodels.models.GenerativeModel`).
        x: Data ``(batch, *event)``.
        context: Context, if the model is conditional.
        log_evidence: The exact ``log p(x)``, ``(batch)``.
        num_particles: Draws for each example, a multiple of 100.
        seed: Seed of the draws.

    Raises:
        AssertionError: With the excess in standard errors.

    Example:
        >>> from types import SimpleNamespace
        >>> def log_weights(x, context, *, num_particles):
        ...     return x.expand(num_particles, -1)
        >>> x = torch.tensor([-1.0, -2.0])
        >>> check_bounds(SimpleNamespace(log_weights=log_weights), x, log_evidence=x)
    """
    with seeded(seed), torch.no_grad():
        weights = model.log_weights(x, context, num_particles=num_particles).double()
    require_law(not weights.isnan().any(), "log-weights are numbers", "there is a NaN")
    previous, name = weights.flatten(1).mean(1), "ELBO"
    for group in (10, 100):
        grouped = weights.flatten(1).unflatten(0, (-1, group)).logsumexp(1) - math.log(group)
        _check_at_most(f"{name} <= bound of {group} particles", previous, grouped.mean(1))
        previous, name = grouped.mean(1), f"bound of {group} particles"
    if log_evidence is not None:
        evidence = log_evidence.double()
        _check_at_most(f"{name} <= log-evidence", previous, evidence.mean()[None])
        ratios = (weights - evidence).exp()
        _check_judgeable(ratios)
        _check_mean_one("weights average to the evidence", ratios)


def _check_at_most(law: str, lower: Tensor, upper: Tensor) -> None:
    spread = standard_error(lower) ** 2 + standard_error(upper) ** 2
    excess = (lower.mean() - upper.mean()) / (spread.sqrt() + 1e-9 * (1 + upper.mean().abs()))
    require_within(f"{law}, in standard errors", excess, _STANDARD_ERRORS)


def _check_mean_one(law: str, ratios: Tensor) -> None:
    """Check means over the first dimension; the errors of a batch are joined by their number."""
    deviation = (ratios.mean(0) - 1).abs() / (standard_error(ratios) + 1e-6)
    # A batch of n means has its largest deviation near sqrt(2 log n).
    bound = math.sqrt(_STANDARD_ERRORS**2 + 2 * math.log(max(1, deviation.numel())))
    require_within(f"{law}, in standard errors", deviation, bound)


@confirmed
def check_evidence_normalized(
    model: Any, context: Tensor | None = None, *, num_particles: int = 2000, seed: int = 0
) -> None:
    r"""Check :math:`\sum_x E_q[p(x, z) / q(z \mid x)] = 1` over all data, to 3 standard errors.

    It holds for every guide whose support covers the posterior's, so a wrong log-determinant, a
    wrong dequantisation or a lost term shows even where no evidence is known.

    Args:
        model: Discrete model with ``log_weights``, ``event_shape`` and ``num_levels``.
        context: One context without batch dimensions, if the model is conditional.
        num_particles: Draws for each data point.
        seed: Seed of the draws.

    Raises:
        AssertionError: With the deviation in standard errors.

    Example:
        >>> from pyro_genmodels.models import VAE, VAENetwork
        >>> _ = torch.manual_seed(0)
        >>> model = VAE((3,), num_levels=2, latent_dim=1, network=VAENetwork(hidden=()))
        >>> check_evidence_normalized(model)
    """
    weights = _table(model, context, num_particles, seed)
    _check_mean_one("evidence sums to one over all data", weights.sum(1))


def _table(model: Any, context: Tensor | None, num_particles: int, seed: int) -> Tensor:
    x = all_levels("model", model.num_levels, model.event_shape)
    contexts = None if context is None else context.expand((len(x), *context.shape))
    with seeded(seed), torch.no_grad():
        weights: Tensor = model.log_weights(x, contexts, num_particles=num_particles)
    weights = weights.double().exp()
    _check_judgeable(weights)
    return weights


def _check_judgeable(weights: Tensor) -> None:
    """Refuse to judge by a handful of particles: the standard error would be meaningless."""
    effective = weights.sum(0) ** 2 / (weights**2).sum(0)
    law = "effective number of particles, negated (give more, or a guide nearer the posterior)"
    require_within(law, -effective, -_LEAST_EFFECTIVE)


@confirmed
def check_model_sampler(
    model: Any,
    context: Tensor | None = None,
    *,
    num_samples: int = 20_000,
    num_particles: int = 2000,
    seed: int = 0,
) -> None:
    """Check that ``sample`` draws each possible data point as often as the evidence says.

    Args:
        model: Discrete model with ``sample``, ``log_weights``, ``event_shape``, ``num_levels``.
        context: One context without batch dimensions, if the model is conditional.
        num_samples: Number of draws.
        num_particles: Draws that estimate each data point's evidence.
        seed: Seed of both.

    Raises:
        AssertionError: With the largest deviation in joint standard errors, its bound, and the
            index of the data point in lexicographic order.

    Example:
        >>> from pyro_genmodels.models import VAE, VAENetwork
        >>> _ = torch.manual_seed(0)
        >>> model = VAE((3,), num_levels=2, latent_dim=1, network=VAENetwork(hidden=()))
        >>> check_model_sampler(model, num_samples=5000)
    """
    weights = _table(model, context, num_particles, seed)
    expected, error = weights.mean(0), standard_error(weights)
    samples = under_seed(seed + 1, model.sample, num_samples, context)
    share = count_levels(samples, model.num_levels, model.event_shape) / num_samples
    noise = (expected * (1 - expected).clamp_min(0) / num_samples + error**2).sqrt()
    # Where a count of one is rare the normal bound is too tight: allow a few counts.
    deviation = (share - expected).abs() / (noise + 1 / num_samples)
    require_within("samples = evidence, in standard errors", deviation, 5.0)


def check_exact_distribution(
    model: Any, x: Tensor, context: Tensor | None = None, *, seed: int = 0
) -> None:
    """Check that ``model.distribution(context)`` is that over data, or is refused by name.

    Its log-probabilities must be the model's log-weights, which do not vary in a model without
    latent variables, nor where the guide is the exact posterior: over any batch shape, one data
    point given several contexts included, with the same gradients, and in the data's units after
    ``standardize``. Its draws must be data. Only a model whose ``bound_kind`` is not ``"exact"``
    may refuse, in an error that names it: one with latent variables, or with a density of
    dequantised values alone.

    Of a model of labels, ``class_log_probs`` must be what the distribution gives each label, in
    chunks or not, with the same gradients.

    Args:
        model: Model, not standardised, in eval mode; a deep copy of it is standardised.
        x: Data ``(batch, *event)``, two or more.
        context: A context for each, if the model is conditional.
        seed: Seed of the draws.

    Raises:
        AssertionError: Naming what differs, with the figures.

    Example:
        >>> from pyro_genmodels.models import FactorAnalysis
        >>> _ = torch.manual_seed(0)
        >>> model = FactorAnalysis((3,), latent_dim=1).double()
        >>> check_exact_distribution(model, torch.randn(5, 3, dtype=torch.float64))
    """
    in_units = copy.deepcopy(model)
    try:
        model.distribution(context)
    except ValueError as error:
        law = "an exact model has a distribution"
        require_law(model.bound_kind != "exact", law, str(error).rstrip("."))
        named = type(model).__name__ in str(error)
        require_law(named, "a model that has no distribution is named", str(error).rstrip("."))
        return
    with seeded(seed):
        _check_exact(model, x, context)
        if model.num_levels is None:
            data = 7 * (x + 100)
            _check_exact(in_units.standardize(data), data, context)


def _check_exact(model: Any, x: Tensor, context: Tensor | None) -> None:
    one = None if context is None else context[0]
    calls = {
        "a batch": (x, context),
        "one data point": (x[0], one),
        "two batch dimensions": (torch.stack([x, x.flip(0)]), context),
    }
    if context is not None:
        calls["one data point given each context"] = (x[0], context)
    for what, (points, given) in calls.items():
        scores = model.distribution(given).log_prob(points)
        weights = model.log_weights(points.expand(*scores.shape, *model.event_shape), given)[0]
        require_close(f"log-probabilities are the log-weights, of {what}", scores, weights)
        for name, slope, expected in _slopes(model, scores, weights):
            require_close(f"gradients are the log-weights', of {what}: {name}", slope, expected)
    law = model.distribution(context)
    draws = law.sample((3,))
    shape = (3, *(() if context is None else x.shape[:1]), *model.event_shape)
    problem = f"shape {tuple(draws.shape)} where {shape} was due"
    require_law(tuple(draws.shape) == shape, "draws are data for each context", problem)
    finite = bool(law.log_prob(draws).isfinite().all())
    require_law(finite, "draws can be scored", f"of {type(law).__name__} not all")
    if model.num_classes is not None and model.context_shape is None:
        _check_class_log_probs(model, x)


def _check_class_log_probs(model: Any, x: Tensor) -> None:
    labels = torch.arange(model.num_classes)
    columns = [model.distribution(label.expand(len(x))).log_prob(x) for label in labels]
    expected = torch.stack(columns, -1)
    scores = model.class_log_probs(x)
    require_close("class_log_probs are those of each label", scores, expected)
    for name, slope, other in _slopes(model, scores, expected):
        require_close(f"gradients of class_log_probs are each label's: {name}", slope, other)
    calls = {
        "in chunks": model.class_log_probs(x, chunk_size=1),
        "of one data point": model.class_log_probs(x[0])[None],
        "over two batch dimensions": model.class_log_probs(x[None])[0],
    }
    for name, found in calls.items():
        require_close(f"class_log_probs {name} are the same", found, scores[: len(found)])


def _slopes(model: Any, scores: Tensor, weights: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    slopes, expected = (
        torch.autograd.grad(each.sum(), list(named.values()), **options)
        for each in (scores, weights)
    )
    yield from zip(named, slopes, expected, strict=True)


def check_missing(model: Any, x: Tensor, context: Tensor | None = None, *, seed: int = 0) -> None:
    """Check that NaN is an element that was not observed, or refused where a model takes none.

    Of a model with ``missing``: what bits a NaN has does not matter, nor what other examples miss;
    gradients, of parameters and data, are finite, and zero at what is missing; with latent
    variables reconstructions are whole; imputations are whole too, and keep what was observed. Of
    another model NaN must be a ``ValueError`` of all that takes data.

    Args:
        model: Model with ``missing`` and ``log_weights``, in eval mode.
        x: Data ``(batch, *event)``, two or more, NaN where an element is missing; the first
            example has some observed ones, the last is whole.
        context: A context for each, if the model is conditional.
        seed: Seed of the draws.

    Raises:
        AssertionError: Naming what differs, with the figures.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> x = torch.tensor([[1.0, torch.nan], [0.5, -1.0]])
        >>> check_missing(VAE((2,), missing=True).eval(), x)
        >>> check_missing(VAE((2,)).eval(), x)
    """
    if not model.missing:
        _check_refuses(model, x, context)
        return

    def weights(data: Tensor) -> Tensor:
        return under_seed(seed, model.log_weights, data, context, num_particles=2)

    gone, expected = x.isnan(), weights(x)
    for name, other in _other_nans(x).items():
        require_equal(f"{name} is as good as another", weights(other), expected)
    fewer = x.clone()
    fewer[0] = torch.nan
    require_close("what one misses is its own affair", weights(fewer)[:, 1:], expected[:, 1:])
    _check_slopes(model, x, weights)
    if not (model.has_latents or model.imputes):
        return
    with seeded(seed):
        if model.has_latents:
            _check_whole(model, x, context)
        drawn = model.impute(x, context, num_samples=2)
    require_law(bool(drawn.isfinite().all()), "an imputation is whole", "it has missing elements")
    kept = drawn[:, ~gone]
    require_equal("an imputation keeps what was observed", kept, x[~gone].expand_as(kept))


def _check_whole(model: Any, x: Tensor, context: Tensor | None) -> None:
    for name, nats in model.rates(x, context).items():
        require_law(bool(nats.isfinite().all()), "rates are finite", f"those of {name} are not")
    whole = bool(model.reconstruct(x, context).isfinite().all())
    require_law(whole, "a reconstruction is whole", "it has missing elements")


def _check_refuses(model: Any, x: Tensor, context: Tensor | None) -> None:
    calls = {
        "model": model.model,
        "guide": model.guide,
        "log_weights": model.log_weights,
        "reconstruct": model.reconstruct,
        "rates": model.rates,
        "report": model.report,
    }
    with _unregistered(model):
        for name, call in calls.items():
            error = error_of(call, x, context)
            outcome = "it passed" if error is None else f"{type(error).__name__}: {error}"
            refused = isinstance(error, ValueError) and "`x` must" in str(error)
            require_law(refused, f"NaN is a ValueError of `x` in {name}", outcome)


def _other_nans(x: Tensor) -> dict[str, Tensor]:
    """Return data whose missing elements have other bits, or are missing by arithmetic."""
    signed = torch.where(x.isnan(), -x, x)
    integers = x.view(torch.int64 if x.dtype == torch.float64 else torch.int32)
    other = torch.where(x.isnan(), integers | 0x2A, integers).view(x.dtype)
    return {"a NaN of the other sign": signed, "a NaN with a payload": other}


def _check_slopes(model: Any, x: Tensor, weights: Any) -> None:
    data = x.clone().requires_grad_()
    named = {"x": data, **{n: p for n, p in model.named_parameters() if p.requires_grad}}
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    slopes = torch.autograd.grad(weights(data).sum(), list(named.values()), **options)
    for name, slope in zip(named, slopes, strict=True):
        problem = f"{int((~slope.isfinite()).sum())} elements of {name} are not"
        require_law(bool(slope.isfinite().all()), "gradients are finite", problem)
    at_holes = slopes[0][x.isnan()]
    require_equal("gradients at what is missing are zero", at_holes, torch.zeros_like(at_holes))


@confirmed
def check_marginal(
    model: Any,
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_particles: int = 2000,
    seed: int = 0,
) -> None:
    r"""Check :math:`p(x_\text{obs}) = \sum_{x_\text{mis}} p(x_\text{obs}, x_\text{mis})`.

    Both sides are means of weights, compared to 3 standard errors; the sum goes over every way to
    complete the data. Of nothing observed the evidence is one.

    Args:
        model: Discrete model with ``missing``, ``log_weights``, ``event_shape``, ``num_levels``.
        x: Data ``(batch, *event)``, NaN where an element is missing.
        context: A context for each, if the model is conditional.
        num_particles: Draws for each data point.
        seed: Seed of the draws.

    Raises:
        AssertionError: With the example and the deviation in standard errors.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> model = VAE((2,), num_levels=2, latent_dim=1, missing=True)
        >>> check_marginal(model, torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]]))
    """
    for i, row in enumerate(x):
        gone = row.isnan()
        fillings = all_levels("model", model.num_levels, torch.Size([int(gone.sum())])).to(x)
        whole = row.repeat(len(fillings), *[1] * row.dim())
        whole[:, gone] = fillings
        sides = []
        for data in (row[None], whole):
            given = None if context is None else context[i].expand(len(data), *context[i].shape)
            with seeded(seed), torch.no_grad():
                weights = model.log_weights(data, given, num_particles=num_particles)
            _check_judgeable(weights.double().exp())
            sides.append(weights.double().exp().sum(1))
        _check_equal_means(f"evidence of the observed part is the sum, example {i}", *sides)


@confirmed
def check_estimators_agree(
    model: Any,
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_runs: int = 200,
    seed: int = 0,
) -> None:
    """Check that Trace, TraceMeanField, TraceGraph and TraceEnum agree, to 3 standard errors.

    They read scales from different sides, so a weight on the model's latent sites alone, or on the
    guide's alone, shows here. At ``beta=1`` and with no other terms it must be the mean log-weight
    too. A model in training mode is run as it is trained, with gradients.

    Args:
        model: Model with ``model``, ``guide`` and ``log_weights``.
        x: Data ``(batch, *event)``.
        context: Context, if the model is conditional.
        num_runs: Evaluations of each estimator.
        seed: Seed of the draws.

    Raises:
        AssertionError: Naming the two that differ, with the difference in standard errors.

    Example:
        >>> from pyro_genmodels.models import VAE, VAENetwork
        >>> _ = torch.manual_seed(0)
        >>> model = VAE((3,), num_levels=2, latent_dim=1, network=VAENetwork(hidden=())).eval()
        >>> check_estimators_agree(model, torch.zeros(2, 3), num_runs=20)
    """
    losses = {}
    with seeded(seed), _unregistered(model):
        with torch.set_grad_enabled(model.training):
            for estimator in _ESTIMATORS:
                elbo = estimator(max_plate_nesting=x.dim() - len(model.event_shape))
                runs = [-elbo.loss(model.model, model.guide, x, context) for _ in range(num_runs)]
                losses[estimator.__name__] = torch.tensor(runs, dtype=torch.float64)
        # An objective that is another function of the KL term is no mean of log-weights.
        plain = getattr(model, "latent_cost", None) is None
        other_terms = model.training and bool(model.beside_elbo())
        if plain and not other_terms and float(model.latent_scale.value) == 1.0:
            with torch.no_grad():
                weights = model.log_weights(x, context, num_particles=num_runs)
            losses["log_weights"] = weights.double().flatten(1).sum(1)
    first = losses["Trace_ELBO"]
    for name, values in losses.items():
        _check_equal_means(f"Trace_ELBO = {name}", first, values)


@confirmed
def check_bound_estimate(
    model: Any,
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_runs: int = 400,
    seed: int = 0,
) -> None:
    """Check that ``bound_estimate`` averages to each example's ELBO, to 3 standard errors.

    It is what training validates by, where a model may have a cheaper estimate than a log-weight.

    Args:
        model: Model with ``bound_estimate`` and ``log_weights``.
        x: Data ``(batch, *event)``.
        context: Context, if the model is conditional.
        num_runs: Number of estimates, and of log-weights, for each example.
        seed: Seed of the draws.

    Raises:
        AssertionError: With the deviation in standard errors, and the example.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> check_bound_estimate(VAE((3,), latent_dim=1).eval(), torch.zeros(2, 3), num_runs=20)
    """
    with seeded(seed), torch.no_grad():
        weights = model.log_weights(x, context, num_particles=num_runs).double()
        estimates = [model.bound_estimate(x, context).double() for _ in range(num_runs)]
    _check_equal_means("bound_estimate averages to the ELBO", torch.stack(estimates), weights)


def _check_equal_means(law: str, first: Tensor, second: Tensor) -> None:
    spread = (standard_error(first) ** 2 + standard_error(second) ** 2).sqrt()
    scale = spread + 1e-6 * (1 + first.mean().abs())
    deviation = (first.mean() - second.mean()).abs() / scale
    require_within(f"{law}, in standard errors", deviation, _STANDARD_ERRORS)


def _unregistered(model: Any) -> contextlib.AbstractContextManager[Any]:
    register = getattr(model, "unregistered", None)
    return contextlib.nullcontext() if register is None else register()
