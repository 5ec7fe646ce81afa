"""The public methods of a model, found by inspection, each with arguments that fit it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels import models, nets

# Called by other methods, with what these have checked; or only inside a program.
HOOKS = {"generate", "infer", "posterior_of_scaled", "check_context_batch", "particle_traces"}
HOOKS |= {"encoder_input", "observed_input", "without_missing", "check_values", "check_missing"}
HOOKS |= {"joined_context", "context_parts", "label_log_probs"}
HOOKS.add("law")  # the deprecated name of `distribution`, which warns
HOOKS |= {"em_family", "fit_em"}  # of rows of data, not a batch

Call = tuple[Callable[..., Any], dict[str, Any]]


def calls_of(model: Any, x: Tensor, context: Tensor | None) -> dict[str, Call]:
    """Methods that take data, a context or what is made of them, with their arguments by name.

    All arguments are tensors over one batch dimension, or lists of them.
    """
    values = arguments_for(model, x, context)
    calls: dict[str, Call] = {}
    for name, method in inspect.getmembers(model, inspect.ismethod):
        if name.startswith("_") or name in HOOKS | _unfit(model) or hasattr(torch.nn.Module, name):
            continue
        parameters = inspect.signature(method).parameters
        given = {each: values[each] for each in parameters if each in values}
        if name in ("class_log_probs", "label_log_probs"):
            given.pop("context", None)  # which is each label in turn
        if given and not inspect.isclass(method.__self__):
            calls[name] = (_with_constants(method, parameters), given)
    return calls


def arguments_for(model: Any, x: Tensor, context: Tensor | None) -> dict[str, Any]:
    """Values for the arguments that a method of some model takes, by name."""
    given: dict[str, Any] = {"x": x} if context is None else {"x": x, "context": context}
    if isinstance(model, models.NVAE):
        given["latents"] = [torch.randn(len(x), *shape) for shape in model.latent_shapes]
    if isinstance(model, models.VectorQuantizedModel):
        maps = model.code_maps(x, context)
        given["codes"] = maps if isinstance(model, models.VQVAE2) else maps[0]
        given["inputs"] = model._decoder_input(model._vectors(maps), context)
    if isinstance(model, models.DiffusionModel):
        given["z"] = torch.randn(len(x), *model.data.shape)
        given["known"] = torch.rand(x.shape) < 0.5
    if hasattr(model, "latent_dim"):
        given["z"] = torch.randn(len(x), model.latent_dim)
    return given


def _with_constants(method: Callable[..., Any], parameters: Any) -> Callable[..., Any]:
    constants: dict[str, Any] = {
        "labels": torch.arange(1),
        "num_rows": 0,
        "num_iterations": 1,
        "num_particles": 3,
    }
    kept = {name: value for name, value in constants.items() if name in parameters}
    return lambda **given: method(**given, **kept)


def _unfit(model: Any) -> set[str]:
    """Methods that the model has by its base and refuses."""
    net = getattr(model, "net", None)
    own_order = isinstance(net, nets.MADENet | nets.MultiScaleNet) and not _is_raster(net)
    unfit = {"complete"} if own_order else set()
    if not (model.missing and (model.has_latents or model.imputes)):
        unfit |= {"impute"}
    if not gives_distribution(model):
        unfit |= {"distribution"}
    # Of a label beside features it takes another context than all else.
    if not gives_distribution(model) or model.num_classes is None or model.takes_pairs:
        unfit |= {"class_log_probs", "label_log_probs"}
    if isinstance(model, models.MixtureModel) and not model.is_dequantized:
        unfit |= {"dequantized"}
    return unfit if model.has_latents else unfit | {"reconstruct"}


def gives_distribution(model: models.GenerativeModel) -> bool:
    """Whether the model's distribution over data has a closed form."""
    if isinstance(model, models.MixtureModel):
        return not (model.is_dequantized or model.observed_labels)
    return model.bound_kind == "exact" or isinstance(model, models.FactorAnalysis)


def _is_raster(net: nets.AutoregressiveNet) -> bool:
    return torch.equal(net.order, torch.arange(len(net.order)))
