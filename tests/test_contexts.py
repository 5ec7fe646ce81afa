"""Features that are not finite are an error that names them, wherever a part takes a context."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam  # type: ignore[attr-defined]
from torch import Tensor
from torch.utils.data import TensorDataset

from pyro_genmodels import compression, distributions, metrics, models
from pyro_genmodels._checks import require
from pyro_genmodels.distributions import AutoregressiveDistribution
from tests import cases
from tests.cases import Case
from tests.model_calls import calls_of
from tests.test_laws import batch_for, prepared_model, run

pytestmark = pytest.mark.usefixtures("double")


def on_features(group: cases.Cases) -> cases.Cases:
    """The cases whose contexts are features, not labels."""
    return {name: make for name, make in group.items() if _is_on_features(make())}


def _is_on_features(case: Case) -> bool:
    context = getattr(case.part, "context", None) if case.context is None else case.context
    return isinstance(context, Tensor) and context.is_floating_point()


def model_of(make: Callable[[], Case]) -> Callable[[], Case]:
    """A case of the model with an autoregressive distribution's network."""

    def make_model() -> Case:
        law = make().part
        model = models.AutoregressiveModel(law.net)
        return Case(model, context=law.context)

    return make_model


DISTRIBUTIONS = on_features(cases.DISTRIBUTIONS)
TRANSFORMS = on_features(cases.CONDITIONAL_TRANSFORMS)
MODELS = (
    on_features(cases.MODELS)
    | cases.FEATURE_MODELS
    | {
        f"AutoregressiveModel/{name}": model_of(make)
        for name, make in DISTRIBUTIONS.items()
        if isinstance(make().part, AutoregressiveDistribution)
        and len(make().part.event_shape) in (1, 3)  # a model's data are vectors or images
    }
)


def test_each_family_is_here() -> None:
    """One that is conditional on features has a case in which it is."""
    found = {name.partition("/")[0] for name in DISTRIBUTIONS}
    exported = {name: getattr(distributions, name) for name in distributions.__all__}
    kinds = AutoregressiveDistribution | distributions.ReverseDiffusion
    laws = {n for n, law in exported.items() if inspect.isclass(law) and issubclass(law, kinds)}
    assert found == laws
    takes_features = {
        name
        for name in models.__all__
        if inspect.isclass(part := getattr(models, name))
        and issubclass(part, models.GenerativeModel)
        and not inspect.isabstract(part)
        and "context_shape" in inspect.signature(part).parameters
    }
    assert takes_features <= {name.partition("/")[0] for name in MODELS}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name: str) -> None:
    law = DISTRIBUTIONS[name]().part
    context: Tensor = law.context
    run("check_context_validation", partial(with_context, law), context)
    # Under the switch of the values' check, and no other.
    with_context(law, context * torch.nan, validate_args=False)


def with_context(law: Any, context: Tensor, **options: Any) -> Any:
    """The distribution, given another context."""
    if isinstance(law, distributions.ReverseDiffusion):
        sizes = law.event_shape[1:], law.batch_shape
        return type(law)(law.denoise, law.levels, *sizes, context=context, **options)
    return type(law)(law.net, context, **options)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name: str) -> None:
    case = TRANSFORMS[name]()
    assert case.context is not None
    run("check_context_validation", case.part.condition, case.context)
    with pyro.validation_enabled(False):
        case.part.condition(case.context * torch.nan)


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    """Each of its methods; both objectives, and a metric of it."""
    case = prepared_model(MODELS[name])
    model, (x, context) = case.part, batch_for(case, 2)
    assert context is not None
    calls: dict[str, Callable[[Tensor], Any]] = {}
    for method, (call, given) in calls_of(model, x, context).items():
        if "context" in given:
            del given["context"]
            calls[method] = lambda c, call=call, given=given: call(context=c, **given)
    assert {"model", "guide", "sample", "log_weights"} <= set(calls)
    calls["ELBOLoss"] = lambda given: models.ELBOLoss(model)(x, given)
    calls["elbo"] = lambda given: metrics.elbo(model, x, given)
    svi = SVI(model.model, model.guide, Adam({"lr": 1e-3}), Trace_ELBO())
    calls["SVI"] = lambda given: svi.step(x, given)
    for method, call in calls.items():
        try:
            run("check_context_validation", call, context)
        except AssertionError as error:
            raise AssertionError(f"{method}: {error}") from error
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", cases.FEATURE_MODELS)
def test_a_loss_that_no_longer_validates_names_the_context(name: str) -> None:
    case = prepared_model(MODELS[name])
    x, context = batch_for(case, 2)
    assert context is not None
    loss = models.ELBOLoss(case.part, validate=False)
    with pytest.raises(models.NonFiniteELBOError, match=r"^`context` must be finite; got"):
        loss(x, context * torch.nan)


@pytest.mark.parametrize("name", ["VQVAE", "VQVAE2"])
def test_learned_priors(name: str) -> None:
    case = prepared_model(MODELS[name])
    x, context = batch_for(case, 2)
    assert context is not None
    maps = case.part.code_maps(x, context)
    for index, prior in enumerate(case.part.code_priors):
        above = maps[:index]
        run("check_context_validation", lambda c, p=prior, a=above: p(a, c), context)


@pytest.mark.parametrize("name", ["VQVAE", "VQVAE2", "AutoregressiveModel/MADE/masks"])
def test_compression(name: str) -> None:
    pytest.importorskip("constriction")
    case = prepared_model(MODELS[name])
    x, context = batch_for(case, 2)
    assert context is not None
    run("check_context_validation", lambda c: compression.compress_images(case.part, x, c), context)


def test_training_data() -> None:
    """All of a data set in memory; another one batch after batch."""
    from pyro_genmodels.training.batches import Batches

    case = MODELS["VAE"]()
    x, context = batch_for(case, 4)
    assert context is not None

    def in_memory(given: Tensor) -> Any:
        return list(Batches(TensorDataset(x, given), case.part, 2))

    def loaded(given: Tensor) -> Any:
        pairs = list(zip(x, given, strict=True))
        batches = Batches(pairs, case.part, 2)
        return [next(iter(batches)) for _ in range(2)]

    run("check_context_validation", in_memory, context)
    run("check_context_validation", loaded, context)


def test_a_file_for_the_command_line(tmp_path: Path) -> None:
    require("jsonargparse", extra="train")
    from pyro_genmodels.cli.arrays import read_context

    case = MODELS["VAE"]()
    assert case.context is not None

    def read(given: Tensor) -> Any:
        torch.save(given, tmp_path / "context.pt")
        options = Namespace(labels=str(tmp_path / "context.pt"), device="cpu")
        return read_context(case.part, options)

    run("check_context_validation", read, case.context)
