"""Laws of a model's life: it trains, survives copies, can be frozen, and takes any units."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam as PyroAdam  # type: ignore[attr-defined]
from torch import Tensor, nn

from pyro_genmodels._modules import evaluating
from pyro_genmodels.models import ELBOLoss
from pyro_genmodels.testing.probes import (
    PARAMETER_CHANGES,
    clean_copy,
    error_of,
    pickled,
    seeded,
    under_seed,
)
from pyro_genmodels.testing.report import require_close, require_equal, require_law, require_shape


def check_trains(
    make: Callable[[], Any],
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_steps: int = 3,
    seed: int = 0,
) -> None:
    """Check that every instance trains under plain SVI, and outlives it.

    A first instance, a second one in the same process (the param store is not cleared between)
    and a deep copy must each have all parameters moved, and none but their own. After the steps
    the model is deep-copied, pickled, saved and reloaded; each gives the same log-weights.

    Args:
        make: Makes a new model; called twice.
        x: Data ``(batch, *event)``.
        context: Context, if the model is conditional.
        num_steps: SVI steps for each instance.
        seed: Seed of the steps.

    Raises:
        AssertionError: Naming the instance and the parameters that stood still, or the copy that
            differs.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> check_trains(lambda: VAE((3,), latent_dim=1), torch.randn(5, 3))
    """
    with seeded(seed):
        first = make()
        _check_moves("the first instance", first, x, context, num_steps)
        copied = copy.deepcopy(first)
        for name, other in {"a second instance": make(), "a deep copy": copied}.items():
            before = _parameters(first)
            _check_moves(name, other, x, context, num_steps)
            still = _moved(before, _parameters(first))
            require_law(not still, f"{name} trains alone", f"the first instance's {still} moved")
        check_copies(first, x, context, seed=seed)


def _parameters(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [name for name in before if not torch.equal(before[name], after[name])]


def _check_moves(name: str, model: Any, x: Tensor, context: Tensor | None, steps: int) -> None:
    before = _parameters(model)
    require_law(bool(before), f"{name} trains", "it has no trainable parameter")
    step = _svi_step(model, Trace_ELBO())
    for _ in range(steps):
        step(x, context)
    moved = _moved(before, _parameters(model))
    still = sorted(set(before) - set(moved))
    require_law(not still, f"{name} trains", f"after {steps} steps these stand still: {still}")


def check_copies(model: Any, x: Tensor, context: Tensor | None = None, *, seed: int = 0) -> None:
    """Check that deepcopy, pickle, ``torch.save`` and ``load_state_dict`` keep the model.

    Args:
        model: A model, used or not.
        x: Data ``(batch, *event)``.
        context: Context, if the model is conditional.
        seed: Seed of the draws that the log-weights need.

    Raises:
        AssertionError: Naming the copy whose log-weights differ.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> check_copies(VAE((3,), latent_dim=1), torch.randn(5, 3))
    """
    copies: dict[str, Callable[[Any], Any]] = {
        "deepcopy": copy.deepcopy,
        "pickle": pickled,
        "torch.save": lambda m: _saved_and_loaded(m, weights_only=False),
        "load_state_dict": _reloaded,
    }
    expected = _log_weights(model, x, context, seed)
    for name, duplicate in copies.items():
        actual = _log_weights(duplicate(model), x, context, seed)
        require_equal(f"{name} keeps the log-weights", actual, expected)


def _saved_and_loaded(part: Any, *, weights_only: bool) -> Any:
    file = io.BytesIO()
    torch.save(part, file)
    file.seek(0)
    # The file was written just above: nothing foreign can be in it.
    return torch.load(file, weights_only=weights_only)


def _reloaded(model: Any) -> Any:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(_saved_and_loaded(model.state_dict(), weights_only=True))
    return other


def _log_weights(model: Any, x: Tensor, context: Tensor | None, seed: int) -> Tensor:
    with evaluating(model), seeded(seed), torch.no_grad():
        weights: Tensor = model.log_weights(x, context, num_particles=2)
    return weights


def check_freezes(
    make: Callable[[], Any],
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_steps: int = 3,
    seed: int = 0,
) -> None:
    """Check that training the rest of a model leaves a frozen part as it is, bit for bit.

    Each direct part, a module of each class that has buffers and the whole model are frozen: by
    ``requires_grad_(False)`` and ``eval()`` no entry of its ``state_dict`` may change, by
    ``requires_grad_(False)`` alone no parameter. The model is in training mode, new or trained
    before, and trained by SVI and through :class:`~pyro_genmodels.models.ELBOLoss`.

    Args:
        make: Makes a new model.
        x: Data ``(batch, *event)``.
        context: Context, if the model is conditional.
        num_steps: Training steps before and after freezing.
        seed: Seed of the steps.

    Raises:
        AssertionError: Naming the part and the entries that changed.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> check_freezes(lambda: VAE((3,), latent_dim=1), torch.randn(5, 3))
    """
    with seeded(seed):
        new = make()
        trained = copy.deepcopy(new)
        for step in (_svi_step(new, new.make_elbo()), _loss_step(trained)):
            step(x, context)  # both ways work on this model
        for steps_before, evaluates in ((0, True), (num_steps, True), (0, False)):
            for name in _freezable(new):
                _check_frozen(make(), name, x, context, (steps_before, num_steps), evaluates)


def _freezable(model: nn.Module) -> list[str]:
    """Name the whole model, its direct parts and, of each class, a module that has buffers."""
    direct = [name for name, _ in model.named_children()]
    buffered = {type(part): name for name, part in model.named_modules() if part._buffers}
    state = model.state_dict()
    names = dict.fromkeys(["", *direct, *buffered.values()])
    return [name for name in names if any(key.startswith(name) for key in state)]


def _check_frozen(
    model: Any,
    name: str,
    x: Tensor,
    context: Tensor | None,
    num_steps: tuple[int, int],
    evaluates: bool,
) -> None:
    step = _svi_step(model, model.make_elbo())
    for _ in range(num_steps[0]):
        step(x, context)
    part = model.get_submodule(name).requires_grad_(False)
    if evaluates:
        part.eval()
        model.training = True  # the whole model's parts are frozen, and it trains
    before = {key: value.clone() for key, value in _entries(part, evaluates).items()}
    steps = [step]
    if any(p.requires_grad for p in model.parameters()):
        steps.append(_loss_step(model))
    for step in steps:
        for _ in range(num_steps[1]):
            step(x, context)
    changed = _moved(before, _entries(part, evaluates))
    law = f"'{name}' stays as it was frozen" if name else "a frozen model stays as it was"
    require_law(not changed, law, f"{changed} changed")


def _entries(part: nn.Module, evaluates: bool) -> dict[str, Tensor]:
    return part.state_dict() if evaluates else dict(part.named_parameters())


def _svi_step(model: Any, elbo: Any) -> Callable[..., Any]:
    return SVI(model.model, model.guide, PyroAdam({"lr": 1e-2}), elbo).step


def _loss_step(model: Any) -> Callable[..., Any]:
    loss = ELBOLoss(model)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)

    def step(x: Tensor, context: Tensor | None) -> None:
        optimizer.zero_grad()
        loss(x, context).backward()
        optimizer.step()

    return step


def check_no_stale_weights(
    model: Any, x: Tensor, context: Tensor | None = None, *, seed: int = 0
) -> None:
    """Check that a model's log-weights follow its parameters, however these were changed.

    After training steps of plain and fused optimizers and a write through ``.data``, the same
    tensor ``x`` must be scored as by a pickled copy, which carries no remembered value.

    Args:
        model: Model; a deep copy is worked on.
        x: Data ``(batch, *event)``, the same tensor each time.
        context: Context, if the model is conditional.
        seed: Seed of the draws.

    Raises:
        AssertionError: Naming the change that was missed.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> check_no_stale_weights(VAE((3,), latent_dim=1), torch.randn(5, 3))
    """
    model = copy.deepcopy(model)
    for name, change in PARAMETER_CHANGES.items():
        before = _log_weights(model, x, context, seed)
        under_seed(seed, model.log_weights, x, context).mean().neg().backward()
        change([p for p in model.parameters() if p.requires_grad])
        model.zero_grad()
        fresh = _log_weights(pickled(model), x.clone(), context, seed)
        actual = _log_weights(model, x, context, seed)
        require_law(not torch.equal(before, fresh), f"{name} changes the model", "it did not")
        require_equal(f"log-weights after {name} are fresh", actual, fresh)


def check_model_shapes(model: Any, x: Tensor, context: Tensor | None = None) -> None:
    """Check shapes of log-weights and samples over no, one and two batch dimensions.

    Args:
        model: Model with ``log_weights``, ``sample`` and ``event_shape``.
        x: One data point ``(*event)``.
        context: One context without batch dimensions, if the model is conditional.

    Raises:
        AssertionError: Naming the method and the shapes.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> check_model_shapes(VAE((3,), latent_dim=1), torch.zeros(3))
    """
    for batch in [(), (3,), (2, 3)]:
        many = x.expand((*batch, *x.shape))
        contexts = None if context is None else context.expand((*batch, *context.shape))
        weights = model.log_weights(many, contexts, num_particles=4)
        require_shape("log_weights", weights.shape, (4, *batch))
        program = poutine.trace(model.model).get_trace(many, contexts)
        require_shape("site x", program.nodes["x"]["value"].shape, (*batch, *x.shape))
    require_shape("sample", model.sample(5, context).shape, (5, *x.shape))


def check_half_precision(module: nn.Module, use: Callable[[nn.Module], Tensor]) -> None:
    """Check that half-precision weights work, or are refused in one sentence at the conversion.

    By ``half``, ``bfloat16`` and ``to``, alone and inside another module. A module that refuses
    keeps its values; double precision and other devices stay open to it.

    Args:
        module: A module in single precision; it is left as it is.
        use: What it is for, given a converted copy: returns numbers that must be finite.

    Raises:
        AssertionError: Naming the conversion.

    Example:
        >>> layer = torch.nn.Linear(2, 2)
        >>> check_half_precision(layer, lambda layer: layer(torch.ones(2).to(layer.weight)))
    """
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for name, convert in _TO_HALF.items():
        for held in (False, True):
            copied = clean_copy(module)
            error = error_of(convert, nn.ModuleList([copied]) if held else copied)
            if error is None:
                finite = bool(use(copied).isfinite().all())
                require_law(finite, f"{name} works", "there are NaN or infinite numbers")
                continue
            sentence = "ValueError: `dtype` must be float32 or float64 for weights ("
            outcome = f"{type(error).__name__}: {error}"
            require_law(outcome.startswith(sentence), f"{name} is refused in one sentence", outcome)
            for key, value in copied.state_dict().items():
                require_equal(f"{key} after a refused {name}", value, before[key])
            copied.double().to("cpu").float()


_TO_HALF: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "half": nn.Module.half,
    "bfloat16": nn.Module.bfloat16,
    "to": lambda module: module.to(torch.bfloat16),
    "to a device and": lambda module: module.to("cpu", torch.float16),
}


def check_any_batch_shape(
    call: Callable[..., Any], arguments: Mapping[str, Any], *, seed: int = 0
) -> None:
    """Check that a call gives any batch shape what it gives one batch dimension.

    No batch dimension, one of a single example and two are tried, in the same random state.

    Args:
        call: A model's method, a metric, a loss per example. What it returns are numbers, tensors,
            distributions, or lists and dictionaries of these.
        arguments: Its arguments by name: tensors ``(6, *event)``, or lists of them.
        seed: Seed of the draws.

    Raises:
        AssertionError: Naming the batch shape, with the figures.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> vae = VAE((3,), latent_dim=1)
        >>> check_any_batch_shape(vae.log_weights, {"x": torch.zeros(6, 3)})
    """
    for batch in ((), (1,), (2, 3)):
        number = math.prod(batch)
        first = {name: _reshaped(value, number, (number,)) for name, value in arguments.items()}
        given = {name: _reshaped(value, number, batch) for name, value in arguments.items()}
        actual, expected = (under_seed(seed, call, **each) for each in (given, first))
        _compare_batches(f"over batch shape {batch}", actual, expected, batch, seed)


def _reshaped(value: Any, number: int, batch: tuple[int, ...]) -> Any:
    if isinstance(value, Tensor):
        return value[:number].reshape(batch + value.shape[1:])
    return [_reshaped(each, number, batch) for each in value]


def _compare_batches(
    law: str, actual: Any, expected: Any, batch: tuple[int, ...], seed: int
) -> None:
    if isinstance(expected, Mapping):
        actual, expected = list(actual.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        for one, other in zip(actual, expected, strict=True):
            _compare_batches(law, one, other, batch, seed)
    elif hasattr(expected, "log_prob"):
        draws = [under_seed(seed, each.sample) for each in (actual, expected)]
        _compare_batches(f"samples {law}", draws[0], draws[1], batch, seed)
        scores = (actual.log_prob(draws[0]), expected.log_prob(draws[1]))
        _compare_batches(f"log_prob {law}", *scores, batch, seed)
    elif expected is not None:
        one, other = torch.as_tensor(actual), torch.as_tensor(expected)
        problem = f"shape {tuple(one.shape)} where one dimension gives {tuple(other.shape)}"
        require_law(tuple(one.shape) in _shapes_over(other.shape, batch), law, problem)
        floating = other.dtype if other.is_floating_point() else torch.float64
        require_close(law, one.reshape(other.shape).to(floating), other.to(floating))


def _shapes_over(shape: torch.Size, batch: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes with the batch in the place of one dimension, in front of which particles may be."""
    places = [place for place, size in enumerate(shape[:2]) if size == math.prod(batch)]
    return [shape[:place] + batch + shape[place + 1 :] for place in places] or [tuple(shape)]


