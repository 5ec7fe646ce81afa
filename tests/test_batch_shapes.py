"""Any batch shape, none included, in every method of every model and in what takes a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from torch import Tensor

from pyro_genmodels import compression, disentanglement, metrics, models
from tests import cases
from tests.model_calls import Call, calls_of
from tests.test_laws import batch_for, prepared_model, run

pytestmark = [pytest.mark.usefixtures("double"), pytest.mark.one_each]
MODELS = cases.MODELS | {f"{name}/features": make for name, make in cases.FEATURE_MODELS.items()}
# Of Pyro's own flow, that draws nothing outside the plates over its contexts.
NO_DRAW_OUTSIDE = {("FlowModel/pyro/features", "density")}


def objectives_of(model: Any, given: dict[str, Any]) -> dict[str, Call]:
    """Losses, per example, and the metrics."""
    loss = models.ELBOLoss(model)
    calls: dict[str, Call] = {
        "ELBOLoss": (loss, given),
        "ELBOLoss.bound": (loss.bound, given),
        "particles": (models.ELBOLoss(model, num_particles=2), given),
        "elbo": (partial(metrics.elbo, model, num_particles=3), given),
    }
    if not model.beside_elbo():
        calls["importance"] = (models.ELBOLoss(model, importance=True, num_particles=3), given)
    for size in (3, 512):
        options = {"num_particles": 3, "chunk_size": size}
        bound = partial(metrics.importance_weighted_bound, model, **options)
        calls[f"bound in chunks of {size}"] = (bound, given)
    for estimator in (Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO):
        calls[f"SVI with {estimator.__name__}"] = (_svi(model, estimator), given)
    return calls


def _svi(model: Any, estimator: Any) -> Callable[..., Any]:
    def loss(**given: Any) -> float:
        x = given["x"]
        batch = x.shape[: x.dim() - len(model.event_shape)]
        elbo = estimator(max_plate_nesting=len(batch))
        svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.0}), elbo)  # type: ignore[attr-defined]
        return float(svi.evaluate_loss(*given.values())) / batch.numel()

    return loss


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    case = prepared_model(MODELS[name])
    model, (x, context) = case.part, batch_for(case, 6)
    given = {"x": x} if context is None else {"x": x, "context": context}
    calls = calls_of(model, x, context) | objectives_of(model, given)
    for method, (call, arguments) in calls.items():
        if (name, method) not in NO_DRAW_OUTSIDE:
            _run(method, call, arguments)


# What takes rows of data, what others have checked, and what returns no images for none.
NOT_CHECKED = {"complete", "dequantized", "fit_em"}


@pytest.mark.parametrize("name", MODELS)
def test_no_example(name: str) -> None:
    case = prepared_model(MODELS[name])
    x, context = batch_for(case, 2)
    # Or what the model refuses of any data.
    rule = r"^`x` must hold one example or more; got batch shape \(.*0,?\)\.$|^`model` must"
    for method, (call, given) in calls_of(case.part, x, context).items():
        if "x" in given and method not in NOT_CHECKED:
            for batch in ((0,), (2, 0)):
                none = {key: _without_examples(value, batch) for key, value in given.items()}
                try:
                    with pytest.raises(ValueError, match=rule):
                        call(**none)
                except BaseException as error:
                    raise AssertionError(f"{method} over {batch}: {error}") from error


def _without_examples(value: Any, batch: tuple[int, ...]) -> Any:
    if isinstance(value, Tensor):
        return value.new_empty(batch + value.shape[1:])
    return [_without_examples(each, batch) for each in value]


# A batch norm in training needs more than one value per channel, which these have of one image.
NORMALIZED = {name for name in MODELS if name.startswith("NVAE")}


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NORMALIZED])
def test_training_loss(name: str) -> None:
    case = prepared_model(MODELS[name])
    model, (x, context) = case.part.train(), batch_for(case, 6)
    given = {"x": x} if context is None else {"x": x, "context": context}
    state = {key: value.clone() for key, value in model.state_dict().items()}

    def loss(**each: Any) -> Tensor:
        model.load_state_dict(state)
        return models.ELBOLoss(model)(**each)

    _run("the training loss", loss, given)


def _run(method: str, call: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        run("check_any_batch_shape", call, arguments)
    except Exception as error:
        raise AssertionError(f"{method}: {error}") from error


def test_a_context_that_all_examples_share() -> None:
    case = prepared_model(MODELS["VAE/binary-labels"])
    x, _ = batch_for(case, 6)
    of_one, of_all = torch.tensor(2), torch.full((6,), 2)
    pyro.set_rng_seed(0)
    expected = metrics.elbo(case.part, x, of_all)
    for context in (of_one, of_one[None]):
        pyro.set_rng_seed(0)
        assert torch.equal(metrics.elbo(case.part, x, context), expected)
    with pytest.raises(ValueError, match="`context` must have a batch shape that expands to"):
        metrics.elbo(case.part, x, of_all[:5])


@pytest.mark.parametrize("name", ["AutoregressiveModel/made", "VQVAE/labels", "VQVAE2"])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3)], ids=str)
def test_compression(name: str, batch: tuple[int, ...]) -> None:
    pytest.importorskip("constriction")
    case = prepared_model(MODELS[name])
    x, context = batch_for(case, 6)
    of_one = x[: torch.Size(batch).numel()]
    contexts = None if context is None else context[: len(of_one)]
    shaped = of_one.reshape(batch + of_one.shape[1:])
    given = None if contexts is None else contexts.reshape(batch + contexts.shape[1:])
    data = compression.compress_images(case.part, shaped, given)
    restored = compression.decompress_images(case.part, data, given)
    assert restored.shape == shaped.shape
    bits = compression.ideal_bits(case.part, shaped, given)
    assert bits == pytest.approx(compression.ideal_bits(case.part, of_one, contexts))


def test_plotting(tmp_path: Path) -> None:
    plotting = pytest.importorskip("pyro_genmodels.plotting")
    images = torch.rand(2, 3, 2, 5, 5)
    flat = images.flatten(0, 1)
    assert torch.equal(plotting.image_grid(images, 2), plotting.image_grid(flat, 2))
    assert torch.equal(plotting.image_grid(flat[0], 2), plotting.image_grid(flat[:1], 2))
    assert torch.equal(plotting.to_pixels(images, 2).flatten(0, 1), plotting.to_pixels(flat, 2))
    for x in (images, flat[0], torch.rand(7, 2), torch.rand(2)):
        for draw in (
            lambda x: plotting.save_samples(x, 2, tmp_path / "x.png"),
            lambda x: plotting.save_reconstructions(x, x, 2, tmp_path / "x.png"),
        ):
            draw(x)
            assert (tmp_path / "x.png").stat().st_size > 0
            (tmp_path / "x.png").unlink()


def test_disentanglement_is_of_all_examples() -> None:
    """Its scores have no batch: they are of a population, whatever its shape."""
    factors = torch.randint(3, (60, 2))
    codes = factors.double() @ torch.tensor([[1.0, 0.3], [0.1, 1.0]]) + 0.1 * torch.randn(60, 2)
    shaped = codes.view(3, 20, 2), factors.view(3, 20, 2)
    assert torch.equal(disentanglement.active_units(shaped[0]), disentanglement.active_units(codes))
    for score in (disentanglement.mig, disentanglement.sap):
        assert score(*shaped) == score(codes, factors)
    information = disentanglement.mutual_information
    assert torch.equal(information(*shaped), information(codes, factors))
    assert information(codes[0], factors[0]).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="two data points or more"):
        disentanglement.active_units(codes[0])