def check_standardization(
    model: Any, x: Tensor, context: Tensor | None = None, *, seed: int = 0
) -> None:
    r"""Check that a standardised model is the plain one, with data in other units.

    The data are taken far from zero and to another scale in each column. With the shift
    :math:`m` and scale :math:`s` that the model sets, its log-weights must be those of the plain
    model at :math:`(x - m) / s`, less :math:`\sum_i \log s_i`; draws, site ``"x"``,
    reconstructions and imputations must be the plain model's, times :math:`s` and plus :math:`m`.
    Noise that is the same in all directions must stay so, and counts and codes what they are: of a
    model with no other columns nothing is set. Shift and scale must be saved, and keep their digits
    in another dtype; weights without them must make the model plain again, for good. Missing
    elements have no say in all this.

    Args:
        model: Model of continuous data, not standardised; deep copies are worked on.
        x: Data ``(batch, *event)``, two or more; NaN where an element is missing, if the model has
            ``missing``.
        context: Context, if the model is conditional.
        seed: Seed of the draws.

    Raises:
        AssertionError: Naming what is in other units, with the figures.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> model = VAE((3,), latent_dim=1).double()
        >>> check_standardization(model, torch.randn(5, 3, dtype=torch.float64))
    """
    plain, standard = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    which = model.standardized_columns
    others = [] if which is None else sorted(set(range(len(x[0]))) - set(which))
    columns = model.standardization.event_shape  # of sequences those of one frame
    data = _in_other_units(x, columns)
    data[:, others] = x[:, others]
    standard.standardize(data)
    units = standard.standardization
    if which is not None and not which:
        require_law(not units.is_set, "counts and codes keep their scale", f"{units.scale}")
        return
    ones = torch.ones_like(units.scale[others])
    require_equal("counts and codes are not shifted", units.shift[others], 0 * ones)
    require_equal("counts and codes are not scaled", units.scale[others], ones)
    shift, scale, seen = units.shift, units.scale, (data - units.shift) / units.scale
    rows = seen.reshape(-1, *columns)
    _check_moments(rows if which is None else rows[:, list(which)])
    logs = scale.log().expand(model.event_shape)
    observed = torch.where(data.isnan(), torch.zeros_like(logs), logs)
    log_det = observed.flatten(x.dim() - len(model.event_shape)).sum(-1)
    expected = _log_weights(plain, seen, context, seed)
    scores = _log_weights(standard, data, context, seed)
    require_close("log-weights are in the data's units", scores, expected - log_det)
    for name, draw in _draws(seen, data, context).items():
        values = under_seed(seed, draw, plain, seen)
        actual = under_seed(seed, draw, standard, data)
        require_close(f"{name} in the data's units", actual, shift + scale * values)
    _check_sites(plain, standard, context, logs.sum(), seed)
    _check_settled(model, standard, x, context, seed)
    require_equal("loading keeps the units", _log_weights(standard, data, context, seed), scores)


def _in_other_units(x: Tensor, event_shape: torch.Size) -> Tensor:
    sizes = (-1,) + (1,) * (len(event_shape) - 1)
    factor = torch.logspace(-2, 2, event_shape[0], dtype=x.dtype).reshape(sizes)
    return 7 * factor * (x + 100)


def _check_moments(seen: Tensor) -> None:
    columns = seen.movedim(1, 0).flatten(1)
    zero, one = torch.zeros_like(columns[:, 0]), torch.ones_like(columns[0, 0])
    require_close("standardised columns have mean zero", columns.nanmean(1), zero)
    squares = columns.square().nanmean(1).mean()
    require_close("standardised data have deviation one", squares, one)


def _draws(seen: Tensor, data: Tensor, context: Tensor | None) -> dict[str, Callable[..., Tensor]]:
    def site(model: Any, x: Tensor | None) -> Tensor:
        value: Tensor = poutine.trace(model.model).get_trace(x, context).nodes["x"]["value"]
        if x is None:
            return value
        zero = model.standardization.shift
        return torch.where(x.isnan(), 0.0 if zero is None else zero, value)

    def reconstruction(model: Any, x: Tensor) -> Tensor:
        if model.has_latents:
            return model.reconstruct(x, context)
        return model.impute(x, context)[0] if model.missing and model.imputes else x

    return {
        "samples are": lambda model, _: model.sample(3, context),
        "the observed site x is": site,
        "the drawn site x is": lambda model, _: site(model, None),
        "reconstructions, or imputations, are": reconstruction,
    }


def _check_sites(
    plain: Any, standard: Any, context: Tensor | None, log_det: Tensor, seed: int
) -> None:
    traces = [
        under_seed(seed, poutine.trace(model.model).get_trace, None, context)
        for model in (plain, standard)
    ]
    for trace in traces:
        trace.compute_log_prob()
    before, after = (trace.nodes["x"] for trace in traces)
    require_close(
        "a draw's density is in the data's units",
        after["unscaled_log_prob"],
        before["unscaled_log_prob"] - log_det,
    )
    try:
        noise, rescaled = before["fn"].variance, after["fn"].variance
    except NotImplementedError:
        return  # of a flow
    if bool((noise == noise.flatten()[0]).all()):
        same = torch.allclose(rescaled, rescaled.flatten()[0])
        law = "noise that is the same in all directions stays so"
        require_law(same, law, f"its variances become {rescaled.flatten()[:3].tolist()}")


def _check_settled(model: Any, standard: Any, x: Tensor, context: Tensor | None, seed: int) -> None:
    """Check what outlives the call; the model ends with its own state loaded."""
    state = copy.deepcopy(standard.state_dict())
    standard.standardize(x)
    for name, tensor in copy.deepcopy(standard).float().state_dict().items():
        if "standardization" in name:
            law = f"{name} is set once, in all its digits"
            require_equal(law, tensor.double(), state[name].double())
    expected = _log_weights(copy.deepcopy(model), x, context, seed)
    standard.load_state_dict(model.state_dict())
    actual = _log_weights(standard, x, context, seed)
    require_equal("weights without a scale unset it", actual, expected)
    refused = isinstance(error_of(standard.standardize, x), ValueError)
    law = "weights that were loaded without a scale get none"
    require_law(refused, law, f"{type(model).__name__}.standardize set one")
    standard.load_state_dict(state)
